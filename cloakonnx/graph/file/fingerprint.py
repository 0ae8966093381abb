"""A digest for each part of a model: shows later what changed, without the model that it was taken from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from itertools import chain

import onnx
from google.protobuf.message import Message

from cloakonnx.graph.file.content import inlined, is_elsewhere, raw_content
from cloakonnx.graph.file.diff import UNKNOWN, Difference, by_name, node_label, records, relocation
from cloakonnx.graph.file.external import reference
from cloakonnx.graph.file.model import Model

_DIGITS = 16
_SMALL = 1 << 20


def fingerprint(model: Model) -> dict[str, str]:
    """Return the first 16 hex digits of the sha256 of every part of the file, in order, by what the part is.

    Parts are the model's and the graph's fields, metadata entries, nodes and initializers, named as
    :func:`~cloakonnx.graph.file.diff.diff` names them; one that comes again has its number. External data is not read.
    They show what differs between two files. Only the digests of whole files prove that two files are the same.
    """
    found: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for label, digest in _parts(model):
        counts[label] += 1
        found[label if counts[label] == 1 else f"{label} ({counts[label]})"] = digest
    return found


def changes(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[Difference]:
    """Return what differs from one fingerprint to another."""
    listed = [Difference(part, "removed") for part in recorded if part not in found]
    listed += [Difference(part, "changed") for part in recorded if part in found and recorded[part] != found[part]]
    listed += [Difference(part, "added") for part in found if part not in recorded]
    before, after = [p for p in recorded if p in found], [p for p in found if p in recorded]
    if before != after:
        steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        listed += [
            Difference(p, "moved") for tag, a, b, _, _ in steps if tag in {"delete", "replace"} for p in before[a:b]
        ]
    return listed


def changes_of(recorded: Mapping[str, str], model: Model) -> list[Difference]:
    """Return what differs from a recorded fingerprint to a model.

    An initializer that went to a file of external data is read there: it has changed only where its values have.
    """
    found = fingerprint(model)
    relocated: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for tensor in by_name(model.proto.graph).values():
        label = f"initializer {tensor.name!r}"
        counts[label] += 1
        label = label if counts[label] == 1 else f"{label} ({counts[label]})"
        if not is_elsewhere(model, tensor) or recorded.get(label) in {None, found[label]}:
            continue
        if recorded[label] in _digests_inside(model, tensor):
            found[label] = recorded[label]
            relocated[reference(tensor).get("location", "")] += 1
    return [
        *(relocation(location, count, outside=True) for location, count in relocated.items()),
        *changes(recorded, found),
    ]


def _digests_inside(model: Model, tensor: onnx.TensorProto) -> set[str]:
    """Return the digests that a tensor of external data would have in the model's file, as a small and a large one."""
    try:
        data = raw_content(model, tensor)
        rest = inlined(model, tensor, b"")
    except ValueError:
        return set()
    rest.ClearField("raw_data")
    found, size = {_digest(chain([_bytes(rest)], data))}, int(reference(tensor).get("length", "0"))
    if size <= _SMALL:
        found.add(_digest([_bytes(inlined(model, tensor))]))
    return found


def _parts(model: Model) -> Iterator[tuple[str, str]]:
    proto = model.proto
    yield from _fields("model", proto, {"graph", "metadata_props"})
    yield from ((f"metadata {entry.key!r}", _digest([_bytes(entry)])) for entry in proto.metadata_props)
    yield from _fields("graph", proto.graph, {"node", "initializer"})
    yield from ((node_label(node), _digest([_bytes(node)])) for node in proto.graph.node)
    for tensor in by_name(proto.graph).values():
        yield f"initializer {tensor.name!r}", _tensor_digest(model, tensor)


def _fields(part: str, message: Message, skipped: set[str]) -> Iterator[tuple[str, str]]:
    known = message.DESCRIPTOR.fields_by_number
    for number, encoded in records(message).items():
        name = known[number].name if number in known else UNKNOWN
        if name not in skipped:
            yield f"{part}: {UNKNOWN}" if name is UNKNOWN else f"{part}.{name}", _digest(encoded)


def _tensor_digest(model: Model, tensor: onnx.TensorProto) -> str:
    if model.own_data(tensor) is None:
        return _digest([_bytes(tensor)])
    rest = onnx.TensorProto()  # without the offset of the data in the file
    rest.CopyFrom(tensor)
    rest.ClearField("external_data")
    rest.ClearField("data_location")
    return _digest(chain([_bytes(rest)], raw_content(model, tensor)))


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:_DIGITS]
