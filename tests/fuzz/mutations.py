"""Changes to valid inputs: of bytes, of protobuf fields, of JSON entries."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import zipfile
from typing import Any

import onnx

ODD = (0, 1, -1, 2, 7, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, -(2**31), -(2**63))
TEXT = (
    "", "\0", "\n", "\x1b[31m", "\n::error::x", "<b>", "a" * 3000, "../x", "/dev/null", "é", "ab", "\u202e", "-", "|",
    "`", "%00", "\x9b2J", "\u2028",
)  # fmt: skip
FLOATS = (0.0, -1.0, 1e38, float("nan"), float("inf"), 1e-45)
MOST_TYPES = 30
HEADER = 128
"""Bytes of an array's header."""


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change, drop, double or insert bytes at a few places."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, count = rng.randrange(len(changed) + 1), rng.choice([1, 2, 4, 8, 64])
        match rng.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + count]
            case 2:
                changed[at:at] = changed[at : at + count]
            case 3:
                changed[at:at] = rng.randbytes(count)
            case 4:
                changed[at : at + 8] = rng.choice(ODD).to_bytes(8, "little", signed=True)
            case 5:
                changed[at : at + 1] = b"\xff" * rng.choice([1, 5, 9]) + b"\x01"
            case _:
                del changed[at:]
    return bytes(changed)


def of_npz(data: bytes, rng: random.Random) -> bytes:
    """Change bytes of the archive, or of one array in an archive that stays whole."""
    if rng.random() < 0.4:
        return of_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    head = members[name][:HEADER]
    changed = of_bytes(head, rng) + members[name][HEADER:] if rng.random() < 0.7 else of_bytes(members[name], rng)
    members[name] = changed
    if rng.random() < 0.1:
        members["z" + rng.choice(TEXT)] = members.pop(name)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def of_model(data: bytes, rng: random.Random) -> bytes:
    """Change fields: numbers to odd ones, names to other names; parts doubled, dropped, replaced, shuffled."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:  # protobuf's own type: a seed may be damaged on purpose
        return of_bytes(data, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        places = _places(model, [])
        if places:
            with contextlib.suppress(TypeError, ValueError):  # a value that the field does not take
                _change(rng.choice(places), places, rng)
    return bytes(model.SerializeToString())


def _places(message: Any, found: list[Any]) -> list[Any]:
    for field, value in message.ListFields():
        for index, each in enumerate(value if field.is_repeated else [value]):
            found.append((message, field, index))
            if field.message_type is not None:
                _places(each, found)
    return found


def _value(place: Any) -> Any:
    owner, field, index = place
    value = getattr(owner, field.name)
    return value[index] if field.is_repeated else value


def _change(place: Any, places: list[Any], rng: random.Random) -> None:
    owner, field, index = place
    if field.message_type is not None:
        _change_message(owner, field, index, rng)
        return
    old = _value(place)
    if field.cpp_type == field.CPPTYPE_STRING:
        alike = [_value(each) for each in places if each[1].cpp_type == field.CPPTYPE_STRING]
        pool = [each for each in alike if type(each) is type(old)]
        new: Any = rng.choice([*pool, *(TEXT if isinstance(old, str) else [of_bytes(old, rng)])])
    elif field.cpp_type in {field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE}:
        new = rng.choice(FLOATS)
    elif field.cpp_type == field.CPPTYPE_ENUM:
        new = rng.randrange(MOST_TYPES)
    else:
        new = rng.choice([*ODD, old + 1, old - 1])
    if field.is_repeated:
        getattr(owner, field.name)[index] = new
    else:
        setattr(owner, field.name, new)


def _change_message(owner: Any, field: Any, index: int, rng: random.Random) -> None:
    items = getattr(owner, field.name)
    if not field.is_repeated:
        owner.ClearField(field.name)
        return
    match rng.randrange(4):
        case 0:
            del items[index]
        case 1:
            items.add().CopyFrom(items[index])
        case 2:
            items[index].CopyFrom(rng.choice(list(items)))
        case _:
            items.sort(key=lambda _: rng.random())


def of_json(data: bytes, rng: random.Random) -> bytes:
    """Change entries at any depth; now and then nest far too deep."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    if rng.random() < 0.005:
        return b'{"x":' * 100_000 + data
    content = json.loads(data)
    values = [*ODD, *TEXT, None, True, [], {}, 1e308, 0.5, float("nan"), [[]], 10**400, {"a": 1}]
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = content
        while isinstance(at, dict | list) and at:
            key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if rng.random() < 0.4 or not isinstance(at[key], dict | list) or not at[key]:
                at[key] = copy.deepcopy(rng.choice(values))  # which a later turn may change
                if rng.random() < 0.2:
                    del at[key]
                break
            at = at[key]
    return json.dumps(content).encode()
