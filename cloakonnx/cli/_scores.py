"""Says which output of a model is taken for its class scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloakonnx.cli._output import say

if TYPE_CHECKING:
    from cloakonnx.graph.file.model import Model


def scores_of(model: Model, name: str | None = None) -> str | None:
    """Return the tensor that is taken for the class scores; None where an output has to be named."""
    from cloakonnx.errors import ModelError

    try:
        return model.output(name).name
    except ModelError:  # whoever needs the output says so
        return None


def say_scores(model: Model, name: str | None) -> None:
    """Say on stderr what is taken for the class scores, where it is no output or one of several that was not named."""
    outputs, found = [value.name for value in model.proto.graph.output], scores_of(model, name)
    others = ", ".join(each for each in outputs if each != found)
    if found is not None and found not in outputs:
        say(f"cloakonnx: tensor {found!r}, in front of {others}, is taken for the class scores")
    elif found is not None and name is None and others:
        say(f"cloakonnx: output {found!r} is taken for the class scores; the other outputs are {others}")
