"""Reads a model file without trusting it and without bringing its weights into memory."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError

from cloakonnx.errors import ModelError, nearest
from cloakonnx.graph import _wire
from cloakonnx.graph.external import check_references, is_external, locations, reference, tensors
from cloakonnx.graph.shapes import infer

# Field numbers of onnx.proto.
MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
_TENSOR_RAW_DATA, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 9, 13, 14

Span: TypeAlias = tuple[int, int]

_INLINE_LIMIT = 4096
"""Initializers of more bytes than this stay in the file; smaller ones (shapes, axes) are needed to infer shapes."""

_HASH_BLOCK = 1 << 20


@dataclass(frozen=True)
class Model:
    """An ONNX model on disk or in memory.

    Attributes:
        proto: The whole model, except that the raw data of large initializers is a reference (as for external data)
            into the model file itself. Not to be changed: copy it.
        buf: The bytes of the file, mapped read-only.
        path: The file, or None for a model that lives in memory only; then ``proto`` is complete.
        folder: The folder that all references in ``proto`` are relative to.
    """

    proto: onnx.ModelProto
    buf: _wire.Buffer = field(repr=False)
    path: Path | None
    folder: Path | None

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name if self.path else "model"

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file's bytes."""
        digest = hashlib.sha256()
        for start in range(0, len(self.buf), _HASH_BLOCK):
            digest.update(self.buf[start : start + _HASH_BLOCK])
        return digest.hexdigest()

    @property
    def opset(self) -> int:
        """Version of the default operator set; 0 where the model does not import it."""
        return next((o.version for o in self.proto.opset_import if o.domain in {"", "ai.onnx"}), 0)

    @property
    def _own_location(self) -> str | None:
        return self.path.resolve().name if self.path else None

    @cached_property
    def external_files(self) -> list[str]:
        """Locations of the data files beside the model, relative to :attr:`folder`."""
        return [location for location in locations(self.proto) if location != self._own_location]

    def own_data(self, tensor: onnx.TensorProto) -> Span | None:
        """Return where in :attr:`buf` the raw data of a large initializer is, None where ``tensor`` holds its data."""
        if not is_external(tensor):
            return None
        entries = reference(tensor)
        if entries["location"] != self._own_location:
            return None
        return int(entries["offset"]), int(entries["offset"]) + int(entries["length"])

    @cached_property
    def inferred(self) -> onnx.ModelProto:
        """A copy of :attr:`proto` with the shapes and types that inference can tell."""
        return infer(self.proto)

    @cached_property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The graph inputs that a caller has to feed: those that are not initializers as well (IR 3 lists both)."""
        weights = {t.name for t in self.proto.graph.initializer}
        weights |= {t.values.name for t in self.proto.graph.sparse_initializer}
        return [i for i in self.proto.graph.input if i.name not in weights]

    def input(self, name: str | None = None) -> onnx.ValueInfoProto:
        """Return the named data input, or the only one.

        Raises:
            ModelError: no such input, or several and no name.
        """
        return _pick(self.inputs, name, self.name, "input")

    def output(self, name: str | None = None) -> onnx.ValueInfoProto:
        """Return the named output, or the only one.

        Raises:
            ModelError: no such output, or several and no name.
        """
        return _pick(list(self.proto.graph.output), name, self.name, "output")


def _pick(values: Sequence[onnx.ValueInfoProto], name: str | None, model: str, kind: str) -> onnx.ValueInfoProto:
    names = [v.name for v in values]
    if name is not None:
        if name not in names:
            raise ModelError(f"{model} has no {kind} {name!r}; it has {', '.join(names)}{nearest(name, names)}")
        return values[names.index(name)]
    if len(values) != 1:
        said = f"{len(values)} {kind}s ({', '.join(names)})" if names else f"no {kind}"
        raise ModelError(f"{model} has {said}; name one with --{kind}" if names else f"{model} has {said}")
    return values[0]


def load(path: str | Path) -> Model:
    """Read a model file.

    The file is mapped, not read: a model of several GB costs a few kB of memory. External data is checked (it must lie
    inside the model's folder) and left where it is.

    Raises:
        ModelError: no such file, not an ONNX model, truncated, or with unsafe external data.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            buf: _wire.Buffer = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
        raise ModelError(f"no file {path}{nearest(path.name, beside)}") from None
    except ValueError:
        raise ModelError(f"{path} is empty, not an ONNX model") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    model = _decode(buf, path)
    if model.folder is not None:
        check_references(model.proto, model.folder, model_name=model.name)
    return model


def load_bytes(data: bytes, *, folder: Path | None = None) -> Model:
    """Read a model from memory; ``folder`` is where its external data is, if any.

    Raises:
        ModelError: not an ONNX model, or with unsafe external data.
    """
    proto = _parse(data, "model")
    _check_is_model(proto, "model")
    if any(is_external(t) for t in tensors(proto)):
        if folder is None:
            raise ModelError("a model with external data must be loaded from its file")
        check_references(proto, folder, model_name="model")
    return Model(proto=proto, buf=data, path=None, folder=folder)


def _decode(buf: _wire.Buffer, path: Path) -> Model:
    target = path.resolve()
    skeleton = _parse(_skeleton(buf, path, location=target.name), str(path))
    _check_is_model(skeleton, str(path))
    if target == path.absolute() or not any(_points_elsewhere(t, target.name) for t in tensors(skeleton)):
        return Model(proto=skeleton, buf=buf, path=path, folder=target.parent)
    # A link to a file in another folder: its data files are beside the link, its own bytes are not.
    return Model(proto=_parse(buf[:], str(path)), buf=buf, path=path, folder=path.absolute().parent)


def _points_elsewhere(tensor: onnx.TensorProto, own_name: str) -> bool:
    return is_external(tensor) and all(e.value != own_name for e in tensor.external_data if e.key == "location")


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError:
        raise ModelError(f"{name} is not an ONNX model: its protobuf fields do not decode") from None


def _check_is_model(proto: onnx.ModelProto, name: str) -> None:
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(f"{name} is not an ONNX model: it has no IR version or no graph")
    if not proto.opset_import and proto.ir_version >= 3:
        raise ModelError(f"{name} is not a whole ONNX model: it imports no operator set (truncated?)")


def _skeleton(buf: _wire.Buffer, path: Path, *, location: str) -> bytes:
    """Return the model's bytes with the raw data of large initializers replaced by references into the file."""
    try:
        parts: list[bytes] = []
        for rec in _wire.scan(buf, 0, len(buf)):
            if rec.field == MODEL_GRAPH and rec.wire_type == _wire.LEN:
                parts.append(_wire.record(MODEL_GRAPH, _graph_skeleton(buf, rec, location)))
            else:
                parts.append(buf[rec.start : rec.end])
    except _wire.WireError as error:
        if error.truncated and buf[:1] == b"\x08":  # field 1, ir_version: what every ONNX file starts with
            raise ModelError(f"{path} is truncated: {error}") from None
        raise ModelError(f"{path} is not an ONNX model: {error}") from None
    return b"".join(parts)


def _graph_skeleton(buf: _wire.Buffer, graph: _wire.Record, location: str) -> bytes:
    parts: list[bytes] = []
    for rec in _wire.scan(buf, graph.payload, graph.end):
        if rec.field == GRAPH_INITIALIZER and rec.end - rec.payload > _INLINE_LIMIT:
            parts.append(_wire.record(GRAPH_INITIALIZER, _tensor_skeleton(buf, rec, location)))
        else:
            parts.append(buf[rec.start : rec.end])
    return b"".join(parts)


def _tensor_skeleton(buf: _wire.Buffer, tensor: _wire.Record, location: str) -> bytes:
    parts: list[bytes] = []
    for rec in _wire.scan(buf, tensor.payload, tensor.end):
        if rec.field == _TENSOR_RAW_DATA and rec.end - rec.payload > _INLINE_LIMIT:
            parts += _self_reference(location, rec)
        else:
            parts.append(buf[rec.start : rec.end])
    return b"".join(parts)


def _self_reference(location: str, raw: _wire.Record) -> list[bytes]:
    entries = {"location": location, "offset": str(raw.payload), "length": str(raw.end - raw.payload)}
    parts = [
        _wire.record(_TENSOR_EXTERNAL_DATA, _wire.record(1, key.encode()) + _wire.record(2, value.encode()))
        for key, value in entries.items()
    ]
    return [*parts, _wire.varint(_TENSOR_DATA_LOCATION << 3) + _wire.varint(onnx.TensorProto.EXTERNAL)]
