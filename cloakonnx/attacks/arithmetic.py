"""The arithmetic of attacks as small graphs, run where the gradients are: only losses and logits leave the device.

Projection and clipping are here, outside the differentiated graph: inside it they kill gradients at saturated pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Session, Value

_TINY = float(np.finfo(np.float32).tiny)
"""Below any length or gradient that counts: saturated samples have gradients of 1e-20."""
_TYPES = {"mask": TensorProto.BOOL, "indices": TensorProto.INT64}


class Arithmetic:
    """Steps and selections on batches of one rank.

    Args:
        rank: Of a batch, the batch axis included.
        norm: Norm of the eps ball.
        bounds: Smallest and largest value of pixel space.
        provider: Where it runs.
    """

    def __init__(self, rank: int, *, norm: str, bounds: tuple[float, float], provider: Provider) -> None:
        self._rank = rank
        self._norm = norm
        self._bounds = bounds
        self._provider = provider
        self._sessions: dict[str, Session] = {}

    def put(self, array: NDArray[np.float32]) -> Value:
        """Bring an array to the device."""
        return ort.OrtValue.ortvalue_from_numpy(
            np.ascontiguousarray(array, np.float32), self._provider.device, self._provider.device_id
        )

    def per_sample(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Shape one number a sample so that it broadcasts over a batch."""
        return values.reshape(-1, *(1,) * (self._rank - 1))

    def step(self, x: Value, gradient: Value, origin: Value, *, size: NDArray[np.float32], eps: float) -> Value:
        """Return x moved up the gradient and brought back into ball and bounds; ``size`` is (N,) in pixel space."""
        feed = {"x": x, "gradient": gradient, "origin": origin, "size": self.per_sample(size), "eps": np.float32(eps)}
        return self._run("step", feed)

    def momentum_step(
        self,
        x: Value,
        previous: Value,
        gradient: Value,
        origin: Value,
        *,
        size: NDArray[np.float32],
        eps: float,
        pull: float,
    ) -> Value:
        """Return APGD's step: ``pull`` of a plain step and the rest of the last movement (Croce & Hein 2020, eq. 4)."""
        feed = {
            "x": x,
            "previous": previous,
            "gradient": gradient,
            "origin": origin,
            "size": self.per_sample(size),
            "eps": np.float32(eps),
            "pull": np.float32(pull),
        }
        return self._run("momentum_step", feed)

    def where(self, mask: NDArray[np.bool_], yes: Value, no: Value) -> Value:
        """Return ``yes`` for the samples of the mask (N,), ``no`` for the others."""
        return self._run("where", {"mask": self.per_sample(mask), "yes": yes, "no": no})

    def take(self, x: Value, indices: NDArray[np.int64]) -> Value:
        """Return some samples of a batch."""
        return self._run("take", {"x": x, "indices": indices})

    def project(self, x: Value, origin: Value, *, eps: float) -> Value:
        """Return x brought into ball and bounds."""
        return self._run("project", {"x": x, "origin": origin, "eps": np.float32(eps)})

    def _run(self, name: str, feed: dict[str, Value | np.generic | NDArray[np.generic]]) -> Value:
        if name not in self._sessions:
            self._sessions[name] = Session(self._graph(name), self._provider)
        arrays = {k: np.asarray(v) if isinstance(v, np.generic) else v for k, v in feed.items()}
        return self._sessions[name].run({k: arrays[k] for k in self._sessions[name].inputs})[0]

    def _graph(self, name: str) -> onnx.ModelProto:
        build = _Builder(self._rank, self._norm, self._bounds)
        inputs = getattr(build, name)()
        values = [helper.make_tensor_value_info(i, _TYPES.get(i, TensorProto.FLOAT), None) for i in inputs]
        graph = helper.make_graph(
            build.nodes, name, values, [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)], build.constants
        )
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


class _Builder:
    """Emits the nodes of one small graph; each public method returns the graph's inputs."""

    def __init__(self, rank: int, norm: str, bounds: tuple[float, float]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._axes = list(range(1, rank))
        self._norm = norm
        self._low, self._high = (self._constant(b) for b in bounds)

    def step(self) -> Sequence[str]:
        self._bring_back(self._moved(), "out")
        return "x", "gradient", "origin", "size", "eps"

    def momentum_step(self) -> Sequence[str]:
        plain = self._bring_back(self._moved())
        forward = self._op("Mul", self._op("Sub", plain, "x"), "pull")
        rest = self._op("Sub", self._constant(1.0), "pull")
        onward = self._op("Mul", self._op("Sub", "x", "previous"), rest)
        self._bring_back(self._op("Add", self._op("Add", "x", forward), onward), "out")
        return "x", "previous", "gradient", "origin", "size", "eps", "pull"

    def project(self) -> Sequence[str]:
        self._bring_back("x", "out")
        return "x", "origin", "eps"

    def where(self) -> Sequence[str]:
        self._op("Where", "mask", "yes", "no", out="out")
        return "mask", "yes", "no"

    def take(self) -> Sequence[str]:
        self._op("Gather", "x", "indices", out="out")
        return "x", "indices"

    def _moved(self) -> str:
        if self._norm == "linf":
            direction = self._op("Sign", "gradient")
        else:
            # Scaled first: the square of a small gradient underflows float32.
            top = self._nonzero(self._op("ReduceMax", self._op("Abs", "gradient"), axes=self._axes, keepdims=1))
            scaled = self._op("Div", "gradient", top)
            direction = self._op("Div", scaled, self._nonzero(self._length(scaled)))
        # A gradient that is not a number says nothing; left in, it would make an input that is none either.
        direction = self._op("Where", self._op("IsNaN", direction), self._constant(0.0), direction)
        return self._op("Add", "x", self._op("Mul", direction, "size"))

    def _bring_back(self, x: str, out: str | None = None) -> str:
        if self._norm == "linf":
            below = self._op("Min", x, self._op("Add", "origin", "eps"))
            inside = self._op("Max", below, self._op("Sub", "origin", "eps"))
        else:
            delta = self._op("Sub", x, "origin")
            length = self._length(delta)
            factor = self._op("Div", self._op("Min", length, "eps"), self._nonzero(length))
            inside = self._op("Add", "origin", self._op("Mul", delta, factor))
        return self._op("Clip", inside, self._low, self._high, out=out)

    def _length(self, x: str) -> str:
        return self._op("ReduceL2", x, axes=self._axes, keepdims=1)

    def _nonzero(self, x: str) -> str:
        return self._op("Max", x, self._constant(_TINY))

    def _constant(self, value: float) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def _op(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name
