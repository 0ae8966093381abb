"""Addresses such as ``s3://bucket/x.npz``, and where the copy of such a file lies on this machine.

The rest of the package works on these copies, whose paths say which address they are of:
``CACHE/remote/s3/bucket/x.npz``. Queries and passwords are never part of such a path; a digest of them keeps different
ones apart.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from os import PathLike
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
"""A protocol has two letters or more: ``C:/`` is a drive."""

_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[/\\](?![/\\])(.+)", re.DOTALL)
"""What ``pathlib`` makes of an address."""

_LOCAL = frozenset({"file", "local"})
_SAFE = "=+@"
_SECRET = re.compile(r"~[0-9a-f]{16}$")
_EMPTY = "%"
"""The folder for an empty part of an address, as between two slashes."""


class Address(NamedTuple):
    """An address in its parts.

    Attributes:
        protocol: In small letters.
        secret: User and password, and the query: what may hold credentials.
        host: Host and port, or the bucket.
        path: What follows, without slashes at its ends.
    """

    protocol: str
    secret: str
    host: str
    path: str

    def __str__(self) -> str:
        """Return the address without what may be secret."""
        return f"{self.protocol}://{self.host}" + f"/{self.path}" * bool(self.path)


def address(text: str) -> Address | None:
    """Return a text's address in parts, None where it has no protocol.

    >>> str(address("https://user:password@host/x.npz?token=1"))
    'https://host/x.npz'
    >>> address("C:/models/x.onnx") is None
    True
    """
    found = _URL.fullmatch(text)
    if found is None:
        return None
    rest, mark, query = found[2].partition("?")
    host, _, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    return Address(found[1].lower(), f"{user}{at}{mark}{query}", host, path.rstrip("/"))


def written(path: str | PathLike[str]) -> str:
    """Return a path as text; an address that was made a ``Path`` has its two slashes again."""
    text = os.fspath(path)
    found = None if isinstance(path, str) else _COLLAPSED.fullmatch(text)
    if found is None or os.path.lexists(text):
        return text
    return f"{found[1]}://{found[2]}".replace("\\", "/")


def local_path(text: str) -> Path | None:
    """Return the path of a local file: of a text without a protocol, or with ``file://``; else None."""
    found = address(text)
    if found is None:
        return Path(text)
    if found.protocol not in _LOCAL:
        return None
    path = unquote(f"/{found.path}")
    return Path(path[1:] if re.match(r"/[A-Za-z]:", path) else path)


def cache() -> Path:
    """Return the folder for copies and unfinished work: ``$CLOAKONNX_CACHE``, or the platform's for its user."""
    named = os.environ.get("CLOAKONNX_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(base).expanduser() / "cloakonnx").resolve()


def copies() -> Path:
    """Return the folder of copies."""
    return cache() / "remote"


def copy_of(found: Address) -> Path:
    """Return where the copy of an address lies."""
    digest = f"~{hashlib.sha256(found.secret.encode()).hexdigest()[:16]}" if found.secret else ""
    parts = found.path.split("/") if found.path else []
    return copies().joinpath(found.protocol, _part(found.host) + digest, *map(_part, parts))


def _part(text: str) -> str:
    """Return a part of an address as the name of a file or folder."""
    if not text.strip("."):
        return text.replace(".", "%2E") or _EMPTY
    return quote(text, safe=_SAFE, errors="surrogateescape")


def place_of(path: Path) -> Path | None:
    """Return where a copy lies within the folder of copies, None for another path."""
    try:
        within = path.absolute().relative_to(copies())
    except (ValueError, OSError):
        return None
    return within if len(within.parts) > 1 else None


def url_of(path: Path | None) -> str | None:
    """Return the address of a copy, without what may be secret, None for another path."""
    within = None if path is None else place_of(path)
    return None if within is None else _url(within.parts)


def has_secret(path: Path) -> bool:
    """Whether a copy is of an address with a query or a password."""
    within = place_of(path)
    return within is not None and _SECRET.search(within.parts[1]) is not None


def _url(parts: tuple[str, ...]) -> str:
    protocol, host, *rest = parts
    names = ["" if part == _EMPTY else unquote(part, errors="surrogateescape") for part in rest]
    return "/".join((f"{protocol}://{unquote(_SECRET.sub('', host))}", *names))


def name_of(path: Path) -> str:
    """Return what results and messages call a file: its name, or its address."""
    return url_of(path) or path.name


def shown(text: str) -> str:
    """Return a text with addresses in the place of the paths of their copies.

    >>> shown(f"no file {copies() / 's3' / 'bucket' / 'x%20y.npz'}; done")
    'no file s3://bucket/x y.npz; done'
    """
    root = str(copies())
    if root not in text:
        return text
    return re.sub(rf"{re.escape(root)}[/\\]([\w=+@%.~/\\-]+)", _replaced, text)


def _replaced(found: re.Match[str]) -> str:
    parts = tuple(part for part in re.split(r"[/\\]+", found[1]) if part)
    return _url(parts) if len(parts) > 1 else found[0]
