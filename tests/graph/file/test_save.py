"""Outputs are whole or not there at all, and never over what should stay."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import pytest

from cloakonnx.errors import CheckError, OutputError
from cloakonnx.files import atomic, check_output, write_text
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file, strip_file
from cloakonnx.graph.masks.mask import Mask
from tests.fixtures.models import TAP, mlp
from tests.graph.helpers import weights, write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path, mlp())


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def harden(source: Path, output: Path, *, force: bool = False) -> None:
    harden_file(load(source), [Mask(TAP, weights(6))], output, force=force)


def strip(source: Path, output: Path, *, force: bool = False) -> None:
    made = source.with_name("hardened")
    if not made.exists():
        harden(source, made)
    strip_file(load(made), output, force=force)


WRITERS = pytest.mark.parametrize("write_model", [harden, strip])


def test_output_is_the_input(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    os.link(source, tmp_path / "hard.onnx")
    for output in (source, tmp_path / "." / source.name, tmp_path / "hard.onnx"):
        with pytest.raises(OutputError, match="is the input; name another with output, or overwrite it with force"):
            harden(source, output)
    assert source.read_bytes() == before
    harden(source, source, force=True)
    assert source.read_bytes() != before
    strip_file(load(source), source, force=True)
    assert source.read_bytes() == before


@WRITERS
def test_existing_output(write_model: Callable[..., None], source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    output.write_bytes(b"something else")
    with pytest.raises(
        OutputError, match=r"out\.onnx exists already; name another output with output, or overwrite it"
    ):
        write_model(source, output)
    assert output.read_bytes() == b"something else"
    write_model(source, output, force=True)
    assert load(output).proto.graph.node


@WRITERS
@pytest.mark.parametrize("force", [False, True])
def test_folders_that_can_not_be_written(
    write_model: Callable[..., None], force: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strip(source, tmp_path / "first.onnx")
    present = names(tmp_path)
    (tmp_path / "folder").mkdir()
    for output, said in (
        (tmp_path / "nowhere" / "out.onnx", "there is no folder"),
        (source / "out.onnx", "there is no folder"),
        (tmp_path / "folder", "it is a folder"),
    ):
        with pytest.raises(OutputError, match=f"cannot write .*{said}"):
            write_model(source, output, force=force)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="is not writable"):
        write_model(source, tmp_path / "out.onnx", force=force)
    assert names(tmp_path) == {*present, "folder"}


@WRITERS
@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_errors_of_the_file_system(
    step: str, write_model: Callable[..., None], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strip(source, tmp_path / "first.onnx")
    present = names(tmp_path)
    real_open = Path.open

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    def open_full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:
        if mode == "xb" and step == "open":
            fail()
        stream: IO[Any] = real_open(path, mode, *args, **kwargs)
        return cast(IO[Any], _Full(stream)) if mode == "xb" and step == "write" else stream

    monkeypatch.setattr(Path, "open", open_full)
    if step in {"fsync", "replace"}:
        monkeypatch.setattr({"fsync": os, "replace": Path}[step], step, fail)
    with pytest.raises(OutputError, match=r"cannot write .*out\.onnx: No space left on device"):
        write_model(source, tmp_path / "out.onnx")
    assert names(tmp_path) == present


class _Full:
    """A stream onto a full disk."""

    def __init__(self, stream: IO[Any]) -> None:
        self.stream = stream

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_write_text_into_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere" / "out", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="cannot write"):
            write_text(path, "text")
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_is_left_after_an_error(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before")
    with pytest.raises(error), atomic(tmp_path / "out") as stream:
        stream.write(b"half")
        assert len(names(tmp_path)) == 2
        raise error
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out").read_text() == "before"


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    texts = {letter * 100_000 for letter in "ab"}
    write_text(path, min(texts))
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        for text in sorted(texts):
            write_text(path, text)
    done.set()
    reader.join()
    assert seen <= texts


def test_mode_follows_the_umask(source: Path, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        harden(source, tmp_path / "out.onnx")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out.onnx").stat().st_mode) == 0o640


def test_relative_paths(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(Path("out.onnx"), inputs=[Path("nothing.onnx")])
    harden(Path(source.name), Path("out.onnx"))
    assert names(tmp_path) == {source.name, "out.onnx"}


@pytest.mark.parametrize("target", ["nowhere", "other.onnx", "."])
def test_a_link_is_never_replaced(target: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"precious")
    (tmp_path / "out.onnx").symlink_to(target)
    with pytest.raises(OutputError, match="it is a symbolic link, and only files are written over"):
        harden(source, tmp_path / "out.onnx", force=True)
    assert (tmp_path / "out.onnx").is_symlink()
    assert (tmp_path / "other.onnx").read_bytes() == b"precious"


def test_strip_refuses_a_changed_model(source: Path, tmp_path: Path) -> None:
    harden(source, tmp_path / "hardened.onnx")
    proto = load(tmp_path / "hardened.onnx").proto
    proto.producer_name = "someone else"
    changed = write(tmp_path, proto, "changed.onnx")
    present = names(tmp_path)
    with pytest.raises(CheckError, match="the model was changed since; nothing was written"):
        strip_file(load(changed), tmp_path / "back.onnx")
    assert names(tmp_path) == present


SLOW_WRITE = """
import sys, time
from cloakonnx.cli import main
from cloakonnx import files

real = files.os.fsync
def fsync(handle):
    print("writing", flush=True)
    time.sleep(30)
    real(handle)
files.os.fsync = fsync
sys.argv[0] = "cloakonnx"
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_signal(number: signal.Signals, source: Path, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "mask.npy", weights(6))
    present = names(tmp_path)
    before = source.read_bytes()
    arguments = ["apply", source.name, "--mask", "mask.npy", "--tap", TAP, "-o", "out.onnx"]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITE, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        assert len(names(tmp_path)) == len(present) + 2  # the unfinished output, and its lock
        child.send_signal(number)
        _, said = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "interrupted" in said
    assert names(tmp_path) == present
    assert source.read_bytes() == before
