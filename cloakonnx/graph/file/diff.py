"""Says exactly what differs between two models, part by part and down to the weights' bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import Message

from cloakonnx.graph.file import _wire
from cloakonnx.graph.file._details import detail
from cloakonnx.graph.file.content import PLACE, TYPED, is_elsewhere, raw_content
from cloakonnx.graph.file.external import is_external, reference, tensors
from cloakonnx.graph.file.model import Model

UNKNOWN = "unknown fields"
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


def _fields(
    part: str, first: onnx.ModelProto | onnx.GraphProto, second: onnx.ModelProto | onnx.GraphProto, skipped: set[str]
) -> Iterator[Difference]:
    """Compare every field but some, and what is unknown to this version of the format."""
    before, after = records(first), records(second)
    numbers = {known.name: number for number, known in first.DESCRIPTOR.fields_by_number.items()}
    for name in _changed_fields(first, second, skipped):
        if name == UNKNOWN:
            yield Difference(f"{part}: fields unknown to onnx {onnx.__version__}", "changed")
        elif numbers[name] not in before:
            yield Difference(f"{part}.{name}", "added")
        elif numbers[name] not in after:
            yield Difference(f"{part}.{name}", "removed")
        else:
            yield Difference(f"{part}.{name}", "changed", detail(name, first, second))


def _changed_fields(first: Message, second: Message, skipped: frozenset[str] | set[str] = frozenset()) -> list[str]:
    """Return the names of the fields that differ, what is unknown last."""
    before, after = records(first), records(second)
    numbers = first.DESCRIPTOR.fields_by_number
    changed = [number for number in {**before, **after} if before.get(number) != after.get(number)]
    names = [field.name for number, field in numbers.items() if number in changed and field.name not in skipped]
    return names + ([UNKNOWN] if any(number not in numbers for number in changed) else [])


def records(message: Message) -> dict[int, list[bytes]]:
    """Return a message's encoded fields by number; protobuf's own reflection would decode, and fail on odd texts."""
    data = _bytes(message)
    found: dict[int, list[bytes]] = {}
    for rec in _wire.scan(data, 0, len(data)):
        found.setdefault(rec.field, []).append(data[rec.start : rec.end])
    return found


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _entries(
    part: str, first: Iterable[onnx.StringStringEntryProto], second: Iterable[onnx.StringStringEntryProto]
) -> Iterator[Difference]:
    before, after = [(e.key, _bytes(e)) for e in first], [(e.key, _bytes(e)) for e in second]
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
            yield Difference(node_label(node), "moved", f"from position {index} to {moved}")
        elif same is not None:
            added.remove(same)
            yield Difference(node_label(node), "changed", _what_changed(node, second[same]))
        else:
            yield Difference(node_label(node), "removed")
    for index in added:
        yield Difference(node_label(second[index]), "added")


def _identity(node: onnx.NodeProto) -> set[tuple[str, str, str]]:
    """What makes a node the same one after a change: its type and name, or type and inputs where it has no name."""
    if node.name:
        return {(node.op_type, "name", node.name)}
    return {(node.op_type, "inputs", "\0".join(node.input)), (node.op_type, "outputs", "\0".join(node.output))}


def node_label(node: onnx.NodeProto) -> str:
    """Name a node for a reader: by its name, or by its outputs."""
    return f"{node.op_type} node {node.name!r}" if node.name else f"{node.op_type} node of {list(node.output)}"


def _what_changed(first: onnx.NodeProto, second: onnx.NodeProto) -> str:
    names = _changed_fields(first, second)
    if names == ["output"]:
        renamed = [f"{a!r} is now {b!r}" for a, b in zip(first.output, second.output, strict=False) if a != b]
        return "output " + ", ".join(renamed)
    return ", ".join(names)


def _initializers(first: Model, second: Model) -> Iterator[Difference]:
    before, after = by_name(first.proto.graph), by_name(second.proto.graph)
    relocated: Counter[tuple[str, bool]] = Counter()
    for key, tensor in before.items():
        if key not in after:
            yield Difference(f"initializer {tensor.name!r}", "removed")
        elif (what := _tensor_change(first, tensor, second, after[key])) is not None:
            yield Difference(f"initializer {tensor.name!r}", "changed", what)
        elif (place := _new_place(first, tensor, second, after[key])) is not None:
            relocated[place] += 1
    yield from (relocation(location, count, outside=outside) for (location, outside), count in relocated.items())
    for key, tensor in after.items():
        if key not in before:
            yield Difference(f"initializer {tensor.name!r}", "added")
    if [key for key in before if key in after] != [key for key in after if key in before]:
        yield Difference("initializers", "moved", "their order")


def by_name(graph: onnx.GraphProto) -> dict[tuple[str, int], onnx.TensorProto]:
    """Return the initializers by name and, where a name comes more than once, by which of them it is."""
    counts: Counter[str] = Counter()
    found = {}
    for tensor in graph.initializer:
        found[tensor.name, counts[tensor.name]] = tensor
        counts[tensor.name] += 1
    return found


def _tensor_change(first: Model, a: onnx.TensorProto, second: Model, b: onnx.TensorProto) -> str | None:
    if not is_external(a) and not is_external(b):
        return ", ".join(_changed_fields(a, b)) or None
    outside = is_elsewhere(first, a), is_elsewhere(second, b)
    if all(outside) and reference(a) == reference(b):  # the files' content is compared as a whole
        return ", ".join(_changed_fields(a, b, PLACE)) or None
    try:
        if any(x != y for x, y in zip_longest(raw_content(first, a), raw_content(second, b))):
            return "values"
    except ValueError as error:
        return f"values: {error}"
    return ", ".join(_changed_fields(a, b, PLACE if not any(outside) else PLACE | TYPED)) or None


def _new_place(first: Model, a: onnx.TensorProto, second: Model, b: onnx.TensorProto) -> tuple[str, bool] | None:
    """Return the file of external data that an initializer went to, or came from, and whether it went there."""
    outside = is_elsewhere(first, a), is_elsewhere(second, b)
    if not any(outside) or (all(outside) and reference(a) == reference(b)):
        return None
    return reference(b if outside[1] else a).get("location", ""), outside[1]


def relocation(location: str, count: int, *, outside: bool) -> Difference:
    """Return that initializers went to a file of external data, or came from it, with the values they had."""
    many = f"{count} initializer{'s' if count > 1 else ''}"
    said = f"now holds {many}" if outside else f"held {many} that the model's file holds now"
    return Difference(f"external data {location!r}", "added" if outside else "removed", f"{said}, values unchanged")


def _external_files(first: Model, second: Model) -> Iterator[Difference]:
    if first.folder is None or second.folder is None or first.folder.resolve() == second.folder.resolve():
        return
    for location in first.external_files:
        files = first.folder / location, second.folder / location
        if all(file.is_file() for file in files) and file_sha256(files[0]) != file_sha256(files[1]):
            yield Difference(f"external data {location!r}", "changed", _users(first, location))


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file, read block by block."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def external_digests(model: Model) -> dict[str, str]:
    """Return the hex digest of each file of external data, by location; none for a model that is in memory."""
    folder = model.folder
    return {} if folder is None else {location: file_sha256(folder / location) for location in model.external_files}


def _users(model: Model, location: str) -> str:
    names = [t.name for t in tensors(model.proto) if is_external(t) and reference(t).get("location") == location]
    return "holds " + ", ".join(repr(n) for n in names[:3]) + (" and others" if len(names) > 3 else "")
