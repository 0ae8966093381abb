"""How frozen dataclasses lie in our JSON files: the types of entries, their places, and what is derived from others.

A record is a dataclass. Each field is an entry under its own name, or where :class:`At` in its annotation puts it; a
property that is :func:`derived` is written beside the fields, and skipped when the file is read; a field that is not
compared is none of the file. :func:`form` is the
msgspec type of what lies in the file: it checks types and bounds, and the schemas in docs/ are made of it.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache, reduce
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A whole number from 0 on."""
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
"""A whole number from 1 on."""
Number = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""A finite number."""
Distance = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
"""A finite number from 0 on."""
Probability = Annotated[float, Meta(ge=0, le=1)]
Share = Annotated[float, Meta(ge=-1, le=1)]
"""A difference of two shares."""
Ends = tuple[Share, Share]
"""Of an interval of such differences."""
Radius = Annotated[Number, Meta(extra_json_schema={"exclusiveMinimum": 0})]
"""A radius; that it is above 0 is checked with the other numbers."""
Fraction = Annotated[str, Meta(pattern=r"^[0-9.eE+-]+/[0-9.eE+-]+$", max_length=20)]
"""A number as it was written: ``2/16``."""
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Norm = Annotated[str, Meta(extra_json_schema={"enum": ["linf", "l2"]})]


@dataclass(frozen=True)
class At:
    """How the file has a field, in its annotation: ``pairs: Annotated[Paired, At("difference")]``.

    Attributes:
        path: Where its entry lies, with dots between keys; under the field's name where empty.
        omitted: Whether the file leaves it out where it has its default.
        described: The type that the published schema gives it, where that says more than what is read.
    """

    path: str = ""
    omitted: bool = False
    described: Any = None


OMITTED = At(omitted=True)


@dataclass(frozen=True)
class RecordEntry:
    """An entry of a record.

    Attributes:
        path: Keys that lead to it from the record's object.
        attribute: The record's attribute that it holds.
        type: Its type, with constraints.
        default: The value at which the file leaves it out; MISSING where it is always there.
        is_derived: Whether it follows from others.
        described: See :class:`At`.
    """

    path: tuple[str, ...]
    attribute: str
    type: Any
    default: Any
    is_derived: bool = False
    described: Any = None


def derived(path: str, *, before: str = "") -> Callable[[F], F]:
    """Mark a property's function as an entry at ``path``: written before a field, or last, and skipped when read."""

    def mark(function: F) -> F:
        function.__dict__["entry"] = path, before
        return function

    return mark


@cache
def entries(record: type) -> tuple[RecordEntry, ...]:
    """Return the entries of a record in the order in which they are written."""
    hints = get_type_hints(record, include_extras=True)
    found: list[RecordEntry] = []
    for each in (each for each in fields(record) if each.compare):
        kind = hints[each.name]
        at = next((mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, At)), At())
        path = tuple((at.path or each.name).split("."))
        found.append(
            RecordEntry(path, each.name, kind, each.default if at.omitted else MISSING, described=at.described)
        )
    properties = {name: value for base in reversed(record.__mro__) for name, value in vars(base).items()}
    for name, value in properties.items():
        if isinstance(value, property) and "entry" in vars(value.fget):
            path, before = vars(value.fget)["entry"]
            place = next((i for i, other in enumerate(found) if other.attribute == before), len(found))
            kind = get_type_hints(value.fget, include_extras=True)["return"]
            found.insert(place, RecordEntry(tuple(path.split(".")), name, kind, MISSING, is_derived=True))
    return tuple(found)


@cache
def form(record: type, *, published: bool = False) -> type[Struct]:
    """Return the type of a record's object; a published one has derived entries, and no others than its own."""
    return _struct(record.__name__, [each for each in entries(record) if published or not each.is_derived], published)


def _struct(name: str, found: list[RecordEntry], published: bool) -> type[Struct]:
    """Return the type of an object whose entries may lie in objects of their own."""
    content: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for key in dict.fromkeys(each.path[0] for each in found):
        below = [each for each in found if each.path[0] == key]
        first = below[0]
        if len(first.path) > 1:
            inner = [replace(each, path=each.path[1:]) for each in below]
            content.append((key, _struct(f"{name}.{key}", inner, published)))
            continue
        kind = _formed((first.described if published else None) or first.type, published)
        content.append((key, kind) if first.default is MISSING else (key, kind, first.default))
    return defstruct(name, content, frozen=True, kw_only=True, forbid_unknown_fields=published)


def _formed(kind: Any, published: bool) -> Any:
    """Return a type with forms in place of records."""
    if is_dataclass(kind):
        return form(cast(type, kind), published=published)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        marks = (each for each in kind.__metadata__ if isinstance(each, Meta))
        return Annotated[(_formed(kind.__origin__, published), Meta(), *marks)]
    if not args or origin is Literal:
        return kind
    made = tuple(_formed(each, published) for each in args)
    return Union[made] if origin in (Union, UnionType) else cast(Any, origin)[made]  # noqa: UP007


def built(kind: Any, value: Any, where: str = "") -> Any:
    """Return a value of a type, records and all, from the form of it; raises ValueError, with the place, as they do."""
    if value is None or value is UNSET:
        return value
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return built(kind.__origin__, value, where)
    if origin in (Union, UnionType):
        (kind,) = (each for each in args if each not in (NoneType, UnsetType))
        return built(kind, value, where)
    if origin is tuple:
        kinds = args[:1] * len(value) if args[-1] is ... else args
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(built(each, item, f"{where}[{i}]") for i, (each, item) in pairs)
    if not is_dataclass(kind):
        return value
    own = [each for each in entries(cast(type, kind)) if not each.is_derived]
    items = (reduce(getattr, each.path, value) for each in own)
    places = (".".join(filter(None, (where, *each.path))) for each in own)
    made = {each.attribute: built(each.type, *both) for each, *both in zip(own, items, places, strict=True)}
    try:
        return cast(Any, kind)(**made)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def written(value: Any) -> Any:
    """Return a record, or what one holds, as JSON has it: bytes in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key: written(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [written(each) for each in value]
    if not is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for each in entries(cast(type, type(value))):
        item = getattr(value, each.attribute)
        if each.default is MISSING or item != each.default:
            place = reduce(lambda inner, key: inner.setdefault(key, {}), each.path[:-1], found)
            place[each.path[-1]] = written(item)
    return found
