"""Addresses, and where copies of what they name lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloakonnx import urls
from cloakonnx.errors import CloakError, OutputError
from cloakonnx.remote import local


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLOAKONNX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/folder/x.npz",
        "s3://bucket/a//b/../c d/%20/é:*?",
        "gs://bucket",
        "memory://x.npz",
        "https://host:8000/x%20y.npz",
        "S3://Bucket/X.npz",
    ],
)
def test_the_path_of_a_copy_says_which_address_it_is_of(text: str, cache: Path) -> None:
    found = urls.address(text)
    assert found is not None
    copy = urls.copy_of(found)
    assert copy.is_relative_to(cache / "remote") and ".." not in copy.parts
    assert urls.url_of(copy) == str(found) == text[:2].lower() + text[2:].rstrip("?")
    assert urls.shown(f"no file {copy}; done") == f"no file {found}; done"
    assert urls.name_of(copy) == str(found)


def test_secrets_are_in_no_path(cache: Path) -> None:
    paths = set()
    for text in ("https://host/x.npz?token=one", "https://host/x.npz?token=two", "https://me:secret@host/x.npz"):
        found = urls.address(text)
        assert found is not None and str(found) == "https://host/x.npz"
        paths.add(copy := urls.copy_of(found))
        assert urls.has_secret(copy) and urls.url_of(copy) == "https://host/x.npz" and copy.name == "x.npz"
        assert not any(word in str(copy.relative_to(cache)) for word in ("token", "one", "secret", "me:"))
    assert len(paths) == 3  # different queries may be of different files


@pytest.mark.parametrize("text", ["x.npz", "./a:/b", "C:/x.npz", "C:\\x.npz", "a:b", "/s3:/x", "~/x", "//host/x"])
def test_paths_without_a_protocol_stay_as_they_are(text: str) -> None:
    assert urls.address(text) is None
    assert local(text) == Path(text)
    assert urls.url_of(local(text)) is None


def test_files_of_this_machine_may_have_a_protocol_as_well() -> None:
    assert local("file:///data/my%20x.npz") == Path("/data/my x.npz")
    assert local("local:///data/x.npz", writes=True) == Path("/data/x.npz")


def test_an_address_survives_pathlib(cache: Path) -> None:
    assert local(Path("s3://bucket/x.npz")) == local("s3://bucket/x.npz") == cache / "remote/s3/bucket/x.npz"


@pytest.mark.parametrize("text", ["s3://", "s3:///x", "zip://x.npz::s3://bucket/x.zip"])
def test_addresses_that_make_no_sense(text: str) -> None:
    with pytest.raises(CloakError, match="is no address of a file"):
        local(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://host/x.json", "cannot write https://host/x.json: the web is only read; name a file here"),
        ("s3://bucket/x.json?versionId=1", "cannot write s3://bucket/x.json: an output's address takes no query"),
    ],
)
def test_outputs_that_can_not_be(text: str, said: str) -> None:
    with pytest.raises(OutputError) as raised:
        local(text, writes=True)
    assert said in str(raised.value)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("CLOAKONNX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert urls.cache() == tmp_path / "cloakonnx"
    monkeypatch.setenv("CLOAKONNX_CACHE", str(tmp_path / "mine"))
    assert urls.cache() == tmp_path / "mine"
