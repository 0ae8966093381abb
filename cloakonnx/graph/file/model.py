"""Reads a model file without trusting it and without bringing its weights into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TypeAlias, TypeVar

import onnx
from google.protobuf.message import DecodeError

from cloakonnx import remote
from cloakonnx.errors import ModelError, nearest
from cloakonnx.graph.file import _wire
from cloakonnx.graph.file._bytes import Buffer as Buffer  # noqa: PLC0414 - public
from cloakonnx.graph.file._bytes import Stamp as Stamp  # noqa: PLC0414 - public
from cloakonnx.graph.file._bytes import blocks, opened
from cloakonnx.graph.file.external import check_references, is_external, locations, reference, tensors
from cloakonnx.graph.file.views import Shown
from cloakonnx.graph.index.bounds import check_bounds, check_shapes
from cloakonnx.graph.index.index import Index, structure
from cloakonnx.graph.index.normal import in_order_of, normalised, opset_version
from cloakonnx.graph.index.outputs import score_info, taken
from cloakonnx.graph.index.shapes import infer
from cloakonnx.kinds import check_regular, kind_of
from cloakonnx.urls import name_of

# Field numbers of onnx.proto.
MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
_TENSOR_RAW_DATA, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 9, 13, 14

Span: TypeAlias = tuple[int, int]
Piece: TypeAlias = bytes | Span
"""A part of an edited file: new bytes, or a range of the source's bytes that is copied as it is."""
_T = TypeVar("_T")

_INLINE_LIMIT = 4096
"""Initializers of more bytes than this stay in the file; smaller ones (shapes, axes) are needed to infer shapes."""


@dataclass(frozen=True, repr=False)
class Model(Shown):
    """An ONNX model on disk or in memory.

    Attributes:
        proto: The whole model, except that the raw data of large initializers is a reference (as for external data)
            into the model file itself. Not to be changed: copy it.
        buf: The bytes of the file; those of a large one are read when they are asked for.
        path: The file, or None for a model that lives in memory only; then ``proto`` is complete.
        folder: The folder that all references in ``proto`` are relative to.
        unwritten: For a model that was edited in memory, what gives its file in terms of ``buf``; else None.
        label: Name of a model that has no file.
        seen: Every file that it is read from, as it was when the model was loaded.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.load("samples/digits_cnn.onnx").opset
        17
    """

    proto: onnx.ModelProto
    buf: Buffer = field(repr=False)
    path: Path | None
    folder: Path | None
    unwritten: Callable[[], Sequence[Piece]] | None = field(default=None, repr=False)
    label: str = "model"
    seen: Mapping[Path, Stamp] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The file's name, for messages and records; the address of one that was fetched."""
        return name_of(self.path) if self.path else self.label

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file's bytes; of a model edited in memory, of those that writing it would give."""
        digest = hashlib.sha256()
        for piece in [(0, len(self.buf))] if self.unwritten is None else self.unwritten():
            if isinstance(piece, bytes):
                digest.update(piece)
                continue
            for block in blocks(self.buf, *piece):
                digest.update(block)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Check that no file was replaced, truncated or changed since it was read; called before results are written.

        Raises:
            ModelError: one was.
        """
        for path, stamp in self.seen.items():
            if not stamp.fits(path):
                raise ModelError(f"{path} was replaced or changed while it was read; nothing was written: run it again")

    @property
    def content(self) -> Buffer:
        """The file's bytes; those of a model edited in memory are put together anew."""
        if self.unwritten is None:
            return self.buf
        return b"".join(p if isinstance(p, bytes) else self.buf[slice(*p)] for p in self.unwritten())

    @property
    def opset(self) -> int:
        """Version of the default operator set; 0 where the model does not import it."""
        return opset_version(self.proto.opset_import)

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
        """A copy of :attr:`proto` with the shapes and types that inference can tell.

        Raises:
            ModelError: a shape is above the limits.
        """
        try:
            found = in_order_of(infer(normalised(self.proto)), self.proto.graph.node)
            check_shapes(found, len(self.buf) + self.external_bytes)
        except ModelError as error:
            raise ModelError(f"{self.name}: {error}") from None
        return found

    @property
    def external_bytes(self) -> int:
        """How many bytes the data files beside the model have."""
        folder = self.folder
        return 0 if folder is None else sum((folder / each).stat().st_size for each in self.external_files)

    @cached_property
    def structure(self) -> Index:
        """Who makes and who reads each tensor of :attr:`inferred`'s main graph."""
        return structure(self.inferred)

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
        """Return the named output, or the one that holds the class scores (:func:`outputs.taken`).

        Raises:
            ModelError: no such output, or several that may hold class scores and no name.
        """
        declared = list(self.proto.graph.output)
        if len(declared) == 1 and declared[0].type.HasField("tensor_type"):
            return _pick(declared, name, self.name, "output")
        found = taken(self.structure, name)
        if found is None or any(value.name == found for value in declared):
            return _pick(declared, found or name, self.name, "output")
        return score_info(self.structure, found)


def _pick(values: Sequence[onnx.ValueInfoProto], name: str | None, model: str, kind: str) -> onnx.ValueInfoProto:
    names = [v.name for v in values]
    if name is not None and name not in names:
        raise ModelError(f"{model} has no {kind} {name!r}; it has {', '.join(names)}{nearest(name, names)}")
    if name is not None or len(values) == 1:
        return values[0 if name is None else names.index(name)]
    said = f"{len(values)} {kind}s ({', '.join(names)})" if names else f"no {kind}"
    option, more = f"{kind}_name", ", which takes the samples; others that the scores need must be constants"
    one = f"; name one with {{{option}}}{more * (kind == 'input')}" * bool(names)
    raise ModelError(f"{model} has {said}{one}", parameter=option)


def load(path: str | PathLike[str]) -> Model:
    """Read a model file.

    A large file is read where it is needed: a model of several GB costs a few kB of memory. External data is checked
    (it must lie inside the model's folder) and left where it is.

    Raises:
        ModelError: no such file, not an ONNX model, truncated, or with unsafe external data.

    Examples:
        >>> import cloakonnx as ck
        >>> [value.name for value in ck.load("samples/digits_cnn.onnx").inputs]
        ['image']
    """
    path = remote.fetched(path)
    check_regular(path, ModelError)
    folder = kind_of(path) if path.is_dir() else None
    if folder is not None:
        raise ModelError(f"{path} is not an ONNX model: it is {folder}")
    try:
        buf, stamp = opened(path)
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
        raise ModelError(f"no file {path}{nearest(path.name, beside)}") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    if not len(buf):
        raise ModelError(f"{path} is empty, not an ONNX model")
    try:
        model = replace(_decode(buf, path), seen=(seen := {path.absolute(): stamp}))
    except ModelError:
        kind = kind_of(path)
        if kind is None:
            raise
        raise ModelError(f"{path} is not an ONNX model: it is {kind}") from None
    check_bounds(model.proto, model.name)
    if model.folder is not None:
        seen |= check_references(model.proto, model.folder, model_name=model.name)
        if any((model.folder / location).samefile(path) for location in model.external_files):
            raise _refers_to_itself(path)
    return model


def load_bytes(data: bytes, *, folder: Path | None = None, name: str = "model") -> Model:
    """Read a model from memory; ``folder`` is where its external data is, if any, ``name`` what messages call it.

    Raises:
        ModelError: not an ONNX model, or with unsafe external data.
    """
    proto = _parse(data, name)
    _check_is_model(proto, name)
    _scanned(lambda: list(_wire.scan(data, 0, len(data))), data, name)
    check_bounds(proto, name)
    seen: Mapping[Path, Stamp] = {}
    if any(is_external(t) for t in tensors(proto)):
        if folder is None:
            raise ModelError("a model with external data must be loaded from its file")
        seen = check_references(proto, folder, model_name=name)
    return Model(proto=proto, buf=data, path=None, folder=folder, label=name, seen=seen)


def _decode(buf: Buffer, path: Path) -> Model:
    target = path.resolve()
    if not _is_utf8(target.name):  # a tensor can't refer to such a file, so it keeps its data
        proto = _parse(buf[:], str(path))
        _check_is_model(proto, str(path))
        return Model(proto=proto, buf=buf, path=path, folder=path.absolute().parent)
    parts = _scanned(lambda: _skeleton(buf, target.name), buf, str(path))
    skeleton = _parse(b"".join(parts.pieces), str(path))
    _check_is_model(skeleton, str(path))
    used = [reference(t).get("location") for t in tensors(skeleton) if is_external(t)]
    if used.count(target.name) != parts.references:
        raise _refers_to_itself(path)
    beside = path.absolute().parent
    if len(used) == parts.references or beside.resolve() == target.parent:
        return Model(proto=skeleton, buf=buf, path=path, folder=target.parent)
    # A link to a file in another folder: its data files are beside the link, its own bytes are not.
    return Model(proto=_parse(buf[:], str(path)), buf=buf, path=path, folder=beside)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refers_to_itself(path: Path) -> ModelError:
    return ModelError(f"{path} refers to itself as external data; save the model with that data inline")


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError:
        raise ModelError(
            f"{name} is not an ONNX model: its protobuf fields do not decode (damaged, or nested too deep)"
        ) from None


def _check_is_model(proto: onnx.ModelProto, name: str) -> None:
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(f"{name} is not an ONNX model: it has no IR version or no graph")
    if not proto.opset_import and proto.ir_version >= 3:
        raise ModelError(f"{name} is not a whole ONNX model: it imports no operator set (truncated?)")
    odd = next((text for text in _names(proto) if not isinstance(text, str)), None)
    if odd is not None:  # protobuf gives such a string as bytes
        raise ModelError(f"{name} is not an ONNX model: the name {odd!r} is not UTF-8")


def _names(proto: onnx.ModelProto) -> Iterator[str | bytes]:
    """Yield every name that connects the graphs; other texts, such as doc strings, may hold anything."""
    functions = [(f.node, (f.name, f.domain, *f.input, *f.output)) for f in proto.functions]
    graphs = [proto.graph, *(g for info in proto.training_info for g in (info.initialization, info.algorithm))]
    for nodes, names in functions:
        yield from names
        for node in nodes:
            yield from _node_names(node)
    for graph in graphs:
        yield from _graph_names(graph)
    yield from (o.domain for o in proto.opset_import)


def _graph_names(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    yield graph.name
    yield from (value.name for value in (*graph.input, *graph.output, *graph.value_info))
    yield from (t.name for t in graph.initializer)
    yield from (t.values.name for t in graph.sparse_initializer)
    for node in graph.node:
        yield from _node_names(node)


def _node_names(node: onnx.NodeProto) -> Iterator[str | bytes]:
    yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    for attribute in node.attribute:
        yield attribute.name
        if attribute.HasField("g"):
            yield from _graph_names(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_names(graph)


@dataclass
class _Skeleton:
    """A model's bytes with the raw data of large initializers replaced by references into the file."""

    pieces: list[bytes] = field(default_factory=list)
    references: int = 0


def _scanned(read: Callable[[], _T], buf: Buffer, name: str) -> _T:
    """Read records; bytes that are none are an error of the model."""
    try:
        return read()
    except _wire.WireError as error:
        if error.truncated and buf[:1] == b"\x08":  # field 1, ir_version: what every ONNX file starts with
            raise ModelError(f"{name} is truncated: {error}") from None
        raise ModelError(f"{name} is not an ONNX model: {error}") from None


def _skeleton(buf: Buffer, location: str) -> _Skeleton:
    """Return the model's skeleton; ``location`` is the file's own name."""
    made = _Skeleton()
    for rec in _wire.scan(buf, 0, len(buf)):
        if rec.holds(MODEL_GRAPH):
            graph = _graph_skeleton(buf, rec, location)
            made.pieces.append(_wire.record(MODEL_GRAPH, b"".join(graph.pieces)))
            made.references += graph.references
        else:
            made.pieces.append(buf[rec.start : rec.end])
    return made


def _graph_skeleton(buf: Buffer, graph: _wire.Record, location: str) -> _Skeleton:
    made = _Skeleton()
    for rec in _wire.scan(buf, graph.payload, graph.end):
        large = rec.holds(GRAPH_INITIALIZER) and rec.end - rec.payload > _INLINE_LIMIT
        tensor = _tensor_skeleton(buf, rec, location) if large else None
        made.references += tensor is not None
        made.pieces.append(buf[rec.start : rec.end] if tensor is None else _wire.record(GRAPH_INITIALIZER, tensor))
    return made


def _tensor_skeleton(buf: Buffer, tensor: _wire.Record, location: str) -> bytes | None:
    """Return a tensor with its raw data replaced, None where that is small or the tensor says that it is elsewhere."""
    records = list(_wire.scan(buf, tensor.payload, tensor.end))
    raw = [rec for rec in records if rec.holds(_TENSOR_RAW_DATA)]
    elsewhere = any(rec.field in {_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION} for rec in records)
    if elsewhere or len(raw) != 1 or raw[0].end - raw[0].payload <= _INLINE_LIMIT:
        return None
    kept = (_self_reference(location, rec) if rec is raw[0] else [buf[rec.start : rec.end]] for rec in records)
    return b"".join(part for parts in kept for part in parts)


def _self_reference(location: str, raw: _wire.Record) -> list[bytes]:
    entries = {"location": location, "offset": str(raw.payload), "length": str(raw.end - raw.payload)}
    parts = [
        _wire.record(_TENSOR_EXTERNAL_DATA, _wire.record(1, key.encode()) + _wire.record(2, value.encode()))
        for key, value in entries.items()
    ]
    return [*parts, _wire.varint(_TENSOR_DATA_LOCATION << 3) + _wire.varint(onnx.TensorProto.EXTERNAL)]
