"""Folding changes no output, on random nets with residuals, concatenations, gates, depthwise convolutions and pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto

from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap, list_taps

from .folding import compared, net, node

SIDE = 4
OPS = (
    "conv", "conv", "relu", "relu", "add", "add", "concat", "depthwise", "bn", "maxpool", "avgpool", "leaky", "sigmoid",
    "gate", "times", "bias", "slice", "pad", "clip", "shuffle", "split",
)  # fmt: skip


class Builder:
    """A net that grows op by op; all tensors have SIDE x SIDE positions."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.channels = {"x": 2}
        self.last = "x"

    def pick(self, channels: int | None = None) -> str:
        """Return a tensor that is there already."""
        fitting = [name for name, count in self.channels.items() if channels in {None, count}]
        return fitting[int(self.rng.integers(len(fitting)))]

    def weight(self, *shape: int, low: float | None = None) -> str:
        name = f"w{len(self.weights)}"
        values = self.rng.standard_normal(shape) if low is None else self.rng.uniform(low, 2, shape)
        self.weights[name] = values
        return name

    def constant(self, values: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(values)
        return name

    def emit(self, op_type: str, inputs: str, channels: int, **attributes: Any) -> str:
        self.last = f"t{len(self.nodes)}"
        self.nodes.append(node(op_type, inputs, self.last, **attributes))
        self.channels[self.last] = channels
        return self.last

    def grow(self, op: str) -> None:  # noqa: PLR0912, PLR0915 - one branch an op
        x = self.last if self.rng.random() < 0.7 else self.pick()
        count = self.channels[x]
        if op == "conv":
            out = int(self.rng.integers(1, 5))
            bias = self.weight(out) if self.rng.random() < 0.5 else ""
            self.emit("Conv", f"{x} {self.weight(out, count, 3, 3)} {bias}", out, pads=[1, 1, 1, 1])
        elif op == "depthwise":
            self.emit("Conv", f"{x} {self.weight(count, 1, 1, 1)} {self.weight(count)}", count, group=count)
        elif op in {"relu", "sigmoid"}:
            self.emit(op.capitalize(), x, count)
        elif op == "leaky":
            self.emit("LeakyRelu", x, count, alpha=0.2)
        elif op == "add":
            self.emit("Add", f"{x} {self.pick(count)}", count)
        elif op == "concat":
            other = self.pick()
            self.emit("Concat", f"{x} {other}", count + self.channels[other], axis=1)
        elif op == "bn":
            names = [self.weight(count, low=0.5), self.weight(count), self.weight(count), self.weight(count, low=0.5)]
            self.emit("BatchNormalization", " ".join([x, *names]), count)
        elif op == "maxpool":
            self.emit("MaxPool", x, count, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif op == "avgpool":
            self.emit("AveragePool", x, count, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif op == "gate":
            pooled = self.emit("GlobalAveragePool", x, -1)
            inner = self.emit("Conv", f"{pooled} {self.weight(count, count, 1, 1)}", -1)
            gate = self.emit("Sigmoid", inner, -1)
            self.emit("Mul", f"{x} {gate}", count)
        elif op == "times":
            shape = (count, 1, 1) if self.rng.random() < 0.5 else ()
            self.emit("Mul", f"{x} {self.weight(*shape)}", count)
        elif op == "bias":
            self.emit("Add", f"{x} {self.weight(1, count, 1, 1)}", count)
        elif op == "slice" and count > 1:
            bounds = [self.constant(np.array([each])) for each in (1, count, 1)]
            self.emit("Slice", " ".join([x, *bounds]), count - 1)
        elif op == "pad":
            pads = self.constant(np.array([0, 1, 0, 0, 0, 1, 0, 0]))
            self.emit("Pad", f"{x} {pads}", count + 2)
        elif op == "clip":
            self.emit("Clip", f"{x} {self.constant(np.float64(0))} {self.constant(np.float64(6))}", count)
        elif op == "shuffle" and count % 2 == 0:
            shape = self.constant(np.array([0, 2, count // 2, SIDE, SIDE]))
            cut = self.emit("Reshape", f"{x} {shape}", -1)
            turned = self.emit("Transpose", cut, -1, perm=[0, 2, 1, 3, 4])
            self.emit("Reshape", f"{turned} {self.constant(np.array([0, count, SIDE, SIDE]))}", count)
        elif op == "split" and count == 4:
            first, second = f"t{len(self.nodes)}a", f"t{len(self.nodes)}b"
            self.nodes.append(node("Split", x, f"{first} {second}", axis=1))
            self.channels |= {first: 2, second: 2}
            self.last = second

    def finish(self) -> Model:
        pooled = self.emit("AveragePool", self.last, -1, kernel_shape=[2, 2], strides=[2, 2])
        count = self.channels[self.nodes[-1].input[0]]
        flat = self.emit("Flatten", pooled, -1)
        self.nodes.append(
            node("Gemm", f"{flat} {self.weight(3, count * 4)} {self.weight(3)}", "y", transB=1, alpha=0.5)
        )
        return net(self.nodes, self.weights, ["N", 2, SIDE, SIDE])


@st.composite
def masked_nets(draw: st.DrawFn) -> tuple[Model, list[Mask]]:
    """Draw a net and masks for some of its tensors: positive ones, and some with zeros."""
    seed = draw(st.integers(0, 2**32 - 1))
    builder = Builder(seed)
    builder.grow("conv")
    for op in draw(st.lists(st.sampled_from(OPS), min_size=2, max_size=12)):
        builder.grow(op)
        builder.channels = {name: count for name, count in builder.channels.items() if count > 0}
    model = builder.finish()
    taps = [tap.name for tap in list_taps(model) if tap.features]
    chosen = draw(st.lists(st.sampled_from(taps), min_size=1, max_size=6, unique=True))
    rng = np.random.default_rng(seed)
    masks = []
    for name in chosen:
        count = find_tap(model, name).features
        assert count is not None
        weights = rng.uniform(0.05, 2, count)
        kind = draw(st.sampled_from(("positive", "positive", "zeros", "some")))
        if kind == "zeros":
            weights[rng.random(count) < 0.4] = 0
        elif kind == "some":
            weights[rng.random(count) < 0.5] = 1
        masks.append(Mask(name, weights.astype(np.float32)))
    return model, masks


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(masked_nets())
def test_folding_changes_no_output(drawn: tuple[Model, list[Mask]]) -> None:
    model, masks = drawn
    x = np.random.default_rng(1).standard_normal((2, 2, SIDE, SIDE))
    compared(model, masks, x, 1e-12)
