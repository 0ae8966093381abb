"""A change to a model as a value, and its two executions: on the proto (to run it) and on the bytes (to ship it).

On the bytes only what the edit names is written anew; every other record is copied unchanged, unknown fields and
field order included, so nothing that the edit doesn't name can change and weights are never decoded.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from cloakonnx.files import atomic
from cloakonnx.graph.file import _wire
from cloakonnx.graph.file._bytes import Buffer, blocks
from cloakonnx.graph.file.model import GRAPH_INITIALIZER, GRAPH_NODE, MODEL_GRAPH, MODEL_METADATA, Model, Piece, Span

_NODE_INPUT = 1
_NODE_OUTPUT = 2
_TENSOR_NAME = 8
_ENTRY_KEY = 1


@dataclass(frozen=True)
class Edit:
    """What changes in a model's main graph and metadata; indices are those of the model before the edit.

    Attributes:
        rename: (node index, output index) to the output's new name.
        rename_inputs: (node index, input index) to the name of the tensor that is read there instead.
        insert: Node index to the nodes that go in right after it; -1 for the first place.
        remove_nodes: Indices of nodes that go.
        add_initializers: Tensors that are appended to the initializers.
        remove_initializers: Names of initializers that go.
        replace_nodes: Node index to the node that takes its place.
        replace_initializers: Name to the tensor that takes its place.
        metadata: Entries that are set: in place where the key is there, else appended.
        remove_metadata: Keys of entries that go.
    """

    rename: Mapping[tuple[int, int], str] = field(default_factory=dict)
    rename_inputs: Mapping[tuple[int, int], str] = field(default_factory=dict)
    insert: Mapping[int, tuple[onnx.NodeProto, ...]] = field(default_factory=dict)
    remove_nodes: frozenset[int] = frozenset()
    add_initializers: tuple[onnx.TensorProto, ...] = ()
    remove_initializers: frozenset[str] = frozenset()
    replace_nodes: Mapping[int, onnx.NodeProto] = field(default_factory=dict)
    replace_initializers: Mapping[str, onnx.TensorProto] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    remove_metadata: frozenset[str] = frozenset()


def edit_proto(model: onnx.ModelProto, edit: Edit) -> onnx.ModelProto:
    """Return an edited copy of a model."""
    edited = onnx.ModelProto()
    edited.CopyFrom(model)
    graph = edited.graph
    del graph.node[:]
    graph.node.extend(edit.insert.get(-1, ()))
    for index, node in enumerate(model.graph.node):
        if index not in edit.remove_nodes:
            kept = graph.node.add()
            kept.CopyFrom(edit.replace_nodes.get(index, node))
            for position in range(len(node.output)):
                kept.output[position] = edit.rename.get((index, position), node.output[position])
            for position in range(len(kept.input)):
                kept.input[position] = edit.rename_inputs.get((index, position), kept.input[position])
        graph.node.extend(edit.insert.get(index, ()))
    kept_weights = [
        edit.replace_initializers.get(t.name, t)
        for t in model.graph.initializer
        if t.name not in edit.remove_initializers
    ]
    del graph.initializer[:]
    graph.initializer.extend([*kept_weights, *edit.add_initializers])
    kept_entries = [p for p in model.metadata_props if p.key not in edit.remove_metadata]
    del edited.metadata_props[:]
    for entry in kept_entries:
        edited.metadata_props.add().CopyFrom(entry)
        if entry.key in edit.metadata:
            edited.metadata_props[-1].value = edit.metadata[entry.key]
    known = {p.key for p in kept_entries}
    for key, value in edit.metadata.items():
        if key not in known:
            edited.metadata_props.add(key=key, value=value)
    return edited


def edited(model: Model, edit: Edit) -> Model:
    """Return an edited model in memory, to run or look at; its file's bytes are made when they are asked for."""
    return dataclasses.replace(
        model, proto=edit_proto(model.proto, edit), unwritten=lambda: _pieces_of_own_buffer(model, edit)
    )


def _pieces_of_own_buffer(model: Model, edit: Edit) -> list[Piece]:
    buf = canonical_buffer(model)
    pieces = edit_bytes(buf, edit)
    return pieces if buf is model.buf else [joined(buf, pieces)]


def canonical_buffer(model: Model) -> Buffer:
    """Return the bytes that edits go into: the file's own, or, where those can't be edited reversibly, the proto's."""
    content = model.content
    return content if is_editable(content) else onnx.ModelProto.FromString(content[:]).SerializeToString()


def canonical_sha256(model: Model) -> str:
    """Return the hex digest of :func:`canonical_buffer`."""
    buf = canonical_buffer(model)
    return sha256(buf, [(0, len(buf))])


def is_editable(buf: Buffer) -> bool:
    """Whether an edit of the bytes can be undone to the byte: one graph, and no length longer than needed."""
    graphs = [rec for rec in _wire.scan(buf, 0, len(buf)) if rec.holds(MODEL_GRAPH)]
    if len(graphs) != 1 or not _wire.is_minimal(graphs[0]):
        return False
    nodes = (rec for rec in _wire.scan(buf, graphs[0].payload, graphs[0].end) if rec.holds(GRAPH_NODE))
    return all(_wire.is_minimal(rec) and _names_minimal(buf, rec) for rec in nodes)


def _names_minimal(buf: Buffer, node: _wire.Record) -> bool:
    records = _wire.scan(buf, node.payload, node.end)
    return all(_wire.is_minimal(rec) for rec in records if rec.holds(_NODE_OUTPUT) or rec.holds(_NODE_INPUT))


def edit_bytes(buf: Buffer, edit: Edit) -> list[Piece]:
    """Return the edited file as a list of pieces, in order; ``buf`` must be editable (see :func:`is_editable`)."""
    records = list(_wire.scan(buf, 0, len(buf)))
    pieces: list[Piece] = []
    for rec in _with_metadata(buf, records, edit):
        if isinstance(rec, bytes):
            pieces.append(rec)
        elif rec.holds(MODEL_GRAPH):
            graph = list(_merged(_graph_pieces(buf, rec, edit)))
            pieces += [_wire.header(MODEL_GRAPH, size(graph)), *graph]
        else:
            pieces.append((rec.start, rec.end))
    return list(_merged(pieces))


def size(pieces: Iterable[Piece]) -> int:
    """Return how many bytes the pieces make."""
    return sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces)


def joined(buf: Buffer, pieces: Iterable[Piece]) -> bytes:
    """Return the edited file in memory."""
    return b"".join(p if isinstance(p, bytes) else buf[p[0] : p[1]] for p in pieces)


def sha256(buf: Buffer, pieces: Iterable[Piece]) -> str:
    """Return the hex digest of the edited file."""
    digest = hashlib.sha256()
    for piece in pieces:
        for block in [piece] if isinstance(piece, bytes) else blocks(buf, *piece):
            digest.update(block)
    return digest.hexdigest()


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join ranges that touch, so that a large file is copied in a few long stretches."""
    held: Span | None = None
    for piece in pieces:
        if held is not None and not isinstance(piece, bytes) and piece[0] == held[1]:
            held = (held[0], piece[1])
            continue
        if held is not None:
            yield held
        held = None if isinstance(piece, bytes) else piece
        if isinstance(piece, bytes):
            yield piece
    if held is not None:
        yield held


def _graph_pieces(buf: Buffer, graph: _wire.Record, edit: Edit) -> Iterator[Piece]:
    index = -1
    records = list(_wire.scan(buf, graph.payload, graph.end))
    added = [_wire.record(GRAPH_INITIALIZER, t.SerializeToString()) for t in edit.add_initializers]
    place = _place_after(records, GRAPH_INITIALIZER)
    outputs, inputs = _by_node(edit.rename), _by_node(edit.rename_inputs)
    for position, rec in enumerate(records):
        if position == place:
            yield from added
        if rec.holds(GRAPH_NODE):
            if index < 0:
                yield from (_wire.record(GRAPH_NODE, n.SerializeToString()) for n in edit.insert.get(-1, ()))
            index += 1
            if index in edit.replace_nodes:
                yield _wire.record(GRAPH_NODE, edit.replace_nodes[index].SerializeToString())
            elif index not in edit.remove_nodes:
                renamed = {_NODE_INPUT: inputs.get(index, {}), _NODE_OUTPUT: outputs.get(index, {})}
                yield from _node_pieces(buf, rec, renamed)
            for node in edit.insert.get(index, ()):
                yield _wire.record(GRAPH_NODE, node.SerializeToString())
        elif rec.holds(GRAPH_INITIALIZER) and (edit.remove_initializers or edit.replace_initializers):
            name = _string(buf, rec, _TENSOR_NAME)
            if name in edit.replace_initializers:
                content = edit.replace_initializers[name].SerializeToString()
                yield _wire.header(GRAPH_INITIALIZER, len(content))
                yield content  # apart, for it may be large
            elif name not in edit.remove_initializers:
                yield (rec.start, rec.end)
        else:
            yield (rec.start, rec.end)
    if place == len(records):
        yield from added


def _by_node(renamed: Mapping[tuple[int, int], str]) -> dict[int, dict[int, str]]:
    found: dict[int, dict[int, str]] = {}
    for (index, position), name in renamed.items():
        found.setdefault(index, {})[position] = name
    return found


def _node_pieces(buf: Buffer, node: _wire.Record, renamed: Mapping[int, Mapping[int, str]]) -> Iterator[Piece]:
    """A node, its inputs and outputs at some positions renamed, by the number of their field."""
    if not any(renamed.values()):
        yield (node.start, node.end)
        return
    parts: list[bytes] = []
    seen = dict.fromkeys(renamed, -1)
    for rec in _wire.scan(buf, node.payload, node.end):
        field_number = next((number for number in renamed if rec.holds(number)), None)
        if field_number is not None:
            seen[field_number] += 1
            name = renamed[field_number].get(seen[field_number])
            if name is not None:
                parts.append(_wire.record(field_number, name.encode()))
                continue
        parts.append(buf[rec.start : rec.end])
    yield _wire.record(GRAPH_NODE, b"".join(parts))


def _with_metadata(buf: Buffer, records: list[_wire.Record], edit: Edit) -> Iterator[_wire.Record | bytes]:
    """The model's records with the metadata entries replaced, removed and appended."""
    keys = {i: _string(buf, r, _ENTRY_KEY) for i, r in enumerate(records) if r.holds(MODEL_METADATA)}
    added = [_entry(key, value) for key, value in edit.metadata.items() if key not in keys.values()]
    place = _place_after(records, MODEL_METADATA)
    for position, rec in enumerate(records):
        if position == place:
            yield from added
        key = keys.get(position)
        if key is not None and key in edit.metadata:
            yield _entry(key, edit.metadata[key])
        elif key is None or key not in edit.remove_metadata:
            yield rec
    if place == len(records):
        yield from added


def _place_after(records: list[_wire.Record], field_number: int) -> int:
    """Where a record of a field goes in: after the last of its kind, else before the first of a higher field."""
    same = [i for i, rec in enumerate(records) if rec.holds(field_number)]
    if same:
        return same[-1] + 1
    return next((i for i, rec in enumerate(records) if rec.field > field_number), len(records))


def _entry(key: str, value: str) -> bytes:
    return _wire.record(MODEL_METADATA, onnx.StringStringEntryProto(key=key, value=value).SerializeToString())


def _string(buf: Buffer, message: _wire.Record, field_number: int) -> str:
    """Return the value of a string field of a message; the last one counts, as protobuf has it."""
    found = ""
    for rec in _wire.scan(buf, message.payload, message.end):
        if rec.holds(field_number):
            found = bytes(buf[rec.payload : rec.end]).decode("utf-8", "replace")
    return found


def write_pieces(path: Path, model: Model, buf: Buffer, pieces: Sequence[Piece]) -> None:
    """Write an edited model atomically.

    Args:
        path: The output.
        model: What it was made from.
        buf: The bytes that the pieces are ranges of.
        pieces: What is written, in order.

    Raises:
        ModelError: a file that the model was read from has changed meanwhile.
        OutputError: a write fails.
    """
    with atomic(path) as stream:
        for piece in pieces:
            for block in [piece] if isinstance(piece, bytes) else blocks(buf, *piece):
                stream.write(block)
        model.check_unchanged()
