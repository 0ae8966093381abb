"""Says exactly what differs between two models, part by part and down to the weights' bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import Message

from cloakonnx.graph.external import is_external, reference, tensors
from cloakonnx.graph.load import Model

Change = Literal["added", "removed", "changed", "moved"]


@dataclass(frozen=True)
class Difference:
    """One difference from the first model to the second.

    Attributes:
        part: What it concerns: ``node 'conv1'``, ``initializer 'w'``, ``metadata 'author'``, ``opset_import``, ...
        change: Whether the part was added, removed, changed or moved.
        detail: More, for a reader.
    """

    part: str
    change: Change
    detail: str = ""

    def __str__(self) -> str:
        """Return the difference as one phrase."""
        return f"{self.part} {self.change}" + (f" ({self.detail})" if self.detail else "")


def diff(first: Model, second: Model) -> list[Difference]:
    """Return what differs from the first model to the second, in a fixed order; nothing for equal models.

    Models that differ in nothing serialise to the same bytes. The content of external files is compared too.
    """
    found = list(_fields("model", first.proto, second.proto, {"graph", "metadata_props"}))
    found += _entries("metadata", first.proto.metadata_props, second.proto.metadata_props)
    graphs = first.proto.graph, second.proto.graph
    found += _fields("graph", *graphs, {"node", "initializer"})
    found += _nodes(list(graphs[0].node), list(graphs[1].node))
    found += _initializers(first, second)
    found += _external_files(first, second)
    return found


def _fields(part: str, first: Message, second: Message, skipped: set[str]) -> Iterator[Difference]:
    """Compare every field but some, and what is unknown to this version of the format."""
    rests = []
    for message in (first, second):
        rest = type(message)()
        rest.CopyFrom(message)
        for name in skipped:
            rest.ClearField(name)
        rests.append(rest)
    if _bytes(rests[0]) == _bytes(rests[1]):
        return
    named = False
    for descriptor in first.DESCRIPTOR.fields:
        parts = []
        for rest in rests:
            only = type(rest)()
            for field, value in rest.ListFields():
                if field.name == descriptor.name:
                    only.MergeFrom(type(rest)(**{field.name: value}))
            parts.append(only)
        if _bytes(parts[0]) != _bytes(parts[1]):
            named = True
            yield Difference(f"{part}.{descriptor.name}", "changed")
    if not named:
        yield Difference(f"{part}: fields unknown to onnx {onnx.__version__}", "changed")


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _entries(
    part: str, first: Iterable[onnx.StringStringEntryProto], second: Iterable[onnx.StringStringEntryProto]
) -> Iterator[Difference]:
    before, after = [(e.key, e.value) for e in first], [(e.key, e.value) for e in second]
    if before == after:
        return
    old, new = dict(before), dict(after)
    for key in dict.fromkeys([*old, *new]):
        if key not in new:
            yield Difference(f"{part} {key!r}", "removed")
        elif key not in old:
            yield Difference(f"{part} {key!r}", "added")
        elif old[key] != new[key]:
            yield Difference(f"{part} {key!r}", "changed")
    if old == new:
        yield Difference(part, "moved", "order or repetition of the entries")


def _nodes(first: list[onnx.NodeProto], second: list[onnx.NodeProto]) -> Iterator[Difference]:
    before, after = [_bytes(n) for n in first], [_bytes(n) for n in second]
    if before == after:
        return
    removed: list[int] = []
    added: list[int] = []
    for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            removed += range(a, b)
            added += range(c, d)
    for index in removed:
        node = first[index]
        moved = next((j for j in added if after[j] == before[index]), None)
        same = next((j for j in added if _identity(second[j]) & _identity(node)), None)
        if moved is not None:
            added.remove(moved)
            yield Difference(_label(node), "moved", f"from position {index} to {moved}")
        elif same is not None:
            added.remove(same)
            yield Difference(_label(node), "changed", _what_changed(node, second[same]))
        else:
            yield Difference(_label(node), "removed")
    for index in added:
        yield Difference(_label(second[index]), "added")


def _identity(node: onnx.NodeProto) -> set[tuple[str, str, str]]:
    """What makes a node the same one after a change: its type and name, or type and inputs where it has no name."""
    if node.name:
        return {(node.op_type, "name", node.name)}
    return {(node.op_type, "inputs", "\0".join(node.input)), (node.op_type, "outputs", "\0".join(node.output))}


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} node {node.name!r}" if node.name else f"{node.op_type} node of {list(node.output)}"


def _what_changed(first: onnx.NodeProto, second: onnx.NodeProto) -> str:
    names = [str(d).partition(".")[2].removesuffix(" changed") for d in _fields("node", first, second, set())]
    if names == ["output"]:
        renamed = [f"{a!r} is now {b!r}" for a, b in zip(first.output, second.output, strict=False) if a != b]
        return "output " + ", ".join(renamed)
    return ", ".join(name or "unknown fields" for name in names)


def _initializers(first: Model, second: Model) -> Iterator[Difference]:
    before = {t.name: t for t in first.proto.graph.initializer}
    after = {t.name: t for t in second.proto.graph.initializer}
    for name, tensor in before.items():
        if name not in after:
            yield Difference(f"initializer {name!r}", "removed")
        elif (what := _tensor_change(first, tensor, second, after[name])) is not None:
            yield Difference(f"initializer {name!r}", "changed", what)
    for name in after:
        if name not in before:
            yield Difference(f"initializer {name!r}", "added")
    common = [name for name in before if name in after]
    if common != [name for name in after if name in before]:
        yield Difference("initializers", "moved", "their order")


def _tensor_change(first: Model, a: onnx.TensorProto, second: Model, b: onnx.TensorProto) -> str | None:
    span_a, span_b = first.own_data(a), second.own_data(b)
    if (span_a is None) != (span_b is None):
        return "values"
    if span_a is None or span_b is None:
        return ", ".join(d.part.partition(".")[2] for d in _fields("tensor", a, b, set())) or None
    with memoryview(first.buf) as x, memoryview(second.buf) as y:
        if x[slice(*span_a)] != y[slice(*span_b)]:
            return "values"
    reference_fields = {"external_data", "data_location"}
    return ", ".join(d.part.partition(".")[2] for d in _fields("tensor", a, b, reference_fields)) or None


def _external_files(first: Model, second: Model) -> Iterator[Difference]:
    if first.folder is None or second.folder is None or first.folder.resolve() == second.folder.resolve():
        return
    for location in first.external_files:
        files = first.folder / location, second.folder / location
        if files[1].is_file() and file_sha256(files[0]) != file_sha256(files[1]):
            yield Difference(f"external data {location!r}", "changed", _users(first, location))


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file, read block by block."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _users(model: Model, location: str) -> str:
    names = [t.name for t in tensors(model.proto) if is_external(t) and reference(t).get("location") == location]
    return "holds " + ", ".join(repr(n) for n in names[:3]) + (" and others" if len(names) > 3 else "")
