"""What can be done with a model as it is, from its graph: nothing is run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import NamedTuple

from cloakonnx.classifier.declared import class_count, other_inputs
from cloakonnx.classifier.ending import check_class_scores
from cloakonnx.errors import CloakError, DifferentiationError, ModelError, TapError
from cloakonnx.gradient.way import find_way
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.index import FLOATS
from cloakonnx.graph.masks.insert import check_opset
from cloakonnx.graph.masks.taps import find_tap, places
from cloakonnx.graph.masks.weights import chosen_weights


class Ability(NamedTuple):
    """Whether a verb takes a model.

    Attributes:
        verb: ``attack``, ``analyze`` or ``learn``.
        works: Whether it does, as far as the graph tells.
        how: The way where there are several, or why it does not.
        option: What that way takes on the command line; empty for the default.
    """

    verb: str
    works: bool
    how: str
    option: str = ""


_BY_SCORES, _AT_ACTIVATIONS = "--attack square", "--granularity feature"


def abilities(model: Model, *, name_of: Callable[[str], str] = str) -> list[Ability]:
    """Return what can be done with a model: attacks, scores and masks, learning.

    Args:
        model: The model; its only input and output are taken, or the only floating-point ones.
        name_of: What a reason calls a parameter: the command line has options.

    Examples:
        >>> from cloakonnx import load
        >>> [each.how for each in abilities(load("samples/digits_cnn.onnx")) if each.works]
        ['by gradients', "at the default tap '/6/Relu_output_0'", 'on 4 weights']
    """
    attack = _attack(model, name_of)
    return [attack, _masks(model, name_of), _learn(model, attack, name_of)]


def _attack(model: Model, name_of: Callable[[str], str]) -> Ability:
    try:
        name, output = _input(model), model.output().name
        check_class_scores(model, output, scores=class_count(model, output), sample=None, input_name=name)
    except ModelError as error:
        return Ability("attack", False, _short(error, name_of))
    try:
        way = find_way(model.inferred, name, output)
    except DifferentiationError as error:
        return Ability("attack", True, f"by scores alone ({_BY_SCORES}): {_short(error, name_of)}", _BY_SCORES)
    if way.nodes:
        return Ability("attack", True, "by gradients")
    if way.bridged:
        return Ability("attack", True, f"straight through {way.bridged}")
    return Ability("attack", True, f"by scores alone ({_BY_SCORES}): {way.stop} has no gradient", _BY_SCORES)


def _input(model: Model) -> str:
    inputs = model.inputs
    if len(inputs) > 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelError(f"it has several inputs ({names}), and {_fed(model)}", parameter="input_name")
    name, kind = model.input().name, model.input().type.tensor_type.elem_type
    if kind not in FLOATS:
        raise ModelError(f"its input {name!r} is not floating point")
    return name


def _fed(model: Model) -> str:
    """Say what a model of several inputs can be run with."""
    try:
        needed = other_inputs(model, None)
    except ModelError:
        return "one takes samples"
    if len(needed) == 1:
        return f"the scores need one of them: the verbs take it with {{input_name}} {needed[0]}"
    return "one takes samples: make the others constants in the file (docs/troubleshooting.md)"


def _masks(model: Model, name_of: Callable[[str], str]) -> Ability:
    try:
        tap = find_tap(model)
        check_opset(model)
        if len(model.inputs) > 1:
            _input(model)
    except CloakError as error:
        return Ability("analyze", False, _short(error, name_of))
    return Ability("analyze", True, f"at the default tap {tap.name!r}")


def _learn(model: Model, attack: Ability, name_of: Callable[[str], str]) -> Ability:
    if not attack.works or attack.option:
        return Ability("learn", False, "it needs gradients" if attack.works else attack.how)
    try:
        check_opset(model)
    except ModelError as error:
        return Ability("learn", False, _short(error, name_of))
    try:
        return Ability("learn", True, f"on {len({each.name for each in chosen_weights(model)})} weights")
    except TapError as error:
        why = _short(error, name_of)
    try:
        count = len(places(model))
    except TapError:
        return _learn_at_default(model, why)
    how = f"at {count} activation{'s' * (count > 1)} ({_AT_ACTIVATIONS})"
    return Ability("learn", True, how, _AT_ACTIVATIONS)


def _learn_at_default(model: Model, why: str) -> Ability:
    """The features that a linear model of ai.onnx.ml reads, made of the input, are no activations."""
    try:
        option = f"--tap {shlex.quote(find_tap(model).name)}"
    except TapError:
        return Ability("learn", False, why)
    return Ability("learn", True, f"at the default tap ({option})", option)


def _short(error: CloakError, name_of: Callable[[str], str]) -> str:
    return error.said(name_of).partition(";")[0]
