"""Runs an ONNX graph with torch functions in float64, so that autograd is an oracle for any model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

OPS: dict[str, Callable[..., Any]] = {}


def _op(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        OPS[name] = function
        return function

    return register


def run(model: onnx.ModelProto, feeds: dict[str, torch.Tensor], dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Run the graph and return every tensor by name; opset 13 to 22, inference mode."""
    values: dict[str, Any] = {"": None}
    for t in model.graph.initializer:
        values[t.name] = _tensor(t, dtype)
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


def _tensor(t: onnx.TensorProto, dtype: torch.dtype) -> torch.Tensor:
    value = torch.from_numpy(np.array(numpy_helper.to_array(t)))
    return value.to(dtype) if value.is_floating_point() else value


def _ints(x: Any) -> list[int]:
    return [int(v) for v in torch.as_tensor(x).reshape(-1)]


@_op("Constant")
def _constant(a, *_):
    if "value" in a:
        return _tensor(a["value"], a["_dtype"])
    value = next(v for k, v in a.items() if k.startswith("value_"))
    return torch.tensor(value, dtype=a["_dtype"] if "float" in next(k for k in a if k.startswith("value_")) else None)


@_op("ConstantOfShape")
def _constant_of_shape(a, shape):
    value = _tensor(a["value"], a["_dtype"])[0] if "value" in a else torch.zeros((), dtype=a["_dtype"])
    return value.expand(_ints(shape)).clone()


def _same_pads(a, size, kernel, strides, dilations):
    before, after = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        half = total // 2 if a["auto_pad"] == "SAME_UPPER" else total - total // 2
        before.append(half)
        after.append(total - half)
    return before + after


def _pads(a, x, kernel):
    rank = len(kernel)
    strides = list(a.get("strides", [1] * rank))
    dilations = list(a.get("dilations", [1] * rank))
    pads = list(a.get("pads", [0] * 2 * rank))
    if a.get("auto_pad", "NOTSET").startswith("SAME"):
        pads = _same_pads(a, x.shape[2:], kernel, strides, dilations)
    torch_pads = [p for i in range(rank)[::-1] for p in (pads[i], pads[rank + i])]
    return strides, dilations, pads, torch_pads


@_op("Conv")
def _conv(a, x, w, b=None):
    strides, dilations, _, pads = _pads(a, x, list(w.shape[2:]))
    f = (F.conv1d, F.conv2d, F.conv3d)[w.dim() - 3]
    return f(F.pad(x, pads), w, b, strides, 0, dilations, a.get("group", 1))


@_op("ConvTranspose")
def _conv_transpose(a, x, w, b=None):
    rank = w.dim() - 2
    strides, dilations, pads, _ = _pads(a, x, list(w.shape[2:]))
    f = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    extra = list(a.get("output_padding", [0] * rank))
    y = f(x, w, b, strides, 0, 0, a.get("group", 1), dilations)
    # F's output_padding must be below the stride: pad here instead.
    crop = [p for i in range(rank)[::-1] for p in (-pads[i], extra[i] - pads[rank + i])]
    if any(extra) and b is not None:
        raise NotImplementedError
    return F.pad(y, crop)


@_op("MaxPool")
def _max_pool(a, x):
    strides, dilations, _, pads = _pads(a, x, a["kernel_shape"])
    f = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.dim() - 3]
    return f(F.pad(x, pads, value=-torch.inf), a["kernel_shape"], strides, 0, dilations, bool(a.get("ceil_mode", 0)))


@_op("AveragePool")
def _average_pool(a, x):
    kernel = a["kernel_shape"]
    strides, dilations, _, pads = _pads(a, x, kernel)
    assert set(dilations) == {1}
    f = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.dim() - 3]
    ceil = bool(a.get("ceil_mode", 0))
    if ceil:
        assert len(set(pads)) == 1
        return f(x, kernel, strides, pads[0], ceil, bool(a.get("count_include_pad", 0)))
    y = f(F.pad(x, pads), kernel, strides, 0, ceil)
    if a.get("count_include_pad", 0):
        return y
    return y / f(F.pad(torch.ones_like(x), pads), kernel, strides, 0, ceil)


@_op("BatchNormalization")
def _batch_normalization(a, *x):
    data, scale, b, mean, var = x
    return F.batch_norm(data, mean, var, scale, b, False, 0.0, a.get("epsilon", 1e-5))


@_op("Gemm")
def _gemm(a, x, w, c=None):
    x = x.T if a.get("transA", 0) else x
    w = w.T if a.get("transB", 0) else w
    y = a.get("alpha", 1.0) * (x @ w)
    return y if c is None else y + a.get("beta", 1.0) * c


@_op("Clip")
def _clip(a, x, low=None, high=None):
    return torch.clamp(x, low, high)


@_op("HardSigmoid")
def _hard_sigmoid(a, x):
    return torch.clamp(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1)


@_op("LRN")
def _lrn(a, x):
    return F.local_response_norm(x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0))


@_op("Reshape")
def _reshape(a, x, shape):
    sizes = _ints(shape)
    return x.reshape([x.shape[i] if s == 0 and not a.get("allowzero") else s for i, s in enumerate(sizes)])


@_op("Flatten")
def _flatten(a, x):
    axis = a.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


@_op("Squeeze")
def _squeeze(a, x, axes=None):
    return x.squeeze() if axes is None else x.squeeze(tuple(_ints(axes)))


@_op("Unsqueeze")
def _unsqueeze(a, x, axes):
    for axis in sorted(_ints(axes)):
        x = x.unsqueeze(axis)
    return x


@_op("Slice")
def _slice(a, x, starts, ends, *rest):
    axes, steps = (*rest, None, None)[:2]
    axes = range(len(_ints(starts))) if axes is None else _ints(axes)
    steps = [1] * len(_ints(starts)) if steps is None else _ints(steps)
    for start, end, axis, step in zip(_ints(starts), _ints(ends), axes, steps, strict=True):
        n = x.shape[axis]
        x = x.index_select(axis, torch.tensor(range(n)[slice(start, end if end >= -n else None, step)]))
    return x


@_op("Pad")
def _pad(a, x, pads, value=None, axes=None):
    axes = list(range(x.dim())) if axes is None else _ints(axes)
    pads = _ints(pads)
    full = [0] * (2 * x.dim())
    for i, axis in enumerate(axes):
        full[2 * (x.dim() - 1 - axis % x.dim())] = pads[i]
        full[2 * (x.dim() - 1 - axis % x.dim()) + 1] = pads[len(axes) + i]
    mode = a.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, full, value=0.0 if value is None else float(value))
    for axis in range(x.dim()):
        place = 2 * (x.dim() - 1 - axis)
        taken = np.pad(np.arange(x.shape[axis]), full[place : place + 2], mode=mode)
        x = x.index_select(axis, torch.from_numpy(taken))
    return x


@_op("Split")
def _split(a, x, split=None):
    axis = a.get("axis", 0)
    if split is None:
        return torch.tensor_split(x, a.get("num_outputs", a["_outputs"]), axis)
    return torch.split(x, _ints(split), axis)


@_op("Cast")
def _cast(a, x):
    kind = onnx.helper.tensor_dtype_to_np_dtype(a["to"])
    return x.to(a["_dtype"]) if kind.kind == "f" else x.to(torch.from_numpy(np.zeros(1, kind)).dtype)


@_op("Gather")
def _gather(a, x, indices):
    axis = a.get("axis", 0) % x.dim()
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1).long()
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@_op("LayerNormalization")
def _layer_normalization(a, x, scale, b=None):
    axis = a.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, b, a.get("epsilon", 1e-5))


@_op("InstanceNormalization")
def _instance_normalization(a, x, scale, b):
    return F.instance_norm(x, weight=scale, bias=b, eps=a.get("epsilon", 1e-5))


@_op("GroupNormalization")
def _group_normalization(a, x, scale, b):
    return F.group_norm(x, a["num_groups"], scale, b, a.get("epsilon", 1e-5))


def _reduce(f, a, x, axes):
    if axes is None and a.get("noop_with_empty_axes", 0):
        # ReduceL2 and the like of one value each.
        return f(x.unsqueeze(-1), (-1,), False)
    return f(x, tuple(range(x.dim())) if axes is None else tuple(_ints(axes)), bool(a.get("keepdims", 1)))


@_op("PRelu")
def _prelu(a, x, slope):
    return torch.where(x > 0, x, x * slope)


@_op("Resize")
def _resize(a, x, roi=None, scales=None, sizes=None):
    size = [int(n * s) for n, s in zip(x.shape[2:], scales[2:], strict=True)] if sizes is None else _ints(sizes)[2:]
    how = a.get("coordinate_transformation_mode", "half_pixel")
    if a.get("mode", "nearest") == "nearest":
        wanted = {"asymmetric": "floor", "half_pixel": "round_prefer_ceil"}  # what torch's two modes do
        assert a.get("nearest_mode", "round_prefer_floor") == wanted[how]
        return F.interpolate(x, size, mode="nearest" if how == "asymmetric" else "nearest-exact")
    mode = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()], "cubic": "bicubic"}[a["mode"]]
    return F.interpolate(x, size, mode=mode, align_corners=how == "align_corners")


@_op("Expand")
def _expand(a, x, shape):
    return x * torch.ones(_ints(shape), dtype=x.dtype)


@_op("DepthToSpace")
def _depth_to_space(a, x):
    b = a["blocksize"]
    n, c, h, w = x.shape
    if a.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


@_op("ScatterND")
def _scatter_nd(a, x, indices, updates):
    places = tuple(indices.reshape(-1, indices.shape[-1]).T)
    values = updates.reshape(-1, *x.shape[indices.shape[-1] :])
    return x.index_put(places, values, accumulate=a.get("reduction", "none") == "add")


@_op("ScatterElements")
def _scatter_elements(a, x, indices, updates):
    axis = a.get("axis", 0)
    places = torch.where(indices < 0, indices + x.shape[axis], indices)
    add = a.get("reduction", "none") == "add"
    return x.scatter_add(axis, places, updates) if add else x.scatter(axis, places, updates)


@_op("CumSum")
def _cum_sum(a, x, axis):
    axis = int(axis)
    x = x.flip(axis) if a.get("reverse", 0) else x
    y = x.cumsum(axis) - (x if a.get("exclusive", 0) else 0)
    return y.flip(axis) if a.get("reverse", 0) else y


@_op("Trilu")
def _trilu(a, x, k=0):
    return (torch.triu if a.get("upper", 1) else torch.tril)(x, int(k))


@_op("ReduceProd")
def _reduce_prod(a, x, axes=None):
    if axes is None and a.get("noop_with_empty_axes", 0):
        return x
    for axis in sorted((v % x.dim() for v in (range(x.dim()) if axes is None else _ints(axes))), reverse=True):
        x = x.prod(axis, keepdim=bool(a.get("keepdims", 1)))
    return x


@_op("Pow")
def _pow(a, x, p):
    return x ** p.to(x.dtype)


@_op("Where")
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
    "Tile": lambda x, r: x.repeat(_ints(r)),
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
