"""What exactly differs in a field that two models declare differently: inputs, outputs, operator sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx


def detail(name: str, first: onnx.ModelProto | onnx.GraphProto, second: onnx.ModelProto | onnx.GraphProto) -> str:
    """Return what changed in a field, for a reader; empty where nothing more can be said in a few words."""
    if name == "opset_import" and isinstance(first, onnx.ModelProto) and isinstance(second, onnx.ModelProto):
        return ", ".join(_opsets(first.opset_import, second.opset_import))
    if name in {"input", "output"} and isinstance(first, onnx.GraphProto) and isinstance(second, onnx.GraphProto):
        return ", ".join(_values(getattr(first, name), getattr(second, name)))
    return ""


def _opsets(first: Sequence[onnx.OperatorSetIdProto], second: Sequence[onnx.OperatorSetIdProto]) -> Iterator[str]:
    before, after = ({each.domain or "ai.onnx": each.version for each in sets} for sets in (first, second))
    for domain, version in before.items():
        if domain in after and after[domain] != version:
            yield f"{domain!r} is {after[domain]}, was {version}"
    for said, more in (("added", after.keys() - before.keys()), ("gone", before.keys() - after.keys())):
        if more:
            yield f"{len(more)} domains {said}" if len(more) > 1 else f"domain {next(iter(more))!r} {said}"


def _values(first: Sequence[onnx.ValueInfoProto], second: Sequence[onnx.ValueInfoProto]) -> Iterator[str]:
    before = {value.name: value.type.tensor_type for value in first}
    for value in second:
        old, new = before.get(value.name), value.type.tensor_type
        if old is None:
            continue
        if old.elem_type != new.elem_type:
            yield f"{value.name!r} is {_type(new.elem_type)}, was {_type(old.elem_type)}"
        if len(old.shape.dim) != len(new.shape.dim):
            yield f"{value.name!r} has rank {len(new.shape.dim)}, had {len(old.shape.dim)}"
            continue
        for axis, (a, b) in enumerate(zip(old.shape.dim, new.shape.dim, strict=True)):
            if a != b:
                yield f"axis {axis} of {value.name!r} is {_dim(b)}, was {_dim(a)}"


def _type(elem_type: int) -> str:
    known = elem_type in onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(elem_type).lower() if known else f"type {elem_type}"


def _dim(dim: onnx.TensorShapeProto.Dimension) -> str:
    if dim.HasField("dim_value"):
        return str(dim.dim_value)
    return repr(dim.dim_param) if dim.dim_param else "open"
