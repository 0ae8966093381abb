"""Our JSON files: one record each, read so that a damaged file is an error that names the entry, and written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

from cloakonnx.errors import CloakError, nearest
from cloakonnx.files import write_text
from cloakonnx.kinds import irregular
from cloakonnx.remote import fetched, local
from cloakonnx.urls import place_of

T = TypeVar("T")

_MOST = 256 << 20
"""Bytes of the largest file that is read as JSON."""


@dataclass(frozen=True)
class JsonFile:
    """A kind of JSON file, which holds one record. msgspec loads with the first that is read or written.

    Attributes:
        kind: Of the file: ``analysis`` for the format ``cloakonnx.analysis``.
        version: The one that is read and written.
        verb: What makes such a file.
        error: Raised where it is not JSON, of another kind or version, or damaged.
        head: Entries that all such files begin with, after format and version.
    """

    kind: str
    version: int
    verb: str
    error: type[CloakError]
    head: Mapping[str, Any] = field(default_factory=dict)

    def content(self, record: object) -> dict[str, Any]:
        """Return what the file holds: the record's entries, and what follows from them."""
        from cloakonnx.entries import written  # noqa: PLC0415

        return {"format": f"cloakonnx.{self.kind}", "version": self.version, **self.head, **written(record)}

    def text(self, record: object) -> str:
        """Return the file's text: equal records give the same text."""
        return json_text(self.content(record))

    def read(self, text: str, build: Callable[[dict[str, Any]], T], *, name: str) -> T:
        """Return what ``build`` makes of the file's content; raises :attr:`error` where that or the text is damaged."""
        content = parsed(text, name=name, error=self.error)
        wanted = f"cloakonnx.{self.kind}"
        if not isinstance(content, dict) or content.get("format") != wanted:
            raise self.error(f"{name} is not {_with_article(self.kind)}: its format is not {wanted!r}")
        said = content.get("version")
        if isinstance(said, bool) or not isinstance(said, int) or said != self.version:
            raise self.error(
                f"{name} has version {str(said)[:20]} of the {self.kind} format; this cloakonnx reads version "
                f"{self.version}"
            )
        try:
            return build(content)
        except (ValueError, CloakError) as found:
            raise self.error(f"{name} is damaged: {found}; make it again with cloakonnx {self.verb}") from None


class JsonRecord:
    """A record that is all of a file."""

    JSON_FILE: ClassVar[JsonFile]

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds: the entries, and the shares, intervals and p-values that follow."""
        return self.JSON_FILE.content(self)

    def to_json(self) -> str:
        """Return the file's text: equal records give the same text."""
        return self.JSON_FILE.text(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file atomically; raises OutputError where it can't be written."""
        write_text(local(path, writes=True), self.to_json())

    @classmethod
    def from_json(cls, text: str, *, name: str | None = None) -> Self:
        """Read the file's text; what follows from the counts is worked out again.

        Raises:
            DataError: it is no such file, or one of a later version, or its numbers contradict each other.
        """
        return cls.JSON_FILE.read(text, cls._of, name=name or cls.JSON_FILE.kind)

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Self:
        found = converted(content, cls)
        found._check(content)
        return found

    def _check(self, stated: Mapping[str, Any]) -> None:
        """Check the counts against each other, and what the file states against the counts; raises ValueError."""


def json_text(content: Any) -> str:
    """Return JSON text as our files have it; raises ValueError where a number is NaN or infinite."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def converted(content: Any, record: type[T], where: str = "") -> T:
    """Return the record that parsed JSON holds; keys that it does not know are ignored.

    ``where`` is its place in the file (``learning.``). Raises ValueError, which names the entry that is missing, of
    another type or out of bounds, or what the record itself raises.
    """
    import msgspec  # noqa: PLC0415

    from cloakonnx.entries import built, form  # noqa: PLC0415

    try:
        found = msgspec.convert(content, form(cast(Hashable, record)))
    except msgspec.ValidationError as error:
        raise ValueError(_fault(str(error), where)) from None
    except UnicodeEncodeError:
        raise ValueError("it has a text with half of a surrogate pair, which is no character") from None
    infinite = next(_infinite(content, where), None)
    if infinite is not None:
        raise ValueError(f"{infinite} is not a finite number")
    return cast(T, built(record, found, where.removesuffix(".")))


_WORDS = tuple(
    (re.compile(said), ours)
    for said, ours in (
        ("Expected `object.*", " is not an object"),
        (r"Expected `array` of length (\d+), got (\d+)", r" has \2 entries, not \1"),
        ("Expected `array.*", " is not a list"),
        ("Expected `bytes.*|Invalid base64.*", " is not base64"),
        ("Expected `bool.*", " is neither true nor false"),
        (r"Expected `str` (?:of length <= |matching regex '\^\[0-9a-f\]\{)(\d+).*", r" is not \1 hex digits"),
        ("Expected `str.*", " is not a string"),
        (r"Expected `int` >= (\d+)", r" is not a whole number from \1 on"),
        ("Expected `int` <= .*", " is not a whole number below 2**63"),
        ("Expected `int.*", " is not a whole number"),
        ("Number out of range|Expected `float` [<>].*", " is not a finite number"),
        ("Expected `float.*", " is not a number"),
        ("Invalid enum value (.*)", r" is \1, which is none of those that are known"),
    )
)
"""What msgspec says, and how our errors say it."""


def _infinite(content: Any, where: str) -> Iterator[str]:
    """Yield the places of numbers that JSON does not have; msgspec looks at those alone that a record names."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _infinite(value, f"{where}{'.' if where and not where.endswith('.') else ''}{key}")
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from _infinite(value, f"{where}[{i}]")
    elif isinstance(content, float) and not math.isfinite(content):
        yield where


def _fault(message: str, where: str) -> str:
    """Return msgspec's message in the words of our errors, which begin with the place of the entry."""
    words, _, path = message.partition(" - at `$")
    place = f"{where}{path.removesuffix('`').removeprefix('.')}"
    if words.startswith("Object missing"):
        return f"the entry {place.removesuffix('.')}{'.' if place else ''}{words.split('`')[1]} is missing"
    ours = next((each for each in (said.sub(ours, words) for said, ours in _WORDS) if each != words), f": {words}")
    return f"{place or 'it'}{ours}"


def parsed(text: str, *, name: str, error: type[CloakError]) -> Any:
    """Return what JSON text says; raises ``error`` where it is no JSON, or gives a key of an object twice."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _KeyTwiceError as found:
        raise error(f"{name} is damaged: {found}, and nothing says which of them counts") from None
    except (ValueError, RecursionError) as found:
        raise error(f"{name} is not JSON: {found}") from None


class _KeyTwiceError(ValueError):
    """A key of an object is given twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in content if keys.count(key) > 1)
        raise _KeyTwiceError(f"an object has the key {twice[:40]!r} twice")
    return content


def _alike(path: Path) -> str:
    """Return a hint of the files beside it whose names look like that of one that is not there."""
    if place_of(path) is not None or not path.parent.is_dir():
        return ""
    return nearest(path.name, [each.name for each in path.parent.iterdir() if each.suffix == path.suffix])


def read_text(path: str | Path, *, kind: str, error: type[CloakError]) -> str:
    """Return the text of a file of our own; raises ``error`` where it can't be read or is no text."""
    path = fetched(path)
    odd = irregular(path)
    if odd is not None:
        raise error(f"cannot read the {kind} {path}: it is {odd}, not a file")
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST + 1)
        if len(content) > _MOST:
            raise error(f"cannot read the {kind} {path}: it has over {_MOST:,} bytes, which is the limit")
        return content.decode().replace("\r\n", "\n")
    except OSError as found:
        hint = _alike(path) if isinstance(found, FileNotFoundError) else ""
        raise error(f"cannot read the {kind} {path}: {found.strerror or found}{hint}") from None
    except UnicodeDecodeError:
        raise error(f"{path} is not {_with_article(kind)}: it is not text") from None


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


_PACKAGES = ("cloakonnx", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that decide the numbers."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
