"""Folds masks into weights: the same results with the nodes, and so the speed, of the original.

Lays scales over the graph (:mod:`cloakonnx.graph.fold._scales`), multiplies the weights that absorb them and those that
masks are on, and leaves each mask that can't fold a ``Mul``, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloakonnx.errors import MaskError, ModelError
from cloakonnx.graph.file.edit import Edit, edited
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold._absorb import Change, Weights, reweighted
from cloakonnx.graph.fold._forest import Ids
from cloakonnx.graph.fold._rules import rule_of, split
from cloakonnx.graph.fold._scales import System
from cloakonnx.graph.fold._site import Absorption, ScaleSite, StuckError
from cloakonnx.graph.fold.recorded import given_masks, in_weight
from cloakonnx.graph.fold.weights import Folded, weight_changes, with_nodes
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.index.index import node_inputs
from cloakonnx.graph.index.traits import Trait, has
from cloakonnx.graph.masks import metadata
from cloakonnx.graph.masks.harden import Watch, check_size, check_target, plan, write_edited
from cloakonnx.graph.masks.insert import check_opset, insertion, mask_values
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import FLOAT_TYPES, Tap, find_tap
from cloakonnx.remote import local

_WIDEST = {"float16": 2.0**8, "bfloat16": 2.0**40, "float32": 2.0**40, "float64": 2.0**40}
"""Largest ratio between scales that constrain each other, by the narrowest dtype of the taps."""


@dataclass(frozen=True)
class MaskFate:
    """What became of one mask.

    Attributes:
        tap: The masked tensor, an activation or a weight.
        layers: The layers whose weights changed because of it, in graph order; empty where it stays a Mul.
        reason: Why it stays a Mul node; None where it is folded.
    """

    tap: str
    layers: tuple[str, ...]
    reason: str | None

    @property
    def folded(self) -> bool:
        """Whether it is in the weights."""
        return self.reason is None


@dataclass(frozen=True)
class Folding:
    """An edit that folds masks, and what it does to each."""

    edit: Edit
    fates: tuple[MaskFate, ...]


def folding(model: Model, masks: Sequence[Mask]) -> Folding:
    """Return the edit that folds what can be folded of some masks into a model and puts the others in as Mul nodes.

    Where no mask folds this is the edit that :func:`~cloakonnx.graph.masks.harden.harden_file` makes.

    Raises:
        ModelError: an opset below 7, or a model that was hardened before.
        TapError: a tap that can't carry a mask.
        MaskError: no mask, two for one tensor, weights that do not fit, or products that overflow their dtype.
    """
    if not masks:
        raise MaskError("there is no mask to fold")
    if any(mask.is_float16 for mask in masks):
        raise MaskError("a mask that is stored as float16 is a Mul node; fold it as it was before it was rounded")
    check_opset(model)
    if metadata.entries(model.proto):
        raise ModelError(f"{model.name} was hardened before; fold all masks at once into the model it was made from")
    insertion(model, masks, stripped_sha256="")  # raises where they do not fit, folded or not
    taps = {n: find_tap(model, m.tap, axis=m.feature_axis) for n, m in enumerate(masks) if not m.on_weight}
    at_taps, on_weights = _at_taps(model, masks, taps), weight_changes(model, masks)
    reasons = {**at_taps.kept, **on_weights.kept}
    layers = {**at_taps.layers, **on_weights.layers}
    fates = tuple(MaskFate(mask.tap, layers.get(n, ()), reasons.get(n)) for n, mask in enumerate(masks))
    kept = [mask for number, mask in enumerate(masks) if number in reasons]
    if len(kept) == len(masks):
        return Folding(plan(model, masks), fates)
    edit = reweighted(model, [*at_taps.changes, *on_weights.changes])
    if kept:
        edit = with_nodes(model, edit, kept)
    inside = _in_weights(model, edit, masks, at_taps, on_weights)
    listed = [Mask(mask.tap, mask.weights, taps[n].feature_axis) if n in taps else mask for n, mask in enumerate(masks)]
    given = [inside.get(number, mask) for number, mask in enumerate(listed)]
    own = metadata.folded_entries(given, source_sha256=model.sha256)
    own |= {metadata.MASKS: edit.metadata[metadata.MASKS]} if kept else {}
    return Folding(dataclasses.replace(edit, metadata=own), fates)


def _in_weights(
    model: Model, edit: Edit, masks: Sequence[Mask], at_taps: Folded, on_weights: Folded
) -> dict[int, metadata.InWeight]:
    """Return what is recorded of the masks, by number, whose numbers the weights tell: one mask alone changes each."""
    often = Counter(change.weight.name for change in (*at_taps.changes, *on_weights.changes))
    found = {}
    for number, change in zip(on_weights.layers, on_weights.changes, strict=True):
        record = in_weight(model, edit, change, masks[number]) if often[change.weight.name] == 1 else None
        if record is not None:
            found[number] = record
    return found


def folded(model: Model, masks: Sequence[Mask]) -> Model:
    """Return the folded model in memory, to run or look at; nothing is written. Raises as :func:`folding` does."""
    return edited(model, folding(model, masks).edit)


def fold_file(
    model: Model,
    masks: Sequence[Mask],
    output: str | Path,
    *,
    force: bool = False,
    hash_external: bool = True,
    watch: Watch | None = None,
) -> tuple[MaskFate, ...]:
    """Write the folded model, atomically, and say what became of each mask; the source is only read.

    Weights that change are written into the model file, also where the source has them in an external file. That file
    stays where it is for the others when the output is beside the source. When not, it is copied where the folded model
    still refers to it. Arguments are those of :func:`~cloakonnx.graph.masks.harden.harden_file`.

    Raises:
        OutputError: the output exists, is the input, or can't be written.
        ModelError, TapError, MaskError: as :func:`folding`; ModelError also where the file would be over 2 GB.
    """
    output = local(output, writes=True)
    check_target(model, output, force=force)
    found = folding(model, masks)
    check_size(model, found.edit, "apply without --fold")
    write_edited(model, found.edit, output, force=force, hash_external=hash_external, watch=watch)
    return found.fates


def refolded(model: Model, source: Model, meant: Sequence[Mask] = ()) -> Model:
    """Fold the masks that a folded model records into a source again, in memory.

    What is recorded of masks, cloakonnx's version and external files is taken unchanged.

    Args:
        model: The folded model.
        source: The source.
        meant: Masks to take where the metadata has only their digest; without them they are found from the weights.

    Raises:
        ModelError, TapError, MaskError: as :func:`folding`.
        CheckError: as :func:`~cloakonnx.graph.fold.recorded.given_masks`.
    """
    edit = folding(source, given_masks(model, source, meant)).edit
    recorded = metadata.entries(model.proto)
    given = metadata.given_text(metadata.folded_masks(model.proto))
    own = {**edit.metadata, metadata.FOLDED: given, metadata.VERSION: recorded.get(metadata.VERSION, "")}
    if metadata.EXTERNAL in recorded:
        own[metadata.EXTERNAL] = recorded[metadata.EXTERNAL]
    return edited(source, dataclasses.replace(edit, metadata=own))


def _at_taps(model: Model, masks: Sequence[Mask], taps: Mapping[int, Tap]) -> Folded:
    """Lay scales over the graph, and return what they change; ``taps`` of the masks at activations, by number."""
    if not taps:
        return Folded()
    system = System()
    weights = {}
    for number, tap in taps.items():
        values = mask_values(tap, masks[number]).astype(np.float64)
        weights[tap.name] = number, values.reshape((1,) * (len(tap.shape) - values.ndim) + values.shape)
    absorbed = _laid(model, system, weights)
    solution = system.solve(min(_WIDEST[FLOAT_TYPES[tap.elem_type]] for tap in taps.values()))
    changes: list[Change] = []
    changed: set[str] = set()
    for each in absorbed:
        factors = ((solution.scale if power == 1 else solution.inverse)[ids] for ids, power in each.factors)
        change = Change(each.weight, tuple(factors))
        if not change.is_none:
            changes.append(change)
            changed.add(each.layer)
    layers = {
        number: tuple(layer for layer in users if layer in changed)
        for number, users in solution.users.items()
        if number not in solution.kept
    }
    return Folded(changes, layers, solution.kept)


def _laid(model: Model, system: System, masks: dict[str, tuple[int, np.ndarray]]) -> list[Absorption]:
    """Number the channels of every computed tensor and ask for what each node needs; return what weights absorb."""
    structure = model.structure
    constants = Constants(structure)
    weights = Weights(model, constants)
    channels: dict[str, Ids] = {}
    absorbed: list[Absorption] = []
    for value in model.proto.graph.input:
        if value.name not in structure.constants:
            channels[value.name] = system.fixed(_rank(model, value.name), f"{value.name!r} is an input of the model")
    for index in structure.order:
        node = structure.graph.node[index]
        if all(name in structure.constants for name in node.output if name):
            continue
        site = ScaleSite(node, structure, index, system, weights, constants, channels)
        for name, ids in zip(node.output, _moved(site), strict=True):
            channels[name] = system.mask(masks[name][0], ids, masks[name][1]) if name in masks else ids
        for absorption in site.absorbed:
            for ids, power in absorption.factors:
                system.use(ids, power, absorption.layer)
        absorbed += site.absorbed
    for value in model.proto.graph.output:
        if value.name in channels:
            system.fix(channels[value.name], f"{value.name!r} is an output of the model")
    return absorbed


def _moved(site: ScaleSite) -> list[Ids]:
    """Return the channels of a node's outputs; where no scale moves through it, all around it are fixed."""
    ranks = [len(site.index.shape(name) or ()) for name in site.node.output]
    reason = "lets no scale through"
    try:
        if site.node.op_type == "Split" and site.node.domain in {"", "ai.onnx"}:
            return _fitting(split(site), ranks)
        rule = rule_of(site.node)
        if rule is not None:
            first = _fitting([rule(site)], ranks[:1])
            return first + [site.system.fixed(rank, f"{site.label} makes it") for rank in ranks[1:]]
    except StuckError as stuck:
        reason = f"lets no scale through: {stuck}"
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError):
        reason = "has attributes or shapes that do not fit together"
    site.absorbed.clear()
    why = f"{site.label} {reason}"
    if not has(site.node.op_type, Trait.SIZES):
        for name in dict.fromkeys(node_inputs(site.node)):
            if name in site.channels:
                site.system.fix(site.channels[name], why)
    return [site.system.fixed(rank, why) for rank in ranks]


def _fitting(channels: list[Ids], ranks: list[int]) -> list[Ids]:
    if [ids.ndim for ids in channels] != ranks:
        raise StuckError("shape inference tells another rank of its output")
    return channels


def _rank(model: Model, name: str) -> int:
    return len(model.structure.shape(name) or ())
