"""How a model is displayed: one line, and in a notebook the HTML that a module above registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloakonnx.text import line, shown

_VIEWS: dict[str, Callable[[Any], str]] = {}


def view(function: Callable[[Any], str]) -> Callable[[Any], str]:
    """Register the function that gives a model as HTML: only modules above this folder know masks and taps."""
    _VIEWS["html"] = function
    return function


class Shown:
    """A model without the dump of its protobuf."""

    def __repr__(self) -> str:
        """Return name, opset, inputs and outputs."""
        return f"<Model {described(self)}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return _VIEWS["html"](self) if _VIEWS else line(described(self))


def described(model: Any) -> str:
    """Return a model in a line, as ``cloakonnx inspect`` begins."""
    inputs, outputs = (", ".join(shown(each.name) for each in of) for of in (model.inputs, model.proto.graph.output))
    return f"{shown(model.name)}: opset {model.opset}, IR {model.proto.ir_version}, input {inputs}, output {outputs}"
