"""One node or a few as a model, its gradient in float64 and float32, and finite differences to hold them against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cloakonnx.gradient.differentiate import INPUT, GradientGraph, differentiate
from tests.support.double import to_double

Array = npt.NDArray[Any]

TIGHT = 1e-7
LOOSE = 1e-5


class ConvTranspose(OpRun):
    """ConvTranspose of any group and rank, as the transposed matrix of the convolution; onnx's own lacks groups."""

    def _run(self, x, w, b=None, **a):  # type: ignore[no-untyped-def]
        rank = w.ndim - 2
        group = a.get("group") or 1
        strides, dilations = (list(a.get(k) or [1] * rank) for k in ("strides", "dilations"))
        pads, extra = list(a.get("pads") or [0] * 2 * rank), list(a.get("output_padding") or [0] * rank)
        per = w.shape[1]
        whole = [
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(x.shape[2:], strides, w.shape[2:], dilations, strict=True)
        ]
        y = np.zeros((x.shape[0], per * group, *(n + e for n, e in zip(whole, extra, strict=True))), x.dtype)
        inner = x.shape[1] // group
        for g in range(group):
            part = x[:, g * inner : (g + 1) * inner]
            for k in np.ndindex(*w.shape[2:]):
                tap = w[(slice(g * inner, (g + 1) * inner), slice(None), *k)]
                place = tuple(
                    slice(i * d, i * d + (n - 1) * s + 1, s)
                    for i, d, n, s in zip(k, dilations, x.shape[2:], strides, strict=True)
                )
                y[(slice(None), slice(g * per, (g + 1) * per), *place)] += np.einsum("nc...,cm->nm...", part, tap)
        crop = tuple(slice(pads[i], y.shape[2 + i] - pads[rank + i]) for i in range(rank))
        y = y[(slice(None), slice(None), *crop)]
        return (y if b is None else y + b.reshape(1, -1, *(1,) * rank),)


class Erf(OpRun):
    """Erf in the type of its input; onnx's own rounds to float32."""

    def _run(self, x):  # type: ignore[no-untyped-def]
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class Gelu(OpRun):
    """Gelu in the type of its input."""

    def _run(self, x, approximate=None):  # type: ignore[no-untyped-def]
        if approximate == "tanh":
            return (x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
        return (x / 2 * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))),)


class LRN(OpRun):
    """LRN over every channel; onnx's own takes the batch size for the number of channels."""

    def _run(self, x, **a):  # type: ignore[no-untyped-def]
        alpha, beta, bias, size = (a[k] for k in ("alpha", "beta", "bias", "size"))
        padded = np.pad(x**2, [(0, 0), ((size - 1) // 2, size // 2), *[(0, 0)] * (x.ndim - 2)])
        total = sum(padded[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + alpha / size * total) ** beta,)


class GroupNormalization(OpRun):
    """GroupNormalization in the type of its input; onnx's own goes through float32."""

    def _run(self, x, scale, bias, **a):  # type: ignore[no-untyped-def]
        groups = x.reshape(x.shape[0], a["num_groups"], -1)
        spread = np.sqrt(groups.var(2, keepdims=True) + a["epsilon"])
        unit = ((groups - groups.mean(2, keepdims=True)) / spread).reshape(x.shape)
        repeats, ones = x.shape[1] // len(scale), (1,) * (x.ndim - 2)  # one scale a group until opset 20
        return (unit * scale.repeat(repeats).reshape(-1, *ones) + bias.repeat(repeats).reshape(-1, *ones),)


class MaxPool(OpRun):
    """MaxPool with indices into the whole tensor; onnx's own count within a channel."""

    def _run(self, x, **a):  # type: ignore[no-untyped-def]
        rank = x.ndim - 2
        kernel, pads = a["kernel_shape"], list(a.get("pads") or [0] * 2 * rank)
        strides, dilations = (list(a.get(k) or [1] * rank) for k in ("strides", "dilations"))
        rounding = math.ceil if a.get("ceil_mode") else math.floor
        shape = [
            rounding((x.shape[2 + i] + pads[i] + pads[rank + i] - (kernel[i] - 1) * dilations[i] - 1) / strides[i]) + 1
            for i in range(rank)
        ]
        y, indices = np.empty((*x.shape[:2], *shape), x.dtype), np.empty((*x.shape[:2], *shape), np.int64)
        for place in np.ndindex(*y.shape):
            candidates = []
            for k in np.ndindex(*kernel):
                at = [place[2 + i] * strides[i] - pads[i] + k[i] * dilations[i] for i in range(rank)]
                if all(0 <= v < n for v, n in zip(at, x.shape[2:], strict=True)):
                    candidates.append((*place[:2], *at))
            best = max(candidates, key=lambda c: x[c])
            y[place], indices[place] = x[best], np.ravel_multi_index(best, x.shape)
        return (y, indices)[: len(self.onnx_node.output)]


class LpNormalization(OpRun):
    """LpNormalization of absolute values; onnx's own forgets them for p = 1."""

    def _run(self, x, axis=None, p=None):  # type: ignore[no-untyped-def]
        return (x / np.linalg.norm(x, p, axis, keepdims=True),)


_BETTER = [ConvTranspose, Erf, Gelu, GroupNormalization, LRN, MaxPool, LpNormalization]


def evaluator(model: onnx.ModelProto) -> Callable[[Mapping[str, Array]], list[Array]]:
    """Run a model in any type by onnx.reference."""
    session = ReferenceEvaluator(model, new_ops=_BETTER)
    return lambda feeds: session.run(None, dict(feeds))


@dataclass(frozen=True)
class Case:
    """A small graph to differentiate.

    Attributes:
        nodes: The nodes; the last output is the result.
        inputs: Value of each floating-point input.
        constants: Value of each initializer.
        opset: Operator set.
        open_axes: Axes of the inputs whose size the model does not tell.
        sized: Inputs all of whose sizes it tells.
        size: Values of the result; asked from onnx.reference where 0.
    """

    nodes: Sequence[onnx.NodeProto]
    inputs: Mapping[str, Array]
    constants: Mapping[str, Array] = field(default_factory=dict)
    opset: int = 18
    open_axes: tuple[int, ...] = ()
    sized: tuple[str, ...] = ()
    size: int = 0

    def model(self) -> onnx.ModelProto:
        """The graph in float32, its result as one row, which stands for the logits of one sample."""
        result = self.nodes[-1].output[0]
        inputs = [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [f"{name}{i}" if self._is_open(name, i) else d for i, d in enumerate(v.shape)]
            )
            for name, v in self.inputs.items()
        ]
        constants = {n: _narrow(v) for n, v in self.constants.items()}
        plain = self._wrapped(self.nodes, inputs, constants=constants, result=result)
        feeds = {name: value.astype(np.float64) for name, value in self.inputs.items()}
        size = self.size or evaluator(to_double(plain))(feeds)[0].size
        constants["row_shape"] = np.array([1, size])
        constants["signs"] = np.resize(np.float32([1, -1]), size)
        tail = [  # signs that change twice, so that nothing before them is taken for probabilities
            helper.make_node("Reshape", [result, "row_shape"], ["row_of"]),
            helper.make_node("Mul", ["row_of", "signs"], ["row_turned"]),
            helper.make_node("Mul", ["row_turned", "signs"], ["row"]),
        ]
        return self._wrapped([*self.nodes, *tail], inputs, constants=constants, result="row")

    def _is_open(self, name: str, axis: int) -> bool:
        return axis in self.open_axes and name not in self.sized

    def _wrapped(
        self,
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto],
        *,
        constants: Mapping[str, Array],
        result: str,
    ) -> onnx.ModelProto:
        output = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
        initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, "case", inputs, [output], initializer=initializers)
        domains = {"": self.opset, "com.microsoft": 1, "ai.onnx.ml": 3}
        opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _narrow(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype == np.float64 else value


def one(op: str, *inputs: Array | None, opset: int = 18, open_axes: tuple[int, ...] = (), **attributes: Any) -> Case:
    """A case of one node: float64 arrays are differentiated by, unless wrapped in :func:`fixed`."""
    names, live, constants = [], {}, {}
    for i, value in enumerate(inputs):
        names.append("" if value is None else f"x{i}")
        if isinstance(value, Fixed):
            constants[f"x{i}"] = value.value
        elif value is not None and value.dtype == np.float64:
            live[f"x{i}"] = value
        elif value is not None:
            constants[f"x{i}"] = value
    node = helper.make_node(op, names, ["y"], name="the_node", **attributes)
    return Case([node], live, constants, opset, open_axes)


@dataclass(frozen=True)
class Fixed:
    """A constant operand."""

    value: Array


def fixed(value: Array) -> Any:
    """Mark an operand as constant."""
    return Fixed(value)


def graph_of(case: Case, *, double: bool, provider: str = "cpu", row: int | None = None) -> GradientGraph:
    """The gradient graph of a case by all its inputs, for any cotangent of its result."""
    model = to_double(case.model()) if double else case.model()
    first, *others = case.inputs
    shape = None if row is None else case.inputs[first].shape
    return differentiate(
        model, loss="cotangent", wrt=[INPUT, *others], input_name=first, provider=provider, input_shape=shape
    )


def gradients(graph: GradientGraph, run: Callable[[Mapping[str, Array]], list[Array]], case: Case, c: Array) -> list:
    """Evaluate the gradients of a case in the order of its inputs."""
    dtype = c.dtype
    first, *others = case.inputs
    feeds = {graph.image: case.inputs[first].astype(dtype), graph.cotangent or "": c}
    feeds.update({name: case.inputs[name].astype(dtype) for name in others})
    names = [o.name for o in graph.proto.graph.output]
    found = dict(zip(names, run(feeds), strict=True))
    return [found[graph.gradients[key]] for key in (INPUT, *others)]


def ort_run(model: onnx.ModelProto) -> Callable[[Mapping[str, Array]], list[Array]]:
    """Run a model in onnxruntime on two threads at most."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, dict(feeds))


def outputs(graph: GradientGraph, feeds: Mapping[str | None, Array]) -> dict[str | None, Array]:
    """Run a gradient graph in onnxruntime and return its outputs by name."""
    given = {name: value for name, value in feeds.items() if name is not None}
    names = [o.name for o in graph.proto.graph.output]
    return dict(zip(names, ort_run(graph.proto)(given), strict=True))


def check(
    case: Case,
    *,
    seed: int = 0,
    providers: Sequence[str] = ("cpu",),
    step: float = 1e-5,
    deprecated: bool = False,
    wide: Callable[[onnx.ModelProto], Callable[[Mapping[str, Array]], list[Array]]] = evaluator,
) -> None:
    """Hold the gradient in float64, as ``wide`` runs it, against central differences; the one in float32 against it."""
    rng = np.random.default_rng(seed)
    forward = wide(to_double(case.model()))
    (y,) = forward(case.inputs)
    cotangent = rng.normal(size=y.shape)
    for provider in providers:
        graph = graph_of(case, double=True, provider=provider)
        exact = gradients(graph, wide(graph.proto), case, cotangent)
        for (_, value), grad in zip(case.inputs.items(), exact, strict=True):
            assert grad.shape == value.shape
            assert grad.dtype == np.float64
        for _ in range(4):
            directions = {name: rng.normal(size=v.shape) for name, v in case.inputs.items()}
            ends = [
                float((forward({n: v + h * directions[n] for n, v in case.inputs.items()})[0] * cotangent).sum())
                for h in (step, -step)
            ]
            numeric = (ends[0] - ends[1]) / (2 * step)
            analytic = sum(float((g * d).sum()) for g, d in zip(exact, directions.values(), strict=True))
            size = sum(np.linalg.norm(g) * np.linalg.norm(d) for g, d in zip(exact, directions.values(), strict=True))
            assert abs(numeric - analytic) <= TIGHT * max(size, 1.0), (numeric, analytic)
        single = graph_of(case, double=False, provider=provider)
        if not deprecated:
            onnx.checker.check_model(single.proto)
        found = gradients(single, ort_run(single.proto), case, cotangent.astype(np.float32))
        for grad, reference in zip(found, exact, strict=True):
            assert grad.dtype == np.float32
            assert np.linalg.norm(grad - reference) <= LOOSE * max(np.linalg.norm(reference), 1.0)
