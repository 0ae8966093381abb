"""Files that are damaged, forged, or of another kind: one line that names it; and what a killed run has left."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

from cloakonnx.files import atomic, write_text
from tests.fixtures import core

from .conftest import Run
from .test_bad_input import assert_refused

ATTACK = ("attack", "m.onnx", "--data", "clean.npz", "--attack", "fgsm", "--eps", "0.1", "-o", "o.npz")


def archive(**members: bytes) -> bytes:
    return zipped({name.replace("__", "/").replace("_", "."): content for name, content in members.items()})


def zipped(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return made.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
KINDS = {
    "Git LFS pointer": POINTER,
    "HTML page": b"\n<!DOCTYPE html>\n<html></html>",
    "JSON text": b'{"message": "Not Found"}',
    "PyTorch checkpoint": archive(m__data_pkl=pickle.dumps({})),
    "a Python pickle": pickle.dumps({"state_dict": [1, 2]}),
    "old PyTorch checkpoints": pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2),
    ".ort": b"\x20\0\0\0ORTM" + bytes(64),
    "TensorFlow Lite": b"\x1c\0\0\0TFL3" + bytes(64),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "load_model(FILE).export('model.onnx', format='onnx')": archive(config_json=b"{}", model_weights_h5=b""),
    "TorchScript": archive(m__data_pkl=b"", m__constants_pkl=b""),
    "torch.export.load": zipped({"m/models/model.json": b"", "m/archive_format": b"pt2"}),
    "skl2onnx.to_onnx": pickle.dumps(LogisticRegression()),
    "OpenVINO": b'<?xml version="1.0"?>\n<net name="m" version="11">\n<layers></layers></net>',
    "OpenVINO (IR": b'<net name="m" version="10"></net>',
    "LightGBM": b"tree\nversion=v4\n",
    "XGBoost": b'{"learner":{}}',
    "TensorRT": b"ftrt" + bytes(64),
    "ExecuTorch": b"\x20\0\0\0ET12" + bytes(64),
    "gzip": gzip.compress(core.mlp().SerializeToString()),
    "safetensors": (2).to_bytes(8, "little") + b"{}",
    "an archive of NumPy arrays": archive(x_npy=b""),
    "a zip archive": archive(model_onnx=b""),
}


@pytest.mark.parametrize(("kind", "content"), KINDS.items(), ids=KINDS)
def test_a_file_of_another_kind_is_named(run: Run, folder: Path, kind: str, content: bytes) -> None:
    (folder / "m.onnx").write_bytes(content)
    assert_refused(run, folder, ("inspect", "m.onnx"), kind)
    if content[:2] != b"PK":
        (folder / "m.onnx").write_bytes(core.mlp().SerializeToString())
        (folder / "clean.npz").write_bytes(content)
        assert_refused(run, folder, ATTACK, "pickled" if content[0] == 0x80 else kind)


def written(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x08\x01\x12\x02\x0a\x00")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("--saved-model", ("m.onnx/saved_model.pb", "m.onnx/variables/variables.index")),
        ("--saved-model", ("saved_model.pb",)),
        ("--graphdef", ("frozen.pb",)),
        ("optimum-cli export onnx", ("hub/config.json", "hub/model.safetensors")),
        ("OpenVINO", ("ir.bin", "ir.xml")),
        ("Core ML", ("m.mlpackage/Manifest.json",)),
        ("PyTorch checkpoint", ("net.pth",)),
    ],
)
def test_what_only_names_tell(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, names: tuple[str, ...]
) -> None:
    """Folders, and files whose first bytes say nothing, go by their names."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, *names)
    given = Path(names[0])
    assert_refused(run, tmp_path, ("inspect", given if given.parent == Path() else given.parts[0]), kind)


def weight(model: onnx.ModelProto) -> onnx.TensorProto:
    """Return the weight of the last layer, which is read before ONNX Runtime sees the model."""
    return next(each for each in model.graph.initializer if each.name == model.graph.node[-1].input[1])


def dims(model: onnx.ModelProto) -> None:
    weight(model).dims.append(2)


def cut(model: onnx.ModelProto) -> None:
    weight(model).raw_data = weight(model).raw_data[:-3]


def kind_of_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 77


def function(model: onnx.ModelProto, op: str = "Relu", domain: str = "", count: int = 1) -> None:
    inside = [helper.make_node(op, ["a"], ["b"], domain=domain)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)]
    model.functions.extend([helper.make_function("l", "F", ["a"], ["b"], inside, opsets)] * count)
    model.opset_import.append(helper.make_opsetid("l", 1))


def kind_of_attribute(model: onnx.ModelProto) -> None:
    made = helper.make_node("Constant", [], ["c"], name="c")
    made.attribute.append(helper.make_attribute("value", [1.0]))
    model.graph.node.insert(0, made)


def twice(model: onnx.ModelProto) -> None:
    function(model, count=2)


def itself(model: onnx.ModelProto) -> None:
    function(model, "F", "l")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dims, "should have 144 bytes and has 72"),
        (cut, "should have 72 bytes and has 69"),
        (kind_of_input, "has element type number 77"),
        (kind_of_attribute, "attribute 'value' of Constant (node 'c') is of type FLOATS, where the op has TENSOR"),
        (twice, "two local functions 'l.F'"),
        (itself, "local function 'F' calls itself"),
    ],
)
def test_a_damaged_model(run: Run, folder: Path, change: Callable[[onnx.ModelProto], None], said: str) -> None:
    model = core.mlp()
    change(model)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    assert model.graph.input[0].type.tensor_type.elem_type in {TensorProto.FLOAT, 77}
    assert_refused(run, folder, ATTACK, said)


def test_settings_of_another_program_are_ignored(run: Run, folder: Path) -> None:
    with np.load(folder / "clean.npz") as arrays:
        np.savez(folder / "clean.npz", **arrays, settings=np.array("[" * 200_000))
    assert run(*ATTACK).code == 0


@pytest.fixture
def evaluation(run: Run, folder: Path) -> dict[str, object]:
    np.save(folder / "mask.npy", np.array([0, 1, 1, 1, 1, 1], np.float32))
    assert run("apply", "m.onnx", "--mask", "mask.npy", "--tap", "features").code == 0
    quick = ("--eps", "0.05", "--attack", "fgsm", "--no-sanity", "-o", "e.json")
    assert run("evaluate", "m.hardened.onnx", "--data", "clean.npz", *quick).code == 0
    return dict(json.loads((folder / "e.json").read_text()))


def test_a_forged_evaluation(run: Run, folder: Path, evaluation: dict[str, object]) -> None:
    (folder / "e.json").write_text(json.dumps({**evaluation, "results": []}))
    assert_refused(run, folder, ("report", "e.json", "-o", "r.html"), "results is empty")
    text = json.dumps(evaluation)
    huge = text.replace('"neither": ', '"neither": 4611686018427387', 1)
    (folder / "e.json").write_text(huge)
    assert_refused(run, folder, ("gate", "e.json", "--require", "clean-drop<=5%"), "more than 10,000,000")
    assert_refused(run, folder, ("report", "e.json", "-o", "r.html"), "more than 10,000,000")
    (folder / "e.json").write_text(text.replace('"name": "m.hardened.onnx"', '"name": "a\\ud800b"'))
    assert run("report", "e.json", "-o", "r.html").code == 0
    assert r"a\ud800b" in (folder / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "said"), [("seed = " + "9" * 5000, "is not TOML"), ('data = "a\\u0000b"', "null character")]
)
def test_settings_that_python_refuses(run: Run, folder: Path, text: str, said: str) -> None:
    (folder / "cloakonnx.toml").write_text(text)
    assert_refused(run, folder, ("attack", "m.onnx", "--attack", "fgsm", "--eps", "0.1", "-o", "o.npz"), said)


KILLED = """
import os, sys
from pathlib import Path
from cloakonnx.files import atomic
with atomic(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    os._exit(9)
"""


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """Only what belongs to the same output, and only what no run holds."""
    target = tmp_path / "out.npz"
    subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part")
    others = [f".other.npz.{secrets.token_hex(8)}.part", ".out.npz.notes.part", "out.npz.part", ".out.npz.1234.part"]
    for name in others:
        (tmp_path / name).write_text("somebody's")
    with atomic(target) as stream:
        stream.write(b"whole")
        assert not left.exists()
        held = {path for path in tmp_path.iterdir() if path.name not in others}
        assert len(held) == 1
        if os.name == "posix":
            write_text(target, "another run")
            assert held < set(tmp_path.iterdir()), "the file of a run that goes on stays"
    assert target.read_bytes() == b"whole"
    assert {path.name for path in tmp_path.iterdir()} == {*others, "out.npz"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_neither_read_nor_written_over(run: Run, folder: Path) -> None:
    """None of these waits for somebody who writes."""
    os.mkfifo(folder / "p.npz")
    for label in "abc":
        (folder / "images" / label).mkdir(parents=True)
        os.mkfifo(folder / "images" / label / "p.png")
    refused: list[tuple[tuple[str, ...], str]] = [
        (("inspect", "p.npz"), "it is a pipe"),
        (("attack", "m.onnx", "--data", "p.npz", *ATTACK[4:]), "it is a pipe"),
        (("gate", "p.npz", "--require", "clean>=1%"), "it is a pipe"),
        (("apply", "m.onnx", "--analysis", "p.npz"), "it is a pipe"),
        (("inspect", "m.onnx", "--config", "p.npz"), "it is a pipe"),
        ((*ATTACK[:-1], "p.npz", "--force"), "only files are written over"),
        (("inspect", "/dev/zero"), "it is a device"),
        (("attack", "m.onnx", "--data", "images", *ATTACK[4:]), "images"),  # a pipe is none
    ]
    for arguments, said in refused:
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err
    assert (folder / "p.npz").is_fifo()
