"""diff names what differs, whatever it is, and nothing where nothing does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import load, load_bytes
from tests.fixtures.models import FIXTURES, TAP, mlp, unknown_fields, write_external
from tests.graph.helpers import write

LARGE = 9000


def base() -> ModelProto:
    made = mlp(
        [helper.make_node("LeakyRelu", [TAP], ["leaky"], name="leaky", alpha=0.5)],
        initializers=[TensorProto(name="large", data_type=2, dims=[LARGE], raw_data=bytes(LARGE))],
        value_info=[helper.make_tensor_value_info(TAP, 1, ["N", 6])],
    )
    made.metadata_props.add(key="author", value="someone")
    made.metadata_props.add(key="note", value="first")
    return made


def differences(first: Path, second: Path) -> list[str]:
    return [str(each) for each in diff(load(first), load(second))]


def changed(change: Callable[[ModelProto], object], folder: Path) -> list[str]:
    made = base()
    change(made)
    second = write(folder, made, "second.onnx")
    found = differences(write(folder, base(), "first.onnx"), second)
    assert (second.read_bytes() == base().SerializeToString()) == (not found)
    backwards = differences(second, folder / "first.onnx")
    assert bool(backwards) == bool(found)
    return found


def weight_bit(name: str, at: int) -> Callable[[ModelProto], None]:
    def change(made: ModelProto) -> None:
        target = next(each for each in made.graph.initializer if each.name == name)
        raw = bytearray(target.raw_data)
        raw[at] ^= 1
        target.raw_data = bytes(raw)

    return change


def moved(made: ModelProto, index: int, target: int) -> None:
    nodes = list(made.graph.node)
    nodes.insert(target, nodes.pop(index))
    del made.graph.node[:]
    made.graph.node.extend(nodes)


def attribute(made: ModelProto) -> None:
    made.graph.node[3].attribute[0].f = 0.25


def renamed(made: ModelProto) -> None:
    made.graph.initializer[0].name = "weight"
    made.graph.node[0].input[1] = "weight"


def doubled(made: ModelProto) -> None:
    made.graph.initializer.insert(0, TensorProto(name="w1", data_type=1, dims=[1], raw_data=bytes(4)))


def reordered_weights(made: ModelProto) -> None:
    weights = list(made.graph.initializer)
    del made.graph.initializer[:]
    made.graph.initializer.extend(weights[::-1])


Change = Callable[[ModelProto], object]
CHANGES: list[tuple[str, Change, list[str]]] = [
    ("nothing", lambda made: None, []),
    ("weight bit", weight_bit("w1", 5), ["initializer 'w1' changed (raw_data)"]),
    ("bit of a large weight", weight_bit("large", LARGE - 1), ["initializer 'large' changed (values)"]),
    ("large weight's dims", lambda m: _large(m).dims.append(1), ["initializer 'large' changed (dims)"]),
    ("large weight's type", lambda m: _set(_large(m), data_type=3), ["initializer 'large' changed (data_type)"]),
    ("large weight gone", lambda m: m.graph.initializer.pop(), ["initializer 'large' removed"]),
    ("attribute", attribute, ["LeakyRelu node 'leaky' changed (attribute)"]),
    ("operator", lambda m: _set(m.graph.node[1], op_type="Elu"), ["Relu node 'relu' removed", "Elu node 'relu' added"]),
    ("node's input", lambda m: _item(m.graph.node[3].input, "hidden"), ["LeakyRelu node 'leaky' changed (input)"]),
    (
        "node's output",
        lambda m: _item(m.graph.node[3].output, "o"),
        ["LeakyRelu node 'leaky' changed (output 'leaky' is now 'o')"],
    ),
    ("node's doc", lambda m: _set(m.graph.node[0], doc_string=""), ["Gemm node 'first' changed (doc_string)"]),
    ("moved node", lambda m: moved(m, 3, 2), ["LeakyRelu node 'leaky' moved (from position 3 to 2)"]),
    ("extra node", lambda m: m.graph.node.add(op_type="Neg", input=[TAP], output=["n"]), ["Neg node of ['n'] added"]),
    ("removed node", lambda m: m.graph.node.pop(), ["LeakyRelu node 'leaky' removed"]),
    ("metadata value", lambda m: _set(m.metadata_props[0], value="other"), ["metadata 'author' changed"]),
    ("metadata value gone", lambda m: m.metadata_props[0].ClearField("value"), ["metadata 'author' changed"]),
    ("metadata added", lambda m: m.metadata_props.add(key="k"), ["metadata 'k' added"]),
    ("metadata removed", lambda m: m.metadata_props.pop(), ["metadata 'note' removed"]),
    ("metadata order", lambda m: m.metadata_props.reverse(), ["metadata moved (order or repetition of the entries)"]),
    ("opset", lambda m: _set(m.opset_import[0], version=16), ["model.opset_import changed ('ai.onnx' is 16, was 17)"]),
    ("IR version", lambda m: _set(m, ir_version=9), ["model.ir_version changed"]),
    ("producer", lambda m: _set(m, producer_version="2"), ["model.producer_version added"]),
    ("absent and empty", lambda m: _set(m, doc_string=""), ["model.doc_string added"]),
    ("function", lambda m: m.functions.add(name="F", domain="d"), ["model.functions added"]),
    ("training", lambda m: m.training_info.add(), ["model.training_info added"]),
    ("graph's name", lambda m: _set(m.graph, name="other"), ["graph.name changed"]),
    ("output added", lambda m: m.graph.output.add(name=TAP), ["graph.output changed"]),
    (
        "input's shape",
        lambda m: m.graph.input[0].type.tensor_type.shape.dim.add(),
        ["graph.input changed ('x' has rank 3, had 2)"],
    ),
    ("value info", lambda m: m.graph.value_info.pop(), ["graph.value_info removed"]),
    ("annotation", lambda m: m.graph.quantization_annotation.add(), ["graph.quantization_annotation added"]),
    ("sparse", lambda m: m.graph.sparse_initializer.add(), ["graph.sparse_initializer added"]),
    (
        "renamed weight",
        renamed,
        ["Gemm node 'first' changed (input)", "initializer 'w1' removed", "initializer 'weight' added"],
    ),
    ("weight twice", doubled, ["initializer 'w1' changed (dims, raw_data)", "initializer 'w1' added"]),
    ("weights' order", reordered_weights, ["initializers moved (their order)"]),
    ("typed data", lambda m: _typed(m.graph.initializer[1]), ["initializer 'b1' changed (float_data, raw_data)"]),
]  # fmt: skip


def _large(made: ModelProto) -> TensorProto:
    return next(each for each in made.graph.initializer if each.name == "large")


def _set(message: object, **values: object) -> None:
    for name, value in values.items():
        setattr(message, name, value)


def _item(names: object, value: str) -> None:
    names[0] = value  # type: ignore[index]


def _typed(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data.extend([0] * 6)


@pytest.mark.parametrize(("change", "expected"), [pytest.param(c, e, id=i) for i, c, e in CHANGES])
def test_named(change: Callable[[ModelProto], object], expected: list[str], tmp_path: Path) -> None:
    assert sorted(changed(change, tmp_path)) == sorted(expected)


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("model", "model: fields unknown to onnx"),
        ("graph", "graph: fields unknown to onnx"),
        ("node", "Gemm node 'first' changed (unknown fields)"),
        ("tensor", "initializer 'w1' changed (unknown fields)"),
        ("value_info", "graph.value_info changed"),
    ],
)
def test_unknown_fields(where: str, part: str, tmp_path: Path) -> None:
    plain = mlp(value_info=[helper.make_tensor_value_info(TAP, 1, ["N", 6])])
    first, second = write(tmp_path, plain, "a.onnx"), write(tmp_path, unknown_fields(where), "b.onnx")
    found = differences(first, second)
    assert any(each.startswith(part) for each in found), found
    assert differences(second, second) == []


def test_a_known_and_an_unknown_field_are_both_named() -> None:
    first, second = mlp(), mlp()
    second.producer_name = "other"
    second.MergeFromString(b"\x92\x89\x02\x04kept")
    found = [each.part for each in diff(*(load_bytes(each.SerializeToString()) for each in (first, second)))]
    assert found[0] == "model.producer_name"
    assert found[1].startswith("model: fields unknown")


def test_nodes_without_names(tmp_path: Path) -> None:
    first, second = mlp(), mlp()
    for made in (first, second):
        for node in made.graph.node:
            node.ClearField("name")
    second.graph.node[1].output[0] = second.graph.node[2].input[0] = "renamed"
    found = differences(write(tmp_path, first, "a.onnx"), write(tmp_path, second, "b.onnx"))
    assert found == [
        "Relu node of ['features'] changed (output 'features' is now 'renamed')",
        "Gemm node of ['logits'] changed (input)",
    ]


def test_external_data(tmp_path: Path) -> None:
    first, second = write_external(tmp_path / "a"), write_external(tmp_path / "b")
    assert differences(first, second) == []
    data = bytearray((second.parent / "external.data").read_bytes())
    data[10] ^= 1
    (second.parent / "external.data").write_bytes(data)
    assert differences(first, second) == ["external data 'external.data' changed (holds 'w1', 'b1')"]


def test_external_reference(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    proto = load(path).proto
    proto.graph.initializer[0].external_data[1].value = "4"
    second = write(tmp_path, proto, "second.onnx")
    assert differences(path, second) == ["initializer 'w1' changed (values)"]


def test_weights_moved_out(tmp_path: Path) -> None:
    first, second = write(tmp_path, base(), "first.onnx"), base()
    target = second.graph.initializer[4]
    (tmp_path / "large.bin").write_bytes(target.raw_data)
    target.ClearField("raw_data")
    target.data_location = TensorProto.EXTERNAL
    target.external_data.add(key="location", value="large.bin")
    there = write(tmp_path, second, "second.onnx")
    held = "1 initializer"
    assert differences(first, there) == [f"external data 'large.bin' added (now holds {held}, values unchanged)"]
    assert differences(there, first) == [
        f"external data 'large.bin' removed (held {held} that the model's file holds now, values unchanged)"
    ]
    data = bytearray((tmp_path / "large.bin").read_bytes())
    data[-1] ^= 1
    (tmp_path / "large.bin").write_bytes(data)
    assert differences(first, there) == ["initializer 'large' changed (values)"]


ALL = [fixture.model.SerializeToString() for fixture in FIXTURES if fixture.model.ByteSize() < 5000]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(ALL), st.sampled_from(ALL))
def test_empty_exactly_for_equal_models(first: bytes, second: bytes) -> None:
    found = diff(load_bytes(first), load_bytes(second))
    assert (not found) == (first == second)
    assert found == diff(load_bytes(first), load_bytes(second)), "in a fixed order"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_change_of_a_byte_goes_unseen(data: st.DataObject) -> None:
    """For the encoding that protobuf writes: whatever byte differs, diff names something."""
    content = bytearray(base().SerializeToString())
    content[data.draw(st.integers(0, len(content) - LARGE - 300))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        second = ModelProto.FromString(bytes(content))
        model = load_bytes(second.SerializeToString())
    except Exception:  # not a model any more
        return
    found = diff(load_bytes(base().SerializeToString()), model)
    assert (not found) == (second.SerializeToString() == base().SerializeToString())
