"""The model as its user sees it: images in pixel space in, logits out; and the tensors in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier.activations import Activations
from cloakonnx.classifier.task import Decision, class_scores
from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.ending import scores_of
from cloakonnx.graph.masks.taps import FLOAT_TYPES
from cloakonnx.graph.subgraphs.cut import Normalisation
from cloakonnx.runtime.provider import Provider


class Classifier:
    """A classifier: one data input, one output of class scores (N, classes) or (N, 1).

    Args:
        model: The model.
        provider: Where it runs.
        normalisation: From pixel space to the model's input.
        input_name: The data input; needed where there are several.
        output_name: The class scores; needed where there are several outputs.

    Raises:
        ModelError: input or output can't be told.
        InferenceError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        model: Model,
        *,
        provider: Provider,
        normalisation: Normalisation | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        self._output = model.output(output_name).name
        self._decision = Decision(model, self._output)
        self._run = Activations(
            model, [self._output], provider=provider, normalisation=normalisation, input_name=input_name
        )

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class scores, (N, classes) float32, of a batch in pixel space.

        Raises:
            InferenceError: the output is not one row of scores a sample.
        """
        return class_scores(self._run(batch)[0], len(batch), self._output)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the predicted classes, (N,) int64; one score a sample stands for two classes."""
        return self._decision(self.logits(batch))

    def predictions(self, batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.int64]]:
        """Yield the predicted classes batch by batch."""
        return (self.predict(batch) for batch in batches)


def class_count(model: Model, output_name: str | None = None) -> int | None:
    """Return how many classes the output tells, where its shape is known; one score means two classes."""
    try:
        name = model.output(output_name).name
    except ModelError:
        return None
    for value in (*model.inferred.graph.output, *model.proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name != name or not dims or value.type.tensor_type.elem_type not in FLOAT_TYPES:
            continue
        try:
            count = scores_of([d.dim_value or None for d in dims], name)
        except ModelError:  # whoever needs its classes says so
            return None
        if count:
            return max(count, 2)
    return None


def input_shape(model: Model, input_name: str | None = None) -> tuple[int | None, ...] | None:
    """Return the shape of the data input without the batch axis: an int, or None where the dimension is free."""
    tensor: onnx.TypeProto.Tensor = model.input(input_name).type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)[1:]
