"""Equal graphs in other bytes: what may differ, and what may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cloakonnx.graph.file.equality import computes_the_same
from cloakonnx.graph.file.model import load, load_bytes


def base() -> ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Neg", ["x"], ["b"], "second"),
        helper.make_node("MatMul", ["b", "w"], ["c"], "third"),
        helper.make_node("Concat", ["a", "c", "bias"], ["d"], "fourth", axis=0),
        helper.make_node("Softmax", ["d"], ["y"], "last", axis=1),
    ]
    values = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones((1, 3), np.float32)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", 3])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _typed(made: ModelProto) -> None:
    target = made.graph.initializer[0]
    target.float_data.extend(np.frombuffer(target.raw_data, np.float32))
    target.ClearField("raw_data")


def _twice(made: ModelProto) -> None:
    made.graph.initializer[0].float_data.extend([9.0] * 6)


def _swap(items: object) -> None:
    order = list(items)[::-1]  # type: ignore[call-overload]
    del items[:]  # type: ignore[attr-defined]
    items.extend(order)  # type: ignore[attr-defined]


def _bit(made: ModelProto) -> None:
    raw = bytearray(made.graph.initializer[0].raw_data)
    raw[0] ^= 1
    made.graph.initializer[0].raw_data = bytes(raw)


def _size(made: ModelProto) -> None:
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _nodes_moved(made: ModelProto) -> None:
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([nodes[1], nodes[2], nodes[0], *nodes[3:]])


def _opset(version: int) -> Callable[[ModelProto], None]:
    def change(made: ModelProto) -> None:
        made.opset_import[0].version = version

    return change


SAME: dict[str, Callable[[ModelProto], object]] = {
    "nothing": lambda m: None,
    "value info": lambda m: m.graph.value_info.append(helper.make_tensor_value_info("a", 1, ["N", 3])),
    "doc": lambda m: setattr(m.graph.node[0], "doc_string", "x"),
    "node's name": lambda m: setattr(m.graph.node[0], "name", "x"),
    "metadata": lambda m: m.metadata_props.add(key="a", value="b"),
    "producer": lambda m: setattr(m, "producer_name", "x"),
    "a size": _size,
    "order of initializers": lambda m: _swap(m.graph.initializer),
    "order of nodes": _nodes_moved,
    "typed data": _typed,
    "an opset in which no op changed": _opset(17),
    "an unused domain": lambda m: m.opset_import.append(helper.make_opsetid("d", 1)),
}

OTHER: dict[str, Callable[[ModelProto], object]] = {
    "a bit": _bit,
    "data twice": _twice,
    "a shape": lambda m: m.graph.initializer[0].dims.reverse(),
    "an attribute": lambda m: setattr(m.graph.node[4].attribute[0], "i", 0),
    "an op": lambda m: setattr(m.graph.node[1], "op_type", "Abs"),
    "an input": lambda m: m.graph.node[2].input.__setitem__(0, "x"),
    "order of inputs": lambda m: _swap(m.graph.node[3].input),
    "a type": lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 10),
    "another output": lambda m: setattr(m.graph.output[0], "name", "d"),
    "an initializer more": lambda m: m.graph.initializer.append(numpy_helper.from_array(np.ones(1), "z")),
    "an initializer twice": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "an opset in which Softmax is another": _opset(11),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same(name: str) -> None:
    made = base()
    SAME[name](made)
    for pair in ((base(), made), (made, base())):
        assert computes_the_same(*(load_bytes(each.SerializeToString()) for each in pair))


@pytest.mark.parametrize("name", OTHER)
def test_another(name: str) -> None:
    made = base()
    OTHER[name](made)
    for pair in ((base(), made), (made, base())):
        assert not computes_the_same(*(load_bytes(each.SerializeToString()) for each in pair))


def test_data_elsewhere(tmp_path: Path) -> None:
    onnx.save(base(), tmp_path / "a.onnx")
    onnx.save_model(base(), tmp_path / "b.onnx", save_as_external_data=True, location="b.bin", size_threshold=0)
    assert computes_the_same(load(tmp_path / "a.onnx"), load(tmp_path / "b.onnx"))
    data = bytearray((tmp_path / "b.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "b.bin").write_bytes(data)
    assert not computes_the_same(load(tmp_path / "a.onnx"), load(tmp_path / "b.onnx"))


def test_data_of_attributes_elsewhere_is_not_compared(tmp_path: Path) -> None:
    made = base()
    value = TensorProto(name="v", data_type=1, dims=[1, 3], data_location=TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="v.bin")
    made.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=value))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.bin").write_bytes(np.full(3, ord(folder), np.float32).tobytes())
        (tmp_path / folder / "m.onnx").write_bytes(made.SerializeToString())
    assert not computes_the_same(load(tmp_path / "a" / "m.onnx"), load(tmp_path / "b" / "m.onnx"))
