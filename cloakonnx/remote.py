"""Files on other machines, through fsspec: fetched into the cache before they are read, uploaded once they are whole.

A path with a protocol becomes the path of its copy (:mod:`cloakonnx.urls`) where it enters; what reads or writes a file
asks here whether it is such a copy. fsspec is imported when the first is met. Credentials are those of the protocol's
own environment.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

from cloakonnx import urls
from cloakonnx.errors import CloakError, MissingDependencyError, OutputError, RemoteError

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "az": "adlfs",
    "abfs": "adlfs", "abfss": "adlfs", "adl": "adlfs", "hf": "huggingface_hub", "hdfs": "pyarrow", "sftp": "paramiko",
    "ssh": "paramiko", "oci": "ocifs", "oss": "ossfs", "smb": "smbprotocol",
}  # fmt: skip
"""The package that fsspec needs for a protocol."""

_WEB = frozenset({"http", "https"})
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs"})
_ABSENT = frozenset({404, 410})
_DENIED = frozenset({401, 403, 407})

_VERSION = (
    "ETag", "etag", "generation", "md5Hash", "Content-MD5", "content_md5", "Digest", "Last-Modified", "LastModified",
    "last_modified", "mtime", "updated", "created",
)  # fmt: skip
"""What servers call that which another content changes."""

_AT_ONCE = 200
"""Files of a folder that are fetched together."""

_SAID = 300
"""Characters of another package's error that are shown."""


def local(path: str | PathLike[str], *, writes: bool = False) -> Path:
    """Return the path on this machine: that of the copy, for a path with a protocol.

    A copy of an address with a query or a password is fetched at once, because nothing else keeps these.

    Args:
        path: As the user gave it.
        writes: Whether it is an output, which is not fetched.

    Raises:
        RemoteError: an address that makes no sense, or one with a query that can't be read.
        OutputError: an output where nothing can be written.
        MissingDependencyError: fsspec, or what it needs for the protocol, is not installed.
    """
    text = urls.written(path)
    found = urls.address(text)
    here = urls.local_path(text)
    if here is not None:
        return here if found is not None else Path(path)
    assert found is not None  # or it were local
    if "::" in text or not found.host or "\0" in text:
        raise RemoteError(f"{found} is no address of a file; give one like s3://bucket/model.onnx")
    copy = urls.copy_of(found)
    if writes:
        _check_writable(copy)
    elif found.secret:
        _fetch(text, copy)
    return copy


def fetched(path: str | PathLike[str]) -> Path:
    """Return the path on this machine, where the copy is as the original is now; where that is gone there is none.

    Raises:
        RemoteError: it can't be read.
        MissingDependencyError: as :func:`local`.
    """
    here = local(path)
    url = urls.url_of(here)
    if url is not None and not (urls.has_secret(here) and here.exists()):
        _fetch(url, here)
    return here


def exists(path: Path) -> bool:
    """Whether a file or folder is there: for a copy, whether the original is."""
    url = urls.url_of(path)
    if url is None:
        return path.exists()
    with _errors(url, RemoteError, "look for"):
        return _info(*_filesystem(url)) is not None


def prepare(path: Path, *, is_folder: bool = False) -> None:
    """Check that an output can be uploaded, as far as that can be known before, and make the folder of its copy.

    Args:
        path: The copy; nothing is done for another path.
        is_folder: Whether it is a folder, for files of several names.

    Raises:
        OutputError: not to this protocol or bucket.
        RemoteError: the server can't be reached.
        MissingDependencyError: as :func:`local`.
    """
    url = urls.url_of(path)
    if url is None:
        return
    _check_writable(path)
    with _errors(url, OutputError, "write"):
        system, name = _filesystem(url)
        bucket = name.partition("/")[0]
        if url.partition("://")[0] in _BUCKETS and not system.exists(bucket):
            raise OutputError(
                f"cannot write {url}: there is no bucket {bucket}, or it may not be seen with the credentials at hand; "
                "name another with {output}",
                parameter="output",
            )
        info = None if is_folder else _info(system, name)
        if info is not None and info.get("type") == "directory":
            raise OutputError(f"cannot write {url}: it is a folder")
    make_room(path)


def make_room(path: Path) -> None:
    """Make the folder that a copy lies in; nothing for another path."""
    if urls.place_of(path) is not None:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)


def upload(path: Path) -> None:
    """Upload a copy that was written, in one go; nothing for another path.

    Raises:
        OutputError: the upload fails.
        MissingDependencyError: as :func:`local`.
    """
    url = urls.url_of(path)
    if url is None:
        return
    with _errors(url, OutputError, "write"):
        system, name = _filesystem(url)
        system.put_file(str(path), name)
        info = _info(system, name)
    if info is not None and info.get("size") == path.stat().st_size:
        _note(path, {path.name: info}, path.parent)


def remove(path: Path) -> None:
    """Remove a file, where there is one; of a copy the original as well.

    Raises:
        OSError: the file can't be removed.
        OutputError: the original can't be.
    """
    path.unlink(missing_ok=True)
    url = urls.url_of(path)
    if url is None:
        return
    _about(path).unlink(missing_ok=True)
    with _errors(url, OutputError, "remove"):
        system, name = _filesystem(url)
        if _info(system, name) is not None:
            system.rm_file(name)


def _check_writable(path: Path) -> None:
    url = urls.url_of(path)
    if url is not None and (url.partition("://")[0] in _WEB or urls.has_secret(path)):
        why = "an output's address takes no query and no password" if urls.has_secret(path) else "the web is only read"
        raise OutputError(
            f"cannot write {url}: {why}; name a file here or in an object store (s3://, gs://) with {{output}}",
            parameter="output",
        )


def _fetch(url: str, path: Path) -> None:
    """Make the copy of an address as the original is; remove it where there is none."""
    shown = str(urls.address(url))
    with _errors(shown, RemoteError, "read"):
        system, name = _filesystem(url)
        info = _info(system, name)
        if info is None:
            _forget(path)
            return
        if info.get("type") == "directory":
            _fetch_folder(system, name, path)
            return
        if _fresh(path, {path.name: info}, path.parent):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _get(system, {name: path})
        after = _info(system, name)
        if after is None or _version(after) != _version(info) or info.get("size") not in (None, path.stat().st_size):
            path.unlink()
            raise RemoteError(f"{shown} was changed while it was read, or not read to its end; run it again")
        _note(path, {path.name: info}, path.parent)


def _fetch_folder(system: Any, name: str, folder: Path) -> None:
    """Fetch the files of a folder that are new or changed, and remove those that are gone."""
    root = name.rstrip("/") + "/"
    found = {
        each.removeprefix(root): info
        for each, info in system.find(name, detail=True).items()
        if info.get("type") != "directory" and _is_inside(each.removeprefix(root))
    }
    noted = _noted(folder)
    missing = [each for each, info in found.items() if not _is_as_noted(folder / each, noted.get(each), info)]
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(missing), _AT_ONCE):
        _get(system, {root + each: folder / each for each in missing[start : start + _AT_ONCE]})
    for each in noted.keys() - found.keys():
        if _is_inside(each):
            (folder / each).unlink(missing_ok=True)
    _note(folder, found, folder)


def _forget(path: Path) -> None:
    """Remove a copy whose original is gone: a file, or of a folder what was fetched with it."""
    if path.is_file():
        path.unlink()
        return
    for each in filter(_is_inside, _noted(path)):
        (path / each).unlink(missing_ok=True)
        for folder in (path / each).parents:
            if folder == path.parent:
                break
            with suppress(OSError):  # it has copies that were fetched by themselves
                folder.rmdir()


def _is_inside(name: str) -> bool:
    """Whether a name below a folder, which comes from a server, stays in it."""
    parts = re.split(r"[/\\]", name)
    return bool(name) and not any(part in {"", ".", ".."} or ":" in part or "\0" in part for part in parts)


def _get(system: Any, files: Mapping[str, Path]) -> None:
    """Fetch files, each of which appears when it is whole."""
    parts = {name: path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part") for name, path in files.items()}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if len(parts) == 1:
            ((name, part),) = parts.items()
            system.get_file(name, str(part))
        else:
            system.get(list(parts), [str(part) for part in parts.values()])
        for name, part in parts.items():
            part.replace(files[name])
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _info(system: Any, name: str) -> dict[str, Any] | None:
    """Return what is known of a file or folder; None where there is none."""
    system.invalidate_cache()
    try:
        found: dict[str, Any] = system.info(name)
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec raises this for whatever goes wrong over http
        if not name.startswith(("http://", "https://")) or cause is None or getattr(cause, "status", 0) in _ABSENT:
            return None
        raise cause from None
    return found


def _version(info: Mapping[str, Any]) -> dict[str, str]:
    """Return what tells one content of a file from another; nothing where the server does not say."""
    found = {key: str(info[key]) for key in _VERSION if info.get(key)}
    return {**found, "size": str(info.get("size"))} if found else {}


def _fresh(path: Path, infos: Mapping[str, Mapping[str, Any]], folder: Path) -> bool:
    noted = _noted(path)
    return all(_is_as_noted(folder / name, noted.get(name), info) for name, info in infos.items())


def _is_as_noted(path: Path, noted: object, info: Mapping[str, Any]) -> bool:
    version = _version(info)
    return bool(version) and noted == [version, _stamp(path)]


def _stamp(path: Path) -> list[int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def _about(path: Path) -> Path:
    """Return the file that says which version a copy is of."""
    place = urls.place_of(path)
    assert place is not None  # of copies only
    return urls.cache() / "versions" / place.with_name(f"{place.name}.json")


def _noted(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_about(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(path: Path, infos: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Note which versions the copy of a file, or those of a folder, are of."""
    about = _about(path)
    about.parent.mkdir(parents=True, exist_ok=True)
    part = about.with_name(f".{about.name[:100]}.{secrets.token_hex(8)}.part")
    known = {name: [_version(info), _stamp(folder / name)] for name, info in infos.items()}
    part.write_text(json.dumps(known), encoding="utf-8")
    part.replace(about)


def _filesystem(url: str) -> tuple[Any, str]:
    """Return the filesystem of an address, and the name of the file in it."""
    protocol = url.partition("://")[0].lower()
    shown = str(urls.address(url))
    package = _PACKAGES.get(protocol)
    try:
        import fsspec  # noqa: PLC0415
    except ImportError:
        wanted = " ".join(filter(None, ("fsspec", package)))
        raise MissingDependencyError(
            f"{shown} is read and written with fsspec, which is not installed: pip install {wanted}"
        ) from None
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise RemoteError(
            f"{shown}: there is no protocol {protocol!r} in fsspec; a package may bring it, and a file of this machine "
            "is named without ://"
        ) from None
    except ImportError as error:
        needs = f"needs {package}, which is not installed: pip install {package}" if package else _line(error)
        raise MissingDependencyError(f"{shown} {needs}") from None
    return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)


@contextmanager
def _errors(url: str, kind: type[CloakError], what: str) -> Iterator[None]:
    """Turn what a filesystem raises into one line; ``url`` is without secrets."""
    try:
        yield
    except CloakError:
        raise
    except Exception as error:  # each filesystem raises its own
        raise kind(f"cannot {what} {url}: {_why(error)}") from None


def _why(error: Exception) -> str:
    status = getattr(error, "status", None)
    if isinstance(error, PermissionError) or status in _DENIED:
        said = f" ({status})" if isinstance(status, int) else ""
        return f"access denied{said}; credentials are taken from the protocol's own environment (docs/remote.md)"
    if isinstance(status, int):
        return f"the server answers {status} {_line(getattr(error, 'message', ''))}".rstrip()
    if isinstance(error, TimeoutError):
        return "the server does not answer in time"
    return _line(error)


def _line(error: object) -> str:
    """Return another package's error as a line, without what follows a question mark or stands before an @."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"//[^/\s@]*@", "//", re.sub(r"\?[^\s'\")]*", "", text))[:_SAID]
