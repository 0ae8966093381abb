"""Reads the protobuf wire format record by record, so that a model can be edited without decoding its weights.

Source: the Protocol Buffers encoding guide. ModelProto itself uses varints, fixed 32 and 64 bit values and
length-delimited records; groups, which protobuf still accepts as unknown fields, are stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cloakonnx.graph.file._bytes import Buffer

VARINT, FIXED64, LEN, START_GROUP, END_GROUP, FIXED32 = range(6)
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}


class WireError(ValueError):
    """The bytes are not a sequence of protobuf records; ``truncated`` says that they end too early."""

    def __init__(self, message: str, *, truncated: bool) -> None:
        super().__init__(message)
        self.truncated = truncated


class Record(NamedTuple):
    """One field of a message: where its tag starts, where its payload starts and where it ends."""

    field: int
    wire_type: int
    start: int
    payload: int
    end: int

    def holds(self, field: int) -> bool:
        """Whether this is a message, string or bytes field of that number.

        Protobuf treats a known number with another record type as an unknown field, and so does this module.
        """
        return self.field == field and self.wire_type == LEN


def read_varint(buf: Buffer, pos: int, end: int) -> tuple[int, int]:
    """Return the varint at ``pos`` and the position after it."""
    value = shift = 0
    while True:
        if pos >= end:
            raise WireError(f"ends inside a number at byte {pos}", truncated=True)
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
        if shift > 63:
            raise WireError(f"malformed number at byte {pos}", truncated=False)


def scan(buf: Buffer, start: int, end: int) -> Iterator[Record]:
    """Yield the records of the message in ``buf[start:end]``; raises WireError where lengths contradict."""
    pos = start
    while pos < end:
        tag, payload = read_varint(buf, pos, end)
        field, wire_type = tag >> 3, tag & 7
        if field == 0:
            raise WireError(f"field number 0 at byte {pos}", truncated=False)
        if wire_type == LEN:
            size, payload = read_varint(buf, payload, end)
            stop = payload + size
        elif wire_type == VARINT:
            _, stop = read_varint(buf, payload, end)
        elif wire_type in _FIXED_SIZE:
            stop = payload + _FIXED_SIZE[wire_type]
        elif wire_type == START_GROUP:
            stop = _group_end(buf, payload, end)
        else:
            raise WireError(f"unknown record type {wire_type} at byte {pos}", truncated=False)
        if stop > end:
            raise WireError(f"a record at byte {pos} needs {stop - end} more bytes", truncated=True)
        yield Record(field, wire_type, pos, payload, stop)
        pos = stop


def _group_end(buf: Buffer, pos: int, end: int) -> int:
    """Return the position after the end of the group whose start tag ends at ``pos``."""
    depth = 1
    while depth:
        tag, pos = read_varint(buf, pos, end)
        wire_type = tag & 7
        if wire_type == START_GROUP:
            depth += 1
        elif wire_type == END_GROUP:
            depth -= 1
        elif wire_type == VARINT:
            _, pos = read_varint(buf, pos, end)
        elif wire_type == LEN:
            size, pos = read_varint(buf, pos, end)
            pos += size
        elif wire_type in _FIXED_SIZE:
            pos += _FIXED_SIZE[wire_type]
        else:
            raise WireError(f"unknown record type {wire_type} before byte {pos}", truncated=False)
    return pos


def varint(value: int) -> bytes:
    """Encode a non-negative integer in as few bytes as it takes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def header(field: int, size: int) -> bytes:
    """Return tag and length of a length-delimited record."""
    return varint(field << 3 | LEN) + varint(size)


def record(field: int, payload: bytes) -> bytes:
    """Encode one length-delimited record."""
    return header(field, len(payload)) + payload


def is_minimal(rec: Record) -> bool:
    """Whether tag and length of a length-delimited record are encoded as :func:`header` would."""
    return rec.payload - rec.start == len(header(rec.field, rec.end - rec.payload))
