"""The classifier as an attack sees it: logits, and gradients of a loss, in pixel space; it counts what it is asked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.attacks.arithmetic import Arithmetic, Norm
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.task import predicted
from cloakonnx.errors import DataError, MaskError
from cloakonnx.gradient.differentiate import GradientGraph, differentiate
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.insert import mask_values
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.graph.subgraphs.cut import Normalisation, unfed
from cloakonnx.graph.subgraphs.inline import inline
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Session, Value, filled_up, to_numpy


@dataclass
class Counts:
    """What an attack asked of the classifier, in samples."""

    queries: int = 0
    gradients: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.queries + self.gradients


@dataclass(frozen=True)
class Answer:
    """What a gradient request gives.

    Attributes:
        logits: (N, classes) float32.
        loss: (N,) float32; larger is better for the attacker.
        gradient: Of the loss by the image, left on the device.
    """

    logits: NDArray[np.float32]
    loss: NDArray[np.float32]
    gradient: Value


class Victim:
    """A classifier under attack.

    ``on_answer`` is called after each batch of logits or gradients, to watch ``counts`` grow.

    Args:
        model: The model.
        provider: Where it runs.
        normalisation: From pixel space to the model's input; prepended, so gradients are in pixel space.
        input_name: The data input, where there are several.
        output_name: The class scores, where there are several outputs.
        sample_shape: Shape of a sample in the model's layout; fixes open dimensions, which gives faster graphs.
        bounds: Smallest and largest value of pixel space.
        masks: Multiplied in at their taps, as inputs of the graphs: :meth:`masked` puts in others.

    Raises:
        ModelError: input or output can't be told, or other inputs are needed.
        TapError, MaskError: a mask that does not fit.
        DifferentiationError: the model has no floating-point input, or (when the first gradient is asked for) an op
            without a rule.
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
        sample_shape: tuple[int, ...] | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        masks: Sequence[Mask] = (),
    ) -> None:
        self.name = model.name
        self._model = model
        self._taps = {mask.tap: find_tap(model, mask.tap, axis=mask.feature_axis) for mask in masks}
        self._axes = {mask.tap: self._axis(mask) for mask in masks}
        self.provider = provider
        self.bounds = bounds
        self.counts = Counts()
        self.on_answer: Callable[[], None] = lambda: None
        self._proto = inline(model)
        self._normalisation = normalisation
        self.input_name = model.input(input_name).name
        self.output_name = model.output(output_name).name
        self._sample_shape = sample_shape
        elem_type = model.input(input_name).type.tensor_type.elem_type
        self._is_double = elem_type == onnx.TensorProto.DOUBLE
        self._rounds_in_use = elem_type == onnx.TensorProto.FLOAT16
        self._put_in(masks)
        self._arithmetic: dict[tuple[int, Norm], Arithmetic] = {}
        self._passes = False
        self._graphs: dict[tuple[Loss | None, bool, bool], tuple[GradientGraph, Session]] = {}
        self.classes = self._graph(None, targeted=False)[0].classes

    def masked(self, masks: Sequence[Mask]) -> Victim:
        """Return the classifier with other masks at the same taps: it shares the sessions, and counts for itself.

        Raises:
            MaskError: other taps than those that the classifier was made with, or weights that do not fit.
        """
        other = copy.copy(self)
        other.counts = Counts()
        other.on_answer = lambda: None
        other._put_in(masks)
        return other

    def straight_through(self) -> Victim:
        """Return the classifier with gradients that pass rounding and quantisation; it shares sessions and counts."""
        other = copy.copy(self)
        other._passes = True
        return other

    def _axis(self, mask: Mask) -> int | None:
        """Return the axis that a mask runs along, None for a mask of elements."""
        return None if mask.weights.ndim > 1 else self._taps[mask.tap].feature_axis

    def _put_in(self, masks: Sequence[Mask]) -> None:
        if len(masks) != len(self._taps) or {mask.tap for mask in masks} != set(self._taps):
            raise MaskError(f"{self.name} is attacked with masks at {', '.join(map(repr, self._taps)) or 'no tap'}")
        if {mask.tap: self._axis(mask) for mask in masks} != self._axes:
            raise MaskError(
                f"{self.name} is attacked with other masks: of features at some taps, of elements at others"
            )
        self._weights: dict[str, NDArray[Any]] = {}
        for mask in masks:
            tap = self._taps[mask.tap]
            mask_values(tap, mask)
            wide = np.float64 if tap.elem_type == onnx.TensorProto.DOUBLE else np.float32
            self._weights[mask.tap] = mask.weights.astype(wide)
        self._in_use: Classifier | None = None
        if self._rounds_in_use:
            self._in_use = Classifier(
                hardened(self._model, masks) if masks else self._model,
                provider=self.provider,
                normalisation=self._normalisation,
                input_name=self.input_name,
                output_name=self.output_name,
            )

    def arithmetic(self, rank: int, norm: Norm) -> Arithmetic:
        """Return the steps on batches of a rank, made once: their sessions cost more than a step."""
        key = (rank, norm)
        if key not in self._arithmetic:
            self._arithmetic[key] = Arithmetic(rank, norm=norm, bounds=self.bounds, provider=self.provider)
        return self._arithmetic[key]

    @property
    def blocked(self) -> tuple[str, ...]:
        """The ops of zero gradient (Round, QuantizeLinear, ArgMax, ...) that hide part of the input's, described."""
        return self._graph(None, targeted=False)[0].blocked

    def logits(self, x: Value) -> NDArray[np.float32]:
        """Return (N, classes) float32 for a batch in pixel space and in the model's layout."""
        graph, session = self._graph(None, targeted=False)
        values = self._run(session, graph, x, {}, [graph.logits])
        self.counts.queries += len(to_numpy(values[0]))
        self.on_answer()
        return to_numpy(values[0]).astype(np.float32)

    def predict(self, x: Value) -> NDArray[np.int64]:
        """Return (N,) the predicted classes.

        A float16 model is asked as its user runs it: derived graphs round at other places, and where two classes are
        equal in float16 that decides.
        """
        if self._in_use is None:
            return predicted(self.logits(x))
        images = to_numpy(x)
        self.counts.queries += len(images)
        return self._in_use.predict(images)

    def confirmed(
        self, x: NDArray[np.float32], success: NDArray[np.bool_], y: NDArray[np.int64], *, targeted: bool
    ) -> NDArray[np.bool_]:
        """Return (N,) which samples fool the model, asking it again where its logits and its own scores may differ."""
        if self._in_use is None:
            return success
        return np.asarray((self.predict(x) == y) == targeted)

    def gradient(
        self, x: Value, y: NDArray[np.int64], *, loss: Loss, targets: NDArray[np.int64] | None = None
    ) -> Answer:
        """Return logits, loss and the loss's gradient by a batch; with targets, of the targeted loss.

        The logits of a model that rounds or quantises are asked for apart: ONNX Runtime computes such a model in
        integers, and beside its gradient in float, where on some processors another class wins.
        """
        graph, session = self._graph(loss, targeted=targets is not None)
        feed: dict[str, NDArray[Any]] = {}
        if graph.labels is not None:
            feed[graph.labels] = y
        if graph.targets is not None and targets is not None:
            feed[graph.targets] = targets
        assert graph.loss is not None  # it was asked for
        logits, value, gradient = self._run(session, graph, x, feed, [graph.logits, graph.loss, graph.gradient])
        self.counts.gradients += len(y)
        self.on_answer()
        if self.blocked:
            logits = self.logits(x)
        if self._is_double:
            gradient = to_numpy(gradient).astype(np.float32)
        return Answer(to_numpy(logits).astype(np.float32), to_numpy(value).astype(np.float32), gradient)

    def prepare(self, loss: Loss) -> None:
        """Build the graph of a loss's gradient; raises DifferentiationError where an op has no rule."""
        self._graph(loss, targeted=False)

    def check_labels(self, y: NDArray[np.int64]) -> None:
        """Raise DataError for a label that is no class of the model."""
        wrong = y[(y < 0) | (y >= self.classes)]
        if len(wrong):
            raise DataError(f"label {int(wrong[0])} does not fit {self.name}, which has {self.classes} classes")

    def _graph(self, loss: Loss | None, *, targeted: bool) -> tuple[GradientGraph, Session]:
        key = (loss, targeted, self._passes and loss is not None)
        if key not in self._graphs:
            self._graphs[key] = self._built(loss=loss, targeted=targeted, straight_through=key[2])
        return self._graphs[key]

    def _built(self, **asked: Any) -> tuple[GradientGraph, Session]:
        """Return a gradient graph of the model as it is fed here, and its session."""
        graph = differentiate(
            self._proto,
            preprocessing=self._normalisation,
            provider=self.provider.device,
            input_name=self.input_name,
            input_shape=None if self._sample_shape is None else (None, *self._sample_shape),
            output_name=self.output_name,
            masks=self._axes,
            **asked,
        )
        fed = {graph.image, graph.labels, graph.targets, graph.cotangent, *graph.masks.values()}
        read = {name for node in graph.proto.graph.node for name in node.input}
        missing = [value.name for value in graph.proto.graph.input if value.name in read - fed]
        if missing:
            raise unfed(missing, self.input_name)
        return graph, Session(graph.proto, self.provider)

    def _masks_fed(self, graph: GradientGraph) -> dict[str, NDArray[Any]]:
        return {name: self._weights[tap] for tap, name in graph.masks.items()}

    def _run(
        self, session: Session, graph: GradientGraph, x: Value, feed: dict[str, NDArray[Any]], outputs: list[str]
    ) -> list[Value]:
        if self._is_double:
            x = to_numpy(x).astype(np.float64)
        masks = self._masks_fed(graph)
        if session.fixed_batch is None:
            return list(session.run({graph.image: x, **feed, **masks}, outputs))
        parts = []
        images, size = to_numpy(x), session.fixed_batch
        for start in range(0, len(images), size):
            chunk = {k: filled_up(v[start : start + size], size) for k, v in {graph.image: images, **feed}.items()}
            real = min(size, len(images) - start)
            parts.append([to_numpy(v)[:real] for v in session.run({**chunk, **masks}, outputs)])
        return [np.concatenate(values) for values in zip(*parts, strict=True)]
