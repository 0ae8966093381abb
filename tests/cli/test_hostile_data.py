"""Arrays, pictures, JSON, TOML and pipes that ask for much memory, time or depth: one line and exit code 2."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.support.hostile import ONE, assert_one_line, attack, called, model, node


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def archive(path: Path, **members: bytes | list[bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for name, content in members.items():
            with made.open(f"{name}.npy", "w", force_zip64=True) as stream:
                for part in content if isinstance(content, list) else [content]:
                    stream.write(part)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


X, Y = npy(np.zeros((4, 4), np.float32)), npy(np.arange(4) % 3)
MANY = 300
"""Parts of 1 MiB: enough to be above the limit."""


def described(shape: str) -> bytes:
    return npy_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n")


DATA = {
    "unpacks to far more": (
        {"x": [described(f"({MANY << 20}, 1)"), *[bytes(1 << 20)] * MANY], "y": Y}, "unpacks to 314,572,"),
    "header": (
        {"x": [b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30), *[b" " * (1 << 20)] * 2], "y": Y}, "1,073,741,824"),
    "shape": ({"x": described(f"({2**62}, 4)"), "y": Y}, "its shape is said to be"),
    "negative shape": ({"x": described("(-2, -2)") + b"\0" * 4, "y": Y}, "its shape is said to be (-2, -2)"),
    "version": ({"x": b"\x93NUMPY\x09\x09" + X[8:], "y": Y}, "its format version is 9.9"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_arrays_that_lie_are_one_line(name: str, tmp_path: Path) -> None:
    members, said = DATA[name]
    archive(tmp_path / "x.npz", **members)
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Identity", ["o"], ["c"])], [ONE]).SerializeToString())
    assert_one_line(attack(path, tmp_path / "x.npz"), said)


def test_deep_settings_are_somebody_elses(tmp_path: Path) -> None:
    archive(tmp_path / "x.npz", x=X, y=Y, settings=npy(np.array("[" * 200_000)))
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Identity", ["o"], ["c"])], [ONE]).SerializeToString())
    assert attack(path, tmp_path / "x.npz")[0] == 0


def test_pipes_are_no_inputs(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Identity", ["o"], ["c"])], [ONE]).SerializeToString())
    for name in ("p.npz", "p.onnx", "p.json", "p.toml"):
        os.mkfifo(tmp_path / name)
    assert_one_line(attack(path, tmp_path / "p.npz"), "it is a pipe, not a file")
    assert_one_line(called("inspect", tmp_path / "p.onnx"), "it is a pipe, not a file")
    assert_one_line(called("report", tmp_path / "p.json", "-o", tmp_path / "r.html"), "it is a pipe, not a file")
    assert_one_line(called("--config", tmp_path / "p.toml", "inspect", path), "it is a pipe, not a file")


def test_settings_files_have_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("# " + "x" * (1 << 20))
    assert_one_line(called("--config", path, "inspect", "m.onnx"), "over 1,048,576 bytes, which is the limit")


def test_deep_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text("[" * 200_000)
    assert_one_line(called("gate", path, "--require", "robust>=1%"), "is not JSON")
    assert json.loads("[]") == []


def png(width: int, height: int) -> bytes:
    def chunk(tag: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + tag + content + struct.pack(">I", zlib.crc32(tag + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("content", "said"), [(EPS, "it is none of PNG, JPEG"), (png(13_000, 13_000), "13000 x 13000 pixels; the limit is")]
)
def test_pictures_start_nothing_and_have_a_limit(content: bytes, said: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    folder, programs = tmp_path / "d", tmp_path / "bin"
    for label in range(3):
        (folder / str(label)).mkdir(parents=True)
        (folder / str(label) / "a.png").write_bytes(content)
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (programs / "gs").chmod(0o755)
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Identity", ["o"], ["c"])], [ONE]).SerializeToString())
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{programs}:{before}"
    try:
        assert_one_line(attack(path, folder), said)
    finally:
        os.environ["PATH"] = before
    assert not (tmp_path / "started").exists()
