"""Runs an ONNX graph with torch functions in float64, so that autograd is an oracle for any model."""

from __future__ import annotations

from typing import Any

import onnx
import torch
import torch.nn.functional as F
import torch_layers  # noqa: F401  fills the registry
import torch_shapes  # noqa: F401  fills the registry
from torch_registry import OPS, ints, op, tensor


def run(model: onnx.ModelProto, feeds: dict[str, torch.Tensor], dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Run the graph and return every tensor by name; opset 13 to 22, inference mode."""
    values: dict[str, Any] = {"": None}
    for t in model.graph.initializer:
        values[t.name] = tensor(t, dtype)
    values.update(feeds)
    for node in model.graph.node:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        attrs = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
        inputs = [values[name] for name in node.input]
        attrs["_dtype"] = dtype
        attrs["_outputs"] = len(node.output)
        found = OPS[node.op_type](attrs, *inputs)
        results = found if isinstance(found, tuple | list) else (found,)
        values.update(zip(node.output, results, strict=False))
    return values


@op("Clip")
def _clip(a, x, low=None, high=None):
    return torch.clamp(x, low, high)


@op("HardSigmoid")
def _hard_sigmoid(a, x):
    return torch.clamp(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1)


def _reduce(f, a, x, axes):
    if axes is None and a.get("noop_with_empty_axes", 0):
        # ReduceL2 and the like of one value each.
        return f(x.unsqueeze(-1), (-1,), False)
    return f(x, tuple(range(x.dim())) if axes is None else tuple(ints(axes)), bool(a.get("keepdims", 1)))


@op("PRelu")
def _prelu(a, x, slope):
    return torch.where(x > 0, x, x * slope)


@op("CumSum")
def _cum_sum(a, x, axis):
    axis = int(axis)
    x = x.flip(axis) if a.get("reverse", 0) else x
    y = x.cumsum(axis) - (x if a.get("exclusive", 0) else 0)
    return y.flip(axis) if a.get("reverse", 0) else y


@op("ReduceProd")
def _reduce_prod(a, x, axes=None):
    if axes is None and a.get("noop_with_empty_axes", 0):
        return x
    for axis in sorted((v % x.dim() for v in (range(x.dim()) if axes is None else ints(axes))), reverse=True):
        x = x.prod(axis, keepdim=bool(a.get("keepdims", 1)))
    return x


@op("Pow")
def _pow(a, x, p):
    return x ** p.to(x.dtype)


@op("Where")
def _where(a, c, x, y):
    return torch.where(c, x, y)


_ALPHA, _GAMMA = 1.67326319217681884765625, 1.05070102214813232421875

_SIMPLE = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Neg": torch.neg,
    "Abs": torch.abs,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    **{op: getattr(torch, op.lower()) for op in ("Sin", "Cos", "Tan", "Asin", "Acos", "Atan")},
    **{op: getattr(torch, op.lower()) for op in ("Sinh", "Cosh", "Asinh", "Acosh", "Atanh")},
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "MatMul": torch.matmul,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "HardSwish": lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1),
    "Mish": F.mish,
    "Identity": lambda x: x,
    "Dropout": lambda x, *_: x,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
    "And": torch.logical_and,
    "Not": torch.logical_not,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True),
    "Tile": lambda x, r: x.repeat(ints(r)),
    "Round": torch.round,
    "Sum": lambda *xs: sum(xs[1:], xs[0]),
    "Mean": lambda *xs: sum(xs[1:], xs[0]) / len(xs),
}
_WITH_ATTRS = {
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Celu": lambda a, x: F.celu(x, a.get("alpha", 1.0)),
    "Selu": lambda a, x: a.get("gamma", _GAMMA) * torch.where(x > 0, x, a.get("alpha", _ALPHA) * torch.expm1(x)),
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", "none")),
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "LogSoftmax": lambda a, x: torch.log_softmax(x, a.get("axis", -1)),
    "Einsum": lambda a, *xs: torch.einsum(a["equation"], *xs),
    "Mod": lambda a, x, y: torch.fmod(x, y),
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Transpose": lambda a, x: x.permute(a.get("perm", tuple(range(x.dim()))[::-1])),
    "Shape": lambda a, x: torch.tensor(x.shape)[a.get("start", 0) : a.get("end", x.dim())],
    "ReduceMean": lambda a, x, axes=None: _reduce(lambda v, d, k: v.mean(d, k), a, x, axes),
    "ReduceSum": lambda a, x, axes=None: _reduce(lambda v, d, k: v.sum(d, k), a, x, axes),
    "ReduceMax": lambda a, x, axes=None: _reduce(lambda v, d, k: v.amax(d, k), a, x, axes),
    "ReduceMin": lambda a, x, axes=None: _reduce(lambda v, d, k: v.amin(d, k), a, x, axes),
    "ReduceL2": lambda a, x, axes=None: _reduce(lambda v, d, k: torch.linalg.vector_norm(v, 2, d, k), a, x, axes),
    "ReduceL1": lambda a, x, axes=None: _reduce(lambda v, d, k: torch.linalg.vector_norm(v, 1, d, k), a, x, axes),
    "ReduceSumSquare": lambda a, x, axes=None: _reduce(lambda v, d, k: (v * v).sum(d, k), a, x, axes),
    "ReduceLogSum": lambda a, x, axes=None: _reduce(lambda v, d, k: v.sum(d, k).log(), a, x, axes),
    "ReduceLogSumExp": lambda a, x, axes=None: _reduce(torch.logsumexp, a, x, axes),
    "Max": lambda a, *xs: _fold(torch.maximum, xs),
    "Min": lambda a, *xs: _fold(torch.minimum, xs),
}


def _fold(f, xs):
    result = xs[0]
    for x in xs[1:]:
        result = f(result, x)
    return result


for _name, _function in _SIMPLE.items():
    OPS[_name] = lambda a, *xs, _f=_function: _f(*xs)
OPS.update(_WITH_ATTRS)
