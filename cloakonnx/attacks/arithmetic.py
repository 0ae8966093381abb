"""The arithmetic of attacks as small graphs, run where the gradients are: only losses and logits leave the device.

Projection and clipping are here, outside the differentiated graph: inside it they kill gradients at saturated pixels.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.attacks.ball import BALLS
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Session, Value


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
        graph = _Graph(self._rank, self._norm, self._bounds)
        out: Tensor = getattr(graph, name)()
        return graph.build.model(out)


class _Graph:
    """The formulas of one small graph; each public method returns its output."""

    def __init__(self, rank: int, norm: str, bounds: tuple[float, float]) -> None:
        self.build = Builder.alone(opset=17)
        self._axes = range(1, rank)
        self._ball = BALLS[norm]
        self._low, self._high = bounds

    def _inputs(self, *names: str) -> list[Tensor]:
        return [self.build.input(name) for name in names]

    def step(self) -> Tensor:
        x, gradient, origin, size, eps = self._inputs("x", "gradient", "origin", "size", "eps")
        return self._brought_back(x + self._direction(gradient) * size, origin, eps)

    def momentum_step(self) -> Tensor:
        x, gradient, origin, size, eps = self._inputs("x", "gradient", "origin", "size", "eps")
        previous, pull = self._inputs("previous", "pull")
        plain = self._brought_back(x + self._direction(gradient) * size, origin, eps)
        return self._brought_back(x + (plain - x) * pull + (x - previous) * (1 - pull), origin, eps)

    def project(self) -> Tensor:
        return self._brought_back(*self._inputs("x", "origin", "eps"))

    def where(self) -> Tensor:
        return self.build.input("mask", TensorProto.BOOL).where(*self._inputs("yes", "no"))

    def take(self) -> Tensor:
        (x,) = self._inputs("x")
        return x.gather(self.build.input("indices", TensorProto.INT64), 0)

    def _direction(self, gradient: Tensor) -> Tensor:
        direction = self._ball.direction(gradient, self._axes)
        # A gradient that is not a number says nothing; left in, it would make an input that is none either.
        return direction.op("IsNaN").where(0, direction)

    def _brought_back(self, x: Tensor, origin: Tensor, eps: Tensor) -> Tensor:
        return self._ball.projected(x, origin, eps, self._axes).op("Clip", self._low, self._high)
