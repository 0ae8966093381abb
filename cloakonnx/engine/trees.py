"""Results of a batch as a tree: dataclasses and tuples, with arrays, numbers, texts and JSON objects as leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_REST = "rest"


def flattened(tree: object) -> dict[str, NDArray[Any]]:
    """Return a tree as the entries of an ``.npz``: each array under its path (``at.0.robust``), the rest as JSON."""
    arrays: dict[str, NDArray[Any]] = {}
    rest = _without_arrays(tree, (), arrays)
    return {**arrays, _REST: np.array(json.dumps(rest))}


def unflattened(kind: type[T], entries: Mapping[str, NDArray[Any]]) -> T:
    """Return the tree of a type from what :func:`flattened` gave; raises KeyError, TypeError, ValueError on damage."""
    return cast(T, _with_arrays(kind, json.loads(str(entries[_REST])), (), entries))


def joined(parts: Sequence[T]) -> T:
    """Return the trees of some batches as one.

    Arrays are concatenated along axis 0, whole numbers added up. Anything else is the same in all and stays. A
    dataclass that has a ``joined`` of its own joins itself.

    Raises:
        ValueError: something else differs, or there is no part.
    """
    if not parts:
        raise ValueError("there is nothing to join")
    first = parts[0]
    if isinstance(first, np.ndarray):
        return cast(T, np.concatenate(cast(Sequence[NDArray[Any]], parts)))
    if isinstance(first, int) and not isinstance(first, bool):
        return cast(T, sum(cast(Sequence[int], parts)))
    if isinstance(first, tuple):
        return cast(T, tuple(joined(each) for each in zip(*cast(Sequence[tuple[Any, ...]], parts), strict=True)))
    if is_dataclass(first) and not isinstance(first, type):
        own = getattr(type(first), "joined", None)
        if own is not None:
            return cast(T, own(parts))
        return type(first)(**{f.name: joined([getattr(part, f.name) for part in parts]) for f in fields(first)})
    if any(part != first for part in parts):
        raise ValueError(f"batches differ in {first!r}")
    return first


def _without_arrays(value: Any, path: tuple[str, ...], arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[".".join(path)] = value
        return None
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _without_arrays(getattr(value, f.name), (*path, f.name), arrays) for f in fields(value)}
    if isinstance(value, tuple):
        return [_without_arrays(each, (*path, str(i)), arrays) for i, each in enumerate(value)]
    return value


def _with_arrays(kind: Any, rest: Any, path: tuple[str, ...], entries: Mapping[str, NDArray[Any]]) -> Any:
    name = ".".join(path)
    if name in entries:
        return entries[name]
    if rest is None:
        return None
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast(Any, kind)(
            **{f.name: _with_arrays(hints[f.name], rest[f.name], (*path, f.name), entries) for f in fields(kind)}
        )
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        each_kind = kinds[:1] * len(rest) if kinds[-1] is ... else kinds
        pairs = enumerate(zip(each_kind, rest, strict=True))
        return tuple(_with_arrays(k, each, (*path, str(i)), entries) for i, (k, each) in pairs)
    return rest
