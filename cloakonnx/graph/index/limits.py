"""The limits that models must keep to, and how sizes are counted and quoted."""

from __future__ import annotations

import onnx
from onnx import TensorProto

RANK = 64
"""Dimensions of a tensor."""

DEPTH = 64
"""Bodies inside bodies, and local functions that call each other."""

NODES = 50_000
"""Nodes of a model, counted by their outputs: those of bodies included, local functions written out at every call."""

BODIES = 4_000
"""Bodies of If, Loop and Scan in all: ONNX Runtime takes a millisecond and 50 kB for each, and more inside others."""

WRITTEN_BYTES = 256 << 20
"""Bytes that local functions take when they are written out at every call."""

DRIVING = 16_000_000
"""Bytes of a constant that nodes make from constants."""

CONSTANT_BYTES = 256_000_000
"""Bytes of all constants that nodes make, except what only brings stored weights into another form."""

WHOLE_NUMBERS = 4_000_000
"""Entries of all vectors of whole numbers that nodes make: shape inference carries them along, 70 bytes for each."""

WEIGHT_BYTES = 600_000_000
"""Bytes of all weights that ConstantOfShape makes for Conv, Gemm and MatMul."""

STORED_GROWTH = 8
"""How many times the bytes of the weights a constant may have that is made of them: 8 bits for each bit."""

SAMPLE_BYTES = 64_000_000
"""Bytes of a tensor for one sample, from which on it is compared with what goes into the model."""

GROWTH = 1000
"""How many times the bytes of the model and of a sample such a tensor may have."""

TURNS = 10_000_000
"""Nodes that a Loop with a constant number of turns runs in all."""

_NAMED = 80


def element_bytes(elem_type: int, count: int = 1) -> int:
    """Return the bytes of some elements of a type, as a file holds them; an unknown type counts as 4 bytes."""
    bits = 4 if elem_type in _FOUR_BITS else 2 if elem_type in _TWO_BITS else 8 * _BYTES.get(elem_type, 4)
    return (count * bits + 7) // 8


def megabytes(size: int) -> str:
    """Return a size as it is written in messages.

    >>> megabytes(2_147_483_648)
    '2,147 MB'
    """
    if size >= 10**18:
        return "over a million TB"
    return f"{size / 1e6:,.0f} MB" if size >= 10_000_000 else f"{size / 1e6:.1f} MB"


def counted(number: int) -> str:
    """Return a number as it is written in messages."""
    return f"{number:,}" if number < 10**12 else "over a million million"


def quoted(name: object) -> str:
    """Return a name in quotes, cut where it is long."""
    text = repr(name)
    return text if len(text) <= _NAMED else f"{text[: _NAMED - 20]}...{text[-17:]}"


def _of(*names: str) -> frozenset[int]:
    """Element types by name; older onnx lacks some."""
    return frozenset(number for name, number in TensorProto.DataType.items() if name in names)


_FOUR_BITS = _of("INT4", "UINT4", "FLOAT4E2M1")
_TWO_BITS = _of("INT2", "UINT2")
_BYTES = {
    number: onnx.helper.tensor_dtype_to_np_dtype(number).itemsize
    for number in TensorProto.DataType.values()
    if number not in {TensorProto.UNDEFINED, TensorProto.STRING}
}
