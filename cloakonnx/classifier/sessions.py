"""The gradient graphs of a model and their sessions: made when first asked for, and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier._fed import FedModel
from cloakonnx.classifier._places import Places
from cloakonnx.gradient.differentiate import INPUT, GradientGraph, differentiate
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.subgraphs.cut import unfed
from cloakonnx.graph.subgraphs.inline import held
from cloakonnx.graph.subgraphs.prepend import put_batch_first
from cloakonnx.runtime.exchange import Exchange
from cloakonnx.runtime.session import Session, Value, filled_up, to_numpy

Sample = tuple[int, ...] | None
"""Shape of a sample in the model's layout; None where the graph is to leave open what the model leaves open."""


@dataclass(frozen=True)
class Asked:
    """What a gradient graph computes.

    Attributes:
        loss: What is differentiated; None for the logits alone.
        targeted: Whether the loss is towards target classes.
        straight_through: Whether gradients pass rounding and quantisation (BPDA).
        by_input: Whether by the input.
        by_masks: Whether by the masks.
    """

    loss: Loss | None = None
    targeted: bool = False
    straight_through: bool = False
    by_input: bool = True
    by_masks: bool = False


class Sessions:
    """What runs the gradient graphs of one model with masks at the same places.

    Args:
        fed: The model as it is fed.
        output_name: The class scores.
        places: Where masks are.
        probabilities: Whether the scores are known to be probabilities (True) or logits (False).
    """

    def __init__(self, fed: FedModel, output_name: str, places: Places, *, probabilities: bool | None = None) -> None:
        self._probabilities = probabilities
        self._fed, self._output, self._places = fed, output_name, places
        self._proto, self._folder = held(fed.model)
        self._input = put_batch_first(self._proto.graph, fed.input_name, fed.batch_axis)
        self.is_double = fed.tensor.elem_type == onnx.TensorProto.DOUBLE
        self._made: dict[tuple[Asked, Sample], tuple[GradientGraph, Session]] = {}
        self._held: dict[tuple[Asked, Sample], bytes] = {}  # digest of the masks on weights that a session has
        self._exchanges: dict[tuple[Asked, Sample], Exchange | None] = {}
        self._latest: Sample = None

    def of(self, asked: Asked, sample: Sample = None) -> tuple[GradientGraph, Session]:
        """Return a graph and its session, for samples of a shape or, where None, of the latest shape.

        The shape fixes what the model leaves open of its input, which gives faster graphs.

        Raises:
            ModelError: other inputs are needed.
            DataError: mean and std do not fit the channels.
            TapError, DifferentiationError: as :func:`~cloakonnx.gradient.differentiate.differentiate`.
            InferenceError: ONNX Runtime refuses the graph.
        """
        if sample is not None:
            self._latest = sample
        shape = self._shape()
        if (asked, shape) not in self._made:
            self._made[asked, shape] = self._built(asked, shape)
        return self._made[asked, shape]

    def _shape(self) -> Sample:
        declared = self._fed.input_shape
        if declared is not None and None not in declared:
            return tuple(size for size in declared if size is not None)
        return self._latest

    def _built(self, asked: Asked, shape: Sample) -> tuple[GradientGraph, Session]:
        self._fed.check_channels(shape)
        graph = differentiate(
            self._proto,
            loss=asked.loss,
            wrt=INPUT if asked.by_input else (),
            masks=self._places.taps,
            weight_masks=self._places.weights,
            mask_gradients=asked.by_masks,
            targeted=asked.targeted,
            straight_through=asked.straight_through,
            probabilities=self._probabilities,
            preprocessing=self._fed.preprocessing,
            provider=self._fed.provider.device,
            input_name=self._input,
            input_shape=None if shape is None else (self._fed.at_a_time, *shape),
            output_name=self._output,
        )
        fed = {graph.image, graph.labels, graph.targets, graph.soft_targets, graph.cotangent, *graph.masks.values()}
        read = {name for node in graph.proto.graph.node for name in node.input}
        missing = [value.name for value in graph.proto.graph.input if value.name in read - fed]
        if missing:
            raise unfed(missing, self._fed.input_name)
        return graph, self._session(graph)

    def _session(self, graph: GradientGraph, before: Session | None = None) -> Session:
        at_a_time = self._fed.at_a_time
        return Session(graph.proto, self._fed.provider, folder=self._folder, batch=at_a_time, before=before)

    def _with_weights(
        self, asked: Asked, graph: GradientGraph, masks: Mapping[str, NDArray[Any]]
    ) -> tuple[Session, Mapping[str, Value]]:
        """Return the session of a graph under masks on its weights, and what it is fed for them.

        As inputs they would make the weights variable, which costs more than a session. They are replaced in an
        optimised session, or a new one is created.
        """
        key = asked, self._shape()
        given = {name: masks[mask] for mask, name in graph.weight_masks.items()}
        if key not in self._exchanges:
            self._exchanges[key] = Exchange.of(graph.proto, given, self._fed.provider, self._made[key][1])
        exchange = self._exchanges[key]
        digest = hashlib.sha256(b"".join(values.tobytes() for values in given.values())).digest()
        if self._held.get(key) != digest:
            self._made[key] = graph, self._exchanged(graph, given, exchange, self._made[key][1])
            self._held[key] = digest
        return self._made[key][1], {} if exchange is None else exchange.inputs

    def _exchanged(
        self, graph: GradientGraph, given: dict[str, NDArray[Any]], exchange: Exchange | None, before: Session
    ) -> Session:
        """Return the session that has the given masks."""
        if exchange is not None:
            exchange.set(given)
            return exchange.session
        for tensor in graph.proto.graph.initializer:
            if tensor.name in given:
                tensor.raw_data = given[tensor.name].tobytes()
        return self._session(graph, before)

    def run(
        self,
        asked: Asked,
        x: Value,
        outputs: list[str],
        *,
        feed: Mapping[str, NDArray[Any]],
        masks: Mapping[str, NDArray[Any]],
    ) -> list[Value]:
        """Run a graph on a batch in pixel space; where the graph fixes the batch, in chunks of that size.

        Gradients by masks are not cut in chunks: callers give as many samples as the graph takes.

        Args:
            asked: Which graph.
            x: The batch.
            outputs: Outputs of the graph.
            feed: Inputs with one entry a sample.
            masks: Weights of the mask at each tap.
        """
        graph, session = self.of(asked)
        on_weights: Mapping[str, Value] = {}
        if graph.weight_masks:
            session, on_weights = self._with_weights(asked, graph, masks)
        if self.is_double:
            x = to_numpy(x).astype(np.float64)
        weights = {**{name: masks[tap] for tap, name in graph.masks.items()}, **on_weights}
        if asked.by_masks:  # sums over the samples: a filler would count
            return list(session.run({graph.image: x, **feed, **weights}, outputs))
        if session.fixed_batch is None:
            return session.run_samples({graph.image: x, **feed}, outputs, beside=weights)
        parts = []
        images, size = to_numpy(x), session.fixed_batch
        for start in range(0, len(images), size):
            chunk = {k: filled_up(v[start : start + size], size) for k, v in {graph.image: images, **feed}.items()}
            real = min(size, len(images) - start)
            parts.append([to_numpy(v)[:real] for v in session.run({**chunk, **weights}, outputs)])
        return [np.concatenate(values) for values in zip(*parts, strict=True)]

    def narrow(self, gradient: Value) -> Value:
        """Return a gradient in float32, in host memory where it was in float64."""
        return to_numpy(gradient).astype(np.float32) if self.is_double else gradient

    def wide(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return float32 values in the precision of the graphs."""
        return values.astype(np.float64) if self.is_double and values.dtype == np.float32 else values
