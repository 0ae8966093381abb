"""The protobuf reader against protobuf itself, and against bytes that are anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from cloakonnx.errors import CloakError, ModelError
from cloakonnx.graph.file import _wire as wire
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.masks.harden import harden_file, hardened, strip_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import entries, masks_of
from cloakonnx.graph.masks.strip import stripped
from cloakonnx.graph.masks.taps import find_tap, list_taps
from tests.fixtures.models import FIXTURES, TAP, mlp, unknown_fields
from tests.graph.helpers import stripped_bytes, weights

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GROUP = b"\x93\x89\x02" + b"\x08\x01" + b"\x0b\x0c" + b"\x12\x02ab" + b"\x15abcd" + b"\x19abcdefgh" + b"\x94\x89\x02"
"""Field 4242 as a group with a field of every kind inside, another group included."""

names = st.text(max_size=8)
tensors = st.builds(
    lambda name, data, dims: TensorProto(name=name, raw_data=data, dims=dims, data_type=1),
    names,
    st.binary(max_size=200),
    st.lists(st.integers(-5, 2**40), max_size=3),
)
nodes = st.builds(
    lambda op, name, inputs, outputs, value: helper.make_node(op, inputs, outputs, name=name, value=value),
    names,
    names,
    st.lists(names, max_size=3),
    st.lists(names, max_size=3),
    st.one_of(st.floats(), st.integers(-(2**62), 2**62), names, tensors),
)
graphs = st.builds(
    lambda nodes, tensors, name: GraphProto(node=nodes, initializer=tensors, name=name),
    st.lists(nodes, max_size=4),
    st.lists(tensors, max_size=4),
    names,
)
models = st.builds(
    lambda graph, ir, text: ModelProto(
        graph=graph, ir_version=ir, doc_string=text, opset_import=[helper.make_opsetid("", 17)]
    ),
    graphs,
    st.integers(1, 2**62),
    names,
)


def use(model: Model) -> None:
    """Everything that is done with a model of unknown origin."""
    entries(model.proto)
    masks_of(model.proto)
    for tap in list_taps(model):
        mask = Mask(tap.name, weights(tap.features or 3), tap.feature_axis)
        stripped_bytes(load_bytes(_in_memory(model, mask)))
        hardened(model, [mask])
    diff(model, model)
    find_tap(model)


def _in_memory(model: Model, mask: Mask) -> bytes:
    return hardened(model, [mask]).proto.SerializeToString()


def refuses_or_works(read: Callable[[], Model]) -> None:
    try:
        use(read())
    except CloakError as error:
        assert "\n" not in str(error), "one line"


@QUICK
@given(models)
def test_records_add_up(model: ModelProto) -> None:
    data = model.SerializeToString()
    records = list(wire.scan(data, 0, len(data)))
    assert b"".join(data[r.start : r.end] for r in records) == data
    assert [r.start for r in records] == [0, *[r.end for r in records]][: len(records)]
    (graph,) = (r for r in records if r.holds(7))
    assert data[graph.payload : graph.end] == model.graph.SerializeToString()
    inner = list(wire.scan(data, graph.payload, graph.end))
    assert [data[r.payload : r.end] for r in inner if r.holds(1)] == [n.SerializeToString() for n in model.graph.node]
    found = [data[r.payload : r.end] for r in inner if r.holds(5)]
    assert found == [t.SerializeToString() for t in model.graph.initializer]
    assert all(wire.is_minimal(r) for r in inner if r.wire_type == wire.LEN)


@QUICK
@given(st.integers(0, 2**64 - 1), st.integers(0, 4))
def test_varints(value: int, padding: int) -> None:
    data = wire.varint(value)
    assert data == TensorProto(dims=[value - 2**64 if value >= 2**63 else value]).SerializeToString()[1:]
    assert wire.read_varint(data, 0, len(data)) == (value, len(data))
    if len(data) + padding <= 9 and padding:
        longer = data[:-1] + bytes([data[-1] | 0x80]) + b"\x80" * (padding - 1) + b"\0"
        assert wire.read_varint(longer, 0, len(longer)) == (value, len(longer))


@QUICK
@given(st.binary(max_size=200))
def test_garbage_is_read_as_protobuf_reads_it(data: bytes) -> None:
    """What protobuf takes, the scanner takes; the scanner does not look inside, so it may take more."""
    try:
        NodeProto.FromString(data)
    except Exception:  # protobuf's DecodeError
        return
    assert [r.end for r in wire.scan(data, 0, len(data))][-1:] == ([len(data)] if data else [])


@QUICK
@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_no_model(tmp_path: Path, data: bytes, likely: bool) -> None:
    content = (b"\x08\x08:" if likely else b"") + data
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    refuses_or_works(lambda: load(path))
    refuses_or_works(lambda: load_bytes(content))


@settings(QUICK, max_examples=250)
@given(st.data())
def test_damaged_models(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of a model changed, dropped and doubled: an error of ours or a model that can be worked with."""
    content = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["set", "flip", "drop", "double", "insert"])):
            case "set":
                content[at] = data.draw(st.integers(0, 255))
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "drop":
                del content[at : at + data.draw(st.integers(1, 20))]
            case "double":
                content[at:at] = content[at : at + data.draw(st.integers(1, 40))]
            case _:
                content[at:at] = data.draw(st.binary(max_size=6))
        if not content:
            return
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    refuses_or_works(lambda: load(path))
    refuses_or_works(lambda: stripped(load(path)))


def _small_models() -> list[bytes]:
    chosen = {
        "mlp",
        "nchw",
        "if_inside_if",
        "ir3_initializers_are_inputs",
        "function_nested",
        "unknown_fields_everywhere",
    }
    found = [fixture.model.SerializeToString() for fixture in FIXTURES if fixture.name in chosen]
    assert len(found) == len(chosen)
    masked = hardened(load_bytes(found[0]), [Mask(TAP, weights(6))]).proto
    return [*found, masked.SerializeToString()]


SMALL = _small_models()


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    data = mlp().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"truncated|not an ONNX model|not a whole ONNX model") as caught:
            load(path)
        assert "model.onnx" in str(caught.value)
        with pytest.raises(ModelError):
            load_bytes(data[:length])


def test_truncated_large_weights_say_so(tmp_path: Path) -> None:
    made = mlp(initializers=[TensorProto(name="large", data_type=2, dims=[100_000], raw_data=bytes(100_000))])
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString()[:50_000])
    with pytest.raises(ModelError, match=r"model\.onnx is truncated: a record at byte \d+ needs \d+ more bytes"):
        load(path)


def _longer(data: bytes, at: int) -> bytes:
    """Write the varint at a position with one byte more than it needs."""
    _, end = wire.read_varint(data, at, len(data))
    return data[: end - 1] + bytes([data[end - 1] | 0x80]) + b"\0" + data[end:]


def _graph_record(data: bytes) -> wire.Record:
    return next(r for r in wire.scan(data, 0, len(data)) if r.holds(7))


def _long_graph_length(made: ModelProto) -> bytes:
    data = made.SerializeToString()
    return _longer(data, _graph_record(data).start + 1)


def _long_graph_tag(made: ModelProto) -> bytes:
    data = made.SerializeToString()
    return _longer(data, _graph_record(data).start)


def _long_node_length(made: ModelProto) -> bytes:
    graph = made.graph.SerializeToString()
    first = next(wire.scan(graph, 0, len(graph)))
    return _around(made, _longer(graph, first.start + 1))


def _long_output_length(made: ModelProto) -> bytes:
    graph = made.graph.SerializeToString()
    nodes = [r for r in wire.scan(graph, 0, len(graph)) if r.holds(1)]
    node = graph[nodes[1].payload : nodes[1].end]
    output = next(r for r in wire.scan(node, 0, len(node)) if r.holds(2))
    changed = wire.record(1, _longer(node, output.start + 1))
    return _around(made, graph[: nodes[1].start] + changed + graph[nodes[1].end :])


def _graph_in_two(made: ModelProto) -> bytes:
    graph = made.graph.SerializeToString()
    cut = [r.end for r in wire.scan(graph, 0, len(graph))][1]
    return _around(made, graph[:cut]) + wire.record(7, graph[cut:])


def _around(made: ModelProto, graph: bytes) -> bytes:
    data = made.SerializeToString()
    record = _graph_record(data)
    return data[: record.start] + wire.record(7, graph) + data[record.end :]


@pytest.mark.parametrize(
    "encode", [_long_graph_length, _long_graph_tag, _long_node_length, _long_output_length, _graph_in_two]
)
def test_encodings_that_can_not_be_given_back(encode: Callable[[ModelProto], bytes], tmp_path: Path) -> None:
    """The model is written in protobuf's own way first; strip gives that, and the metadata says so."""
    made = mlp(initializers=[TensorProto(name="large", data_type=2, dims=[9000], raw_data=bytes(9000))])
    data, canonical = encode(made), made.SerializeToString()
    assert data != canonical
    assert ModelProto.FromString(data) == made
    path, output, back = (tmp_path / name for name in ("model.onnx", "out.onnx", "back.onnx"))
    path.write_bytes(data)
    harden_file(load(path), [Mask(TAP, weights(6))], output)
    model = load(output)
    recorded = entries(model.proto)
    assert recorded["cloakonnx.source_sha256"] == hashlib.sha256(data).hexdigest()
    assert recorded["cloakonnx.stripped_sha256"] == hashlib.sha256(canonical).hexdigest()
    strip_file(model, back)
    assert back.read_bytes() == canonical


def _group_at_the_end(made: ModelProto) -> bytes:
    return made.SerializeToString() + GROUP


def _groups_inside(made: ModelProto) -> bytes:
    made.MergeFromString(GROUP)
    for each in (made.graph, *made.graph.node, *made.graph.initializer):
        each.MergeFromString(GROUP)
    return made.SerializeToString()


def _other_record_types(made: ModelProto) -> bytes:
    """Known numbers with another type of record: unknown fields to protobuf."""
    varints = b"".join(wire.varint(number << 3) + b"\x05" for number in (1, 2, 3, 5, 7, 11, 14))
    for each in (made.graph, *made.graph.node, *made.graph.initializer):
        each.MergeFromString(varints.replace(b"\x18\x05", b"").replace(b"\x08\x05", b"").replace(b"\x10\x05", b""))
    return made.SerializeToString() + b"\x38\x05" + b"\x70\x05"


def _fields_in_reverse(made: ModelProto) -> bytes:
    data = made.SerializeToString()
    return b"".join(data[r.start : r.end] for r in reversed(list(wire.scan(data, 0, len(data)))))


def _long_elsewhere(made: ModelProto) -> bytes:
    return _longer(made.SerializeToString(), 1)


@pytest.mark.parametrize(
    "encode", [_group_at_the_end, _groups_inside, _other_record_types, _fields_in_reverse, _long_elsewhere]
)
def test_odd_encodings_that_are_given_back(encode: Callable[[ModelProto], bytes], tmp_path: Path) -> None:
    data = encode(mlp(value_info=unknown_fields("value_info").graph.value_info))
    path, output, back = (tmp_path / name for name in ("model.onnx", "out.onnx", "back.onnx"))
    path.write_bytes(data)
    harden_file(load(path), [Mask(TAP, weights(6))], output)
    strip_file(load(output), back)
    assert back.read_bytes() == data
    in_memory = hardened(load_bytes(data), [Mask(TAP, weights(6))])
    assert not diff(in_memory, load(output))


@pytest.mark.parametrize(
    ("old", "said"),
    [(b"hidden", "name b'hid"), (b"Relu", "name b'Re"), (b"w1", "name b'")],
)
def test_names_that_are_not_utf_8(old: bytes, said: str) -> None:
    data = mlp().SerializeToString().replace(old, old[:-2] + b"\xff\xfe")
    with pytest.raises(ModelError, match=f"{said}.*is not UTF-8"):
        load_bytes(data)


def test_texts_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    """Doc strings, metadata and symbols in another encoding, as exporters on old systems wrote them."""
    made = mlp(batch="batch")
    made.doc_string = made.graph.node[0].doc_string = "a text"
    made.metadata_props.add(key="a text", value="a text")
    data = made.SerializeToString().replace(b"a text", b"\xc4\xe3\xba\xc3!!").replace(b"batch", b"\xc4\xe3\xba\xc3!")
    path, output, back = (tmp_path / name for name in ("model.onnx", "out.onnx", "back.onnx"))
    path.write_bytes(data)
    assert find_tap(load(path)).shape == (None, 6)
    harden_file(load(path), [Mask(TAP, weights(6))], output)
    strip_file(load(output), back)
    assert back.read_bytes() == data


def test_a_large_file_and_bytes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloakonnx.graph.file._bytes._SMALL", 0)
    monkeypatch.setattr("cloakonnx.graph.file._bytes._WINDOW", 5)
    monkeypatch.setattr("cloakonnx.graph.file._bytes._BLOCK", 7)
    path = tmp_path / "model.onnx"
    data = mlp().SerializeToString()
    path.write_bytes(data)
    model = load(path)
    assert not isinstance(model.buf, bytes)
    assert bytes(model.buf[i] for i in range(len(data))) == data
    assert model.buf[:] == data
    assert model.sha256 == load_bytes(data).sha256 == hashlib.sha256(data).hexdigest()
    assert not diff(model, load_bytes(data))
