"""What a model's class scores are, from how its output is made."""

from __future__ import annotations

from collections.abc import Sequence

from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.index.ending import Ending, ending
from cloakonnx.graph.index.functions import inlined
from cloakonnx.graph.index.index import Index, structure
from cloakonnx.graph.index.outputs import taken
from cloakonnx.graph.index.unclassed import Unclassed, unclassed

_REGRESSORS = frozenset({("skl2onnx", "variable"), ("OnnxMLTools", "variable")})
"""Converters, and the name of an output that only their regressors have."""


def ending_of(model: Model, output: str) -> Ending:
    """Return how a model's output is made."""
    graph = _inlined(model)
    return ending(output, producer=graph.producer, value=Constants(graph).value)


def check_class_scores(
    model: Model, output: str, *, scores: int | None, sample: Sequence[int | None] | None, input_name: str
) -> None:
    """Check that an output may hold class scores.

    Args:
        model: The model.
        output: The output.
        scores: How many values a sample has in it; None where the file does not say.
        sample: Shape of a sample at the input.
        input_name: The data input.

    Raises:
        ModelError: it holds something else, by how it is made.
    """
    graph = _inlined(model)
    found = unclassed(output, producer=graph.producer, value=Constants(graph).value, scores=scores, sample=sample)
    if found is None and (maker := model.proto.producer_name, output) in _REGRESSORS:
        found = Unclassed(f"the values of a regression, by its name in files of {maker}", "regression")
    if found is None and not model.structure.is_float(output):
        found = Unclassed(
            "whole numbers or text, a decision and no scores", "classes", _before(model.structure, output)
        )
    if found is None:
        return
    if found.front is not None and taken(model.structure, found.front) is not None:
        raise ModelError(
            f"output {output!r} of {model.name} gives {found.what}; the scores are in {found.front!r}: name that with "
            "{output_name}",
            parameter="output_name",
        )
    if found.front is not None:
        raise ModelError(
            f"output {output!r} of {model.name} gives {found.what}; the scores are in tensor {found.front!r}, make it "
            f"an output: onnx.utils.extract_model({model.name!r}, 'scores.onnx', [{input_name!r}], [{found.front!r}])"
        )
    raise ModelError(
        f"output {output!r} of {model.name} gives {found.what}; the task {found.task} is not built yet: name an "
        "output of class scores with {output_name}, or take this one for them with {task} classes",
        parameter=("output_name", "task"),
    )


def _before(graph: Index, output: str) -> str | None:
    """Return the nearest computed tensor of floating point that an output is made of, by the first such inputs."""
    name: str | None = output
    while name is not None and not graph.is_float(name):
        node = graph.producer(name)
        read = [] if node is None else [each for each in node.input if each and each not in graph.constants]
        name = next(iter(read), None)
    return name if name is not None and graph.producer(name) is not None else None


def _inlined(model: Model) -> Index:
    return structure(inlined(model.proto))
