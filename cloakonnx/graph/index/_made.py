"""Shapes and small values of what single nodes make of constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import ceil, isfinite, prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from cloakonnx.graph.index.constants import computed
from cloakonnx.graph.index.limits import RANK, element_bytes
from cloakonnx.graph.index.node import attributes

_Array: TypeAlias = npt.NDArray[Any]
_Shape: TypeAlias = tuple[int, ...]

_SMALL = 1 << 14
"""Elements of the largest value that is computed."""

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}

_COMPUTED = {
    "Constant", "Shape", "Size", "Identity", "Cast", "CastLike", "Concat", "Gather", "GatherElements",
    "GatherND", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Split", "Expand", "Tile",
    "Pad", "Range", "ConstantOfShape", "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Sign", "Min", "Max",
    "Sum", "Mean", "Pow", "Sqrt", "Exp", "Log", "Reciprocal", "Floor", "Ceil", "Round", "Clip", "Relu", "Sin",
    "Cos", "Tanh", "Sigmoid", "Erf", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or",
    "Xor", "Not", "Where", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseNot", "BitwiseXor", "ReduceProd",
    "ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp", "CumSum", "ArgMax", "ArgMin", "MatMul", "Gemm", "OneHot", "ScatterND",
    "ScatterElements", "EyeLike", "Trilu", "DequantizeLinear", "QuantizeLinear",
}  # fmt: skip
"""Ops whose work is of the order of their inputs and outputs, so that small ones are computed."""


class Known(NamedTuple):
    """What is known of a tensor.

    Attributes:
        shape: None where it is not known.
        elem_type: 0 where it is not known.
        is_constant: Whether it depends on nothing but the shape of the data.
        value: Of a small constant, where it is known.
    """

    shape: _Shape | None
    elem_type: int
    is_constant: bool
    value: _Array | None = None

    @property
    def bytes(self) -> int:
        """Bytes that the tensor takes."""
        return element_bytes(self.elem_type, prod(self.shape or ()))

    @property
    def is_float(self) -> bool:
        """Whether it is of floating point."""
        return self.elem_type in _FLOATS


def plain(node: onnx.NodeProto) -> str:
    """Return the op's name; contributed ops of a default op's name are as that one."""
    return node.op_type if node.domain in {"", "ai.onnx", "com.microsoft"} else f"{node.domain}.{node.op_type}"


def of_tensor(tensor: TensorProto) -> Known:
    """Return what is known of an initializer."""
    shape = tuple(tensor.dims)
    return Known(shape, tensor.data_type, True, _read(tensor) if prod(shape) <= _SMALL else None)


def _read(tensor: TensorProto) -> _Array | None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type == TensorProto.STRING:
        return None
    try:
        found: _Array = onnx.numpy_helper.to_array(tensor)
        return found
    except Exception:  # onnx raises several types for data that do not fit
        return None


def value_of(
    node: onnx.NodeProto,
    inputs: Sequence[Known | None],
    opsets: Sequence[onnx.OperatorSetIdProto],
    shapes: Sequence[Known] = (),
) -> Known | None:
    """Compute a node of one output and small inputs; None where it is not small, or of another op."""
    op = plain(node)
    if op in {"Shape", "Size"}:
        return _shape_value(node, inputs[0])
    if op not in _COMPUTED or node.domain == "com.microsoft" or len(node.output) != 1:
        return None
    if op == "Constant":
        return _constant(node)
    given = [known for known in inputs if known is not None]
    is_small = all(known.shape is not None and prod(known.shape) <= _SMALL for known in shapes)
    is_known = bool(given) and all(known.value is not None for known in given)
    value = _evaluated(node, inputs, opsets) if is_small and is_known else None
    return None if value is None else Known(value.shape, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), True, value)


def _evaluated(
    node: onnx.NodeProto, inputs: Sequence[Known | None], opsets: Sequence[onnx.OperatorSetIdProto]
) -> _Array | None:
    """Compute a node: as shapes and axes are computed everywhere, and other ops by onnx's reference."""
    with np.errstate(all="ignore"):
        usual = computed(node, [None if known is None else known.value for known in inputs])
    if usual is not None:
        return usual if usual.dtype.kind in "fiub" else None
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - takes long to import, and few models need it

    feed = {name: known.value for name, known in zip(node.input, inputs, strict=True) if name and known is not None}
    values = [onnx.ValueInfoProto(name=name) for name in feed]
    graph = onnx.helper.make_graph([node], "constant", values, [onnx.ValueInfoProto(name=node.output[0])])
    try:
        with np.errstate(all="ignore"):
            model = onnx.helper.make_model(graph, opset_imports=opsets)
            results: Any = ReferenceEvaluator(model).run(None, feed)
            found = np.asarray(results[0])
    except Exception:  # whatever the reference raises: the value stays unknown
        return None
    return found if found.dtype.kind in "fiub" else None


def _shape_value(node: onnx.NodeProto, data: Known | None) -> Known | None:
    if data is None or data.shape is None:
        return None
    found = attributes(node)
    if node.op_type == "Size":
        value = np.array(min(prod(data.shape), 2**63 - 1), np.int64)
    else:
        value = np.array(data.shape[found.get("start", 0) : found.get("end", len(data.shape))], np.int64)
    return Known(value.shape, TensorProto.INT64, True, value)


def _constant(node: onnx.NodeProto) -> Known | None:
    found = attributes(node)
    if "value" in found:
        return of_tensor(found["value"])
    for key, dtype in (("value_int", "i8"), ("value_ints", "i8"), ("value_float", "f4"), ("value_floats", "f4")):
        if key in found:
            value = np.array(found[key], dtype)
            return Known(value.shape, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), True, value)
    if "sparse_value" in found:
        return Known(tuple(found["sparse_value"].dims), found["sparse_value"].values.data_type, True)
    return None


def inferred_node(
    node: onnx.NodeProto, inputs: Sequence[Known | None], opsets: Sequence[onnx.OperatorSetIdProto]
) -> list[Known]:
    """Return what onnx's own inference knows of one node of constant inputs."""
    unknown = [Known(None, 0, True) for _ in node.output]
    if plain(node) == "Constant":
        found = _constant(node)
        return unknown if found is None else [found]
    types = {n: _type(k) for n, k in zip(node.input, inputs, strict=True) if n and k is not None}
    data = {
        n: onnx.numpy_helper.from_array(np.asarray(k.value), n)
        for n, k in zip(node.input, inputs, strict=True)
        if n and k is not None and k.value is not None
    }
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = next((o.version for o in opsets if o.domain in {domain, node.domain}), 0)
    try:
        schema = _schema(node.op_type, min(version, 2**31 - 1), domain)
        results = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=list(opsets))
    except Exception:  # no such op, or a use of it that inference refuses; whoever runs it says so
        return unknown
    return [_known(results[name]) if name in results else Known(None, 0, True) for name in node.output]


@cache
def _schema(op: str, version: int, domain: str) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op, version, domain)


def _type(known: Known) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(known.elem_type, known.shape)


def _known(found: onnx.TypeProto) -> Known:
    tensor = found.tensor_type
    if not found.HasField("tensor_type") or not tensor.HasField("shape"):
        return Known(None, tensor.elem_type, True)
    if not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return Known(None if len(tensor.shape.dim) <= RANK else (1,) * len(tensor.shape.dim), tensor.elem_type, True)
    return Known(tuple(d.dim_value for d in tensor.shape.dim), tensor.elem_type, True)


def makes(node: onnx.NodeProto) -> bool:
    """Whether an op's output may be far larger than its inputs, by the numbers in them."""
    return plain(node) in _MADE


def made(node: onnx.NodeProto, inputs: Sequence[Known | None]) -> Known | None:
    """Return the shape and type of what a node makes whose size its inputs' values tell, None where they do not."""
    rule = _MADE.get(plain(node))
    if rule is None:
        return None
    try:
        shape, elem_type = rule(attributes(node), list(inputs))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None  # another use of the op, or a value that is not known
    return Known(tuple(int(size) for size in shape), int(elem_type), all(k is None or k.is_constant for k in inputs))


_Inputs: TypeAlias = list[Known | None]
_Rule: TypeAlias = Callable[[dict[str, Any], _Inputs], tuple[Sequence[int], int]]


def _numbers(inputs: _Inputs, position: int) -> list[Any]:
    known = inputs[position]
    if known is None or known.value is None:
        raise ValueError("not known")
    return list(known.value.reshape(-1).tolist())


def _shape(inputs: _Inputs, position: int = 0) -> _Shape:
    known = inputs[position]
    if known is None or known.shape is None:
        raise ValueError("not known")
    return known.shape


def _elem(inputs: _Inputs, position: int = 0) -> int:
    known = inputs[position]
    return known.elem_type if known is not None else 0


def _constant_of_shape(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    return _numbers(inputs, 0), found["value"].data_type if "value" in found else TensorProto.FLOAT


def _expand(_: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    old, new = _shape(inputs), _numbers(inputs, 1)
    rank = max(len(old), len(new))
    pairs = zip([1] * (rank - len(old)) + list(old), [1] * (rank - len(new)) + new, strict=True)
    return [0 if 0 in pair else max(pair) for pair in pairs], _elem(inputs)


def _tile(_: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    old, times = _shape(inputs), _numbers(inputs, 1)
    if len(times) != len(old):  # opset 1: how often, and along which axis
        axis = int(_numbers(inputs, 2)[0])
        return [size * times[0] if i == axis else size for i, size in enumerate(old)], _elem(inputs)
    return [size * count for size, count in zip(old, times, strict=True)], _elem(inputs)


def _range(_: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    start, limit, delta = (_numbers(inputs, position)[0] for position in range(3))
    if isinstance(start, int) and isinstance(limit, int) and isinstance(delta, int):
        return [max(-(-(limit - start) // delta), 0)], _elem(inputs)
    count = (limit - start) / delta
    return [max(ceil(count), 0) if isfinite(count) else 2**62], _elem(inputs)


def _pad(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    old = _shape(inputs)
    pads = [int(n) for n in found.get("pads", found.get("paddings")) or _numbers(inputs, 1)]
    axes = list(range(len(old)))
    if len(inputs) > 3 and inputs[3] is not None:
        axes = [int(axis) % len(old) for axis in _numbers(inputs, 3)]
    sizes, half = list(old), len(pads) // 2
    for position, axis in enumerate(axes):
        sizes[axis] += pads[position] + pads[half + position]
    return [max(size, 0) for size in sizes], _elem(inputs)


def _resize(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    old = _shape(inputs)
    axes = [axis % len(old) for axis in found.get("axes", range(len(old)))]
    is_old = len(inputs) == 2
    if len(inputs) > 3 and inputs[3] is not None:
        wanted = [int(n) for n in _numbers(inputs, 3)]
    else:
        scales = found["scales"] if "scales" in found else _numbers(inputs, 1 if is_old else 2)
        wanted = [int(old[axis] * scale) for axis, scale in zip(axes, scales, strict=True)]
    sizes = list(old)
    for axis, size in zip(axes, wanted, strict=True):
        sizes[axis] = size
    return sizes, _elem(inputs)


def _one_hot(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    shape = list(_shape(inputs))
    axis = found.get("axis", -1)
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, int(_numbers(inputs, 1)[0]))
    return shape, _elem(inputs, 2)


def _eye_like(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    return _shape(inputs), found.get("dtype", _elem(inputs))


def _random(found: dict[str, Any], _: _Inputs) -> tuple[Sequence[int], int]:
    return found["shape"], found.get("dtype", TensorProto.FLOAT)


def _window(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    return _numbers(inputs, 0), found.get("output_datatype", TensorProto.FLOAT)


def _multinomial(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    return (_shape(inputs)[0], found.get("sample_size", 1)), found.get("dtype", TensorProto.INT32)


def _mel(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    bins, length = _numbers(inputs, 0)[0], _numbers(inputs, 1)[0]
    return (length // 2 + 1, bins), found.get("output_datatype", TensorProto.FLOAT)


def _affine_grid(_: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    size = _numbers(inputs, 1)
    return (size[0], *size[2:], len(size) - 2), _elem(inputs)


def _crop_pad(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    sizes = list(_shape(inputs))
    for axis, size in zip(found.get("axes", range(len(sizes))), _numbers(inputs, 1), strict=True):
        sizes[axis] = int(size)
    return sizes, _elem(inputs)


def _dft(found: dict[str, Any], inputs: _Inputs) -> tuple[Sequence[int], int]:
    sizes = list(_shape(inputs))
    axis = int(_numbers(inputs, 2)[0]) if len(inputs) > 2 and inputs[2] is not None else found.get("axis", 1)
    sizes[axis] = int(_numbers(inputs, 1)[0])
    return (*sizes[:-1], 2), _elem(inputs)


_MADE: dict[str, _Rule] = {
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "OneHot": _one_hot,
    "EyeLike": _eye_like,
    "RandomNormal": _random,
    "RandomUniform": _random,
    "HannWindow": _window,
    "HammingWindow": _window,
    "BlackmanWindow": _window,
    "Multinomial": _multinomial,
    "MelWeightMatrix": _mel,
    "AffineGrid": _affine_grid,
    "CenterCropPad": _crop_pad,
    "DFT": _dft,
}
