"""Bad input: exit code 2, one line that says what is wrong, nothing on stdout, nothing written."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.fixtures import core, models

from .conftest import Run, files

PAIRS = ("--data", "clean.npz", "--adversarial", "adversarial.npz")


def nothing(folder: Path) -> None:
    """Change nothing."""


def model(made: onnx.ModelProto) -> Callable[[Path], object]:
    """Write the model."""
    return lambda folder: (folder / "m.onnx").write_bytes(made.SerializeToString())


def content(name: str, data: bytes) -> Callable[[Path], object]:
    """Write a file."""
    return lambda folder: (folder / name).write_bytes(data)


def npz(name: str, **arrays: Any) -> Callable[[Path], None]:
    """Write an .npz file."""
    return lambda folder: np.savez(folder / name, **arrays)


def npy(name: str, array: Any) -> Callable[[Path], None]:
    """Write an .npy file."""
    return lambda folder: np.save(folder / name, array)


X = np.full((12, 4), 0.5, np.float32)
Y = np.arange(12) % 3
REFUSED = {fixture.name: fixture for fixture in models.REFUSED}
INTEGER = REFUSED["dtype_int64"]
CONSTANT = REFUSED["constant_node"]

Case = tuple[str, Callable[[Path], Any], tuple[str, ...], str]
CASES: list[Case] = [
    ("missing model", nothing, ("inspect", "n.onnx"), "no file n.onnx; did you mean 'm.onnx'?"),
    ("missing model, analyze", nothing, ("analyze", "n.onnx", *PAIRS), "no file n.onnx"),
    ("missing model, apply", nothing, ("apply", "n.onnx"), "no file n.onnx"),
    ("missing model, verify", nothing, ("verify", "n.onnx"), "no file n.onnx"),
    ("missing source", nothing, ("verify", "m.onnx", "--source", "n.onnx"), "no file n.onnx"),
    ("missing model, strip", nothing, ("strip", "n.onnx"), "no file n.onnx"),
    ("model is a folder", nothing, ("inspect", "."), "cannot read .: Is a directory"),
    ("empty model", content("m.onnx", b""), ("inspect", "m.onnx"), "m.onnx is empty"),
    ("not a model", content("m.onnx", b"hello"), ("inspect", "m.onnx"), "m.onnx is not an ONNX model"),
    ("npz as model", nothing, ("inspect", "clean.npz"), "clean.npz is not an ONNX model"),
    ("truncated", content("m.onnx", core.mlp().SerializeToString()[:-9]), ("inspect", "m.onnx"), "m.onnx is"),
    ("missing data", nothing, ("analyze", "m.onnx", "--data", "claen.npz", *PAIRS[2:]), "did you mean 'clean.npz'"),
    ("missing inputs", nothing, ("analyze", "m.onnx", *PAIRS[:3], "adversaral.npz"), "you mean 'adversarial.npz'"),
    ("empty path", nothing, ("analyze", "m.onnx", *PAIRS, "-o", ""), "is empty; name a file or folder"),
    ("means", nothing, ("analyze", "m.onnx", *PAIRS, "--mean", "1,2"), "--mean has 2 numbers"),
    ("unknown tap", nothing, ("analyze", "m.onnx", *PAIRS, "--tap", "feature"), "did you mean 'features'"),
    ("tap of integers", model(INTEGER.model), ("analyze", "m.onnx", *PAIRS, "--tap", INTEGER.tap), "int64"),
    ("constant tap", model(CONSTANT.model), ("analyze", "m.onnx", *PAIRS, "--tap", CONSTANT.tap), "is constant"),
    ("tap is an input", nothing, ("analyze", "m.onnx", *PAIRS, "--tap", "x"), "is an input of the model"),
    ("tap is a weight", nothing, ("analyze", "m.onnx", *PAIRS, "--tap", "w1"), "is an initializer"),
    ("feature axis", nothing, ("analyze", "m.onnx", *PAIRS, "--feature-axis", "2"), "feature axis 2 does not fit"),
    ("criterion", nothing, ("analyze", "m.onnx", *PAIRS, "--criterion", "deepcloack"), "did you mean 'deepcloak'"),
    ("no labels", npz("clean.npz", x=X), ("analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "clean.npz",
        "--criterion", "margin"), "clean.npz has no labels; --criterion margin needs the true ones"),
    ("no linear head", nothing, ("analyze", "m.onnx", *PAIRS, "--criterion", "evidence", "--tap", "hidden"),
        "Relu 'relu' comes after 'hidden'; take --criterion gradient-x-activation"),
    ("old opset", model(REFUSED["opset_6"].model), ("analyze", "m.onnx", *PAIRS), "opset"),
    ("other lengths", npz("clean.npz", x=X[:9]), ("analyze", "m.onnx", *PAIRS), "9 samples, adversarial.npz has 12"),
    ("other shapes", npz("adversarial.npz", x=X[:, :3]), ("analyze", "m.onnx", *PAIRS), "of shape (3,) do not fit"),
    ("other labels", npz("adversarial.npz", x=X, y=Y[::-1]), ("analyze", "m.onnx", *PAIRS), "label of sample 0"),
    ("labels out of range", npz("clean.npz", x=X, y=Y + 1), ("analyze", "m.onnx", *PAIRS), "label 3, but the model"),
    ("negative labels", npz("clean.npz", x=X, y=Y - 1), ("analyze", "m.onnx", *PAIRS), "negative label"),
    ("pickled npz", npz("clean.npz", x=X.astype(object)), ("analyze", "m.onnx", *PAIRS), "pickled"),
    ("pickled labels", npz("clean.npz", x=X, y=Y.astype(object)), ("analyze", "m.onnx", *PAIRS), "pickled"),
    ("truncated npz", content("clean.npz", b"PK\x03\x04"), ("analyze", "m.onnx", *PAIRS), "not a whole .npz file"),
    ("empty data", npz("clean.npz", x=X[:0]), ("analyze", "m.onnx", *PAIRS), "clean.npz is empty"),
    ("empty inputs", npz("adversarial.npz", x=X[:0]), ("analyze", "m.onnx", *PAIRS), "adversarial.npz is empty"),
    ("no x", npz("clean.npz", a=X), ("analyze", "m.onnx", *PAIRS), "no array 'x' (it has a)"),
    ("not in [0, 1]", npz("clean.npz", x=X * 255), ("analyze", "m.onnx", *PAIRS), "outside pixel space [0, 1]"),
    ("NaN", npz("clean.npz", x=X * np.nan), ("analyze", "m.onnx", *PAIRS), "has the value nan"),
    ("script as data", content("d.py", b""), ("analyze", "m.onnx", "--data", "d.py:f", *PAIRS[2:]), "--data-script"),
    ("no inputs", nothing, ("analyze", "m.onnx", *PAIRS[:2]), "--adversarial"),
    ("no clean data", nothing, ("analyze", "m.onnx", *PAIRS[2:]), "--data is missing"),
    ("data twice", nothing, ("analyze", "m.onnx", *PAIRS, "--data-script", "d.py:f"), "exclude each other"),
    ("script fails", content("d.py", b"def f():\n raise ValueError('a\\nb')"),
     ("analyze", "m.onnx", "--data-script", "d.py:f", *PAIRS[2:]), "d.py:f failed: ValueError: a b"),
    ("provider", nothing, ("analyze", "m.onnx", *PAIRS, "--provider", "rocm"), "--provider rocm"),
    ("unknown provider", nothing, ("analyze", "m.onnx", *PAIRS, "--provider", "cpuu"), "did you mean 'cpu'"),
    ("unknown input", nothing, ("analyze", "m.onnx", *PAIRS, "--input", "y"), "no input 'y'"),
    ("no analysis", nothing, ("apply", "m.onnx"), "no analysis m.cloak.json; make it with: cloakonnx analyze m.onnx"),
    ("analysis is a folder", nothing, ("apply", "m.onnx", "--analysis", "."), "Is a directory"),
    ("analysis is no JSON", nothing, ("apply", "m.onnx", "--analysis", "m.onnx"), "m.onnx is not"),
    ("mask length", npy("m.npy", np.ones(5)), ("apply", "m.onnx", "--mask", "m.npy", "--tap", "features"), "5"),
    ("mask shape", npy("m.npy", X), ("apply", "m.onnx", "--mask", "m.npy", "--tap", "features"), "shape (12, 4)"),
    ("mask NaN", npy("m.npy", X[0] * np.nan), ("apply", "m.onnx", "--mask", "m.npy", "--tap", "features"), "NaN"),
    ("mask is npz", nothing, ("apply", "m.onnx", "--mask", "clean.npz", "--tap", "features"), "an .npz file"),
    ("mask missing", nothing, ("apply", "m.onnx", "--mask", "m.npy", "--tap", "features"), "no file or folder m.npy"),
    ("mask, unknown tap", npy("m.npy", np.ones(6)), ("apply", "m.onnx", "--mask", "m.npy", "--tap", "feature"),
     "did you mean 'features'"),
    ("mask without tap", npy("m.npy", np.ones(6)), ("apply", "m.onnx", "--mask", "m.npy"), "--tap go together"),
    ("tap without mask", nothing, ("apply", "m.onnx", "--tap", "features"), "--tap go together"),
    ("mask and share", npy("m.npy", np.ones(6)),
     ("apply", "m.onnx", "--mask", "m.npy", "--tap", "features", "--remove", "5%"), "--mask takes no"),
    ("both amounts", nothing, ("apply", "m.onnx", "--remove", "5%", "--threshold", "1"), "exclude each other"),
    ("not hardened", nothing, ("strip", "m.onnx"), "carries no cloakonnx masks"),
    ("not hardened, verify", nothing, ("verify", "m.onnx"), "carries no cloakonnx masks"),
    ("no folder", nothing, ("analyze", "m.onnx", *PAIRS, "-o", "no/m.json"), "there is no folder"),
    ("folder is a file", nothing, ("analyze", "m.onnx", *PAIRS, "-o", "m.onnx/m.json"), "there is no folder"),
    ("output is a folder", nothing, ("analyze", "m.onnx", *PAIRS, "-o", "."), "it is a folder"),
    ("output is the model", nothing, ("analyze", "m.onnx", *PAIRS, "-o", "m.onnx"), "m.onnx is to hold JSON"),
    ("output is the data", nothing, ("analyze", "m.onnx", *PAIRS, "-o", "clean.npz"), "clean.npz is to hold JSON"),
    ("output exists", content("a.json", b"x"), ("analyze", "m.onnx", *PAIRS, "-o", "a.json"), "a.json exists already"),
    ("apply over the input", npy("m.npy", np.ones(6)),
     ("apply", "m.onnx", "--mask", "m.npy", "--tap", "features", "-o", "m.onnx"), "m.onnx is the input"),
    ("apply into no folder", npy("m.npy", np.ones(6)),
     ("apply", "m.onnx", "--mask", "m.npy", "--tap", "features", "-o", "m.onnx/h.onnx"), "there is no folder"),
    ("long name", nothing, ("analyze", "m.onnx", "--data", "a" * 300, *PAIRS[2:]), "File name too long"),
]  # fmt: skip


def assert_refused(run: Run, folder: Path, arguments: tuple[object, ...], said: str) -> None:
    before = files(folder)
    code, out, err = run(*arguments)
    assert code == 2, err
    if "--json" in arguments:
        assert said in json.loads(out)["error"]["message"]
    else:
        assert out == ""
    assert err.startswith("cloakonnx: ")
    assert err.endswith("\n")
    *notes, _ = err.splitlines()
    assert all("is taken for the class scores" in line for line in notes), err
    assert "Traceback" not in err
    assert said in err
    assert files(folder) == before


@pytest.mark.parametrize(("prepare", "arguments", "said"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_refused(run: Run, folder: Path, prepare: Callable[[Path], Any], arguments: tuple[str, ...], said: str) -> None:
    prepare(folder)
    assert_refused(run, folder, arguments, said)


def test_every_truncation_is_refused(run: Run, folder: Path) -> None:
    whole = (folder / "m.onnx").read_bytes()
    for size in range(1, len(whole), 37):
        (folder / "m.onnx").write_bytes(whole[:size])
        assert_refused(run, folder, ("analyze", "m.onnx", *PAIRS), "m.onnx")


def test_analysis_of_another_model(run: Run, folder: Path) -> None:
    assert run("analyze", "m.onnx", *PAIRS).code == 0
    (folder / "m.onnx").write_bytes(core.mlp(name="other").SerializeToString())
    assert_refused(run, folder, ("apply", "m.onnx"), "made for another model")


def test_damaged_analysis(run: Run, folder: Path) -> None:
    assert run("analyze", "m.onnx", *PAIRS).code == 0
    path = folder / "m.cloak.json"
    path.write_text(path.read_text().replace('"features": 6', '"features": 7'))
    assert_refused(run, folder, ("apply", "m.onnx"), "6 scores for 7 features")


def test_already_masked(run: Run, folder: Path) -> None:
    np.save(folder / "mask.npy", np.ones(6))
    mask = ("--mask", "mask.npy", "--tap", "features")
    assert run("apply", "m.onnx", *mask).code == 0
    assert_refused(run, folder, ("apply", "m.hardened.onnx", *mask), "already masked")
    assert_refused(run, folder, ("analyze", "m.hardened.onnx", *PAIRS), "already masked")


@pytest.mark.parametrize("how", models.BROKEN)
@pytest.mark.parametrize("verb", ["inspect", "analyze", "apply"])
def test_external_data_outside_the_folder(run: Run, folder: Path, how: str, verb: str) -> None:
    path = models.write_broken_external(folder / "external", how)
    np.save(folder / "mask.npy", np.ones(6))
    extra = {"inspect": (), "analyze": PAIRS, "apply": ("--mask", "mask.npy", "--tap", "features")}[verb]
    assert_refused(run, folder, (verb, path, *extra), "data")


def test_unwritable_folder(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the answer of the system is put in its mouth."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    assert_refused(run, folder, ("analyze", "m.onnx", *PAIRS), "is not writable")
    np.save(folder / "mask.npy", np.ones(6))
    assert_refused(run, folder, ("apply", "m.onnx", "--mask", "mask.npy", "--tap", "features"), "is not writable")


def test_full_disk(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_refused(run, folder, ("analyze", "m.onnx", *PAIRS), "No space left on device")


def test_out_of_memory(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cloakonnx.scoring.analyze.analyze", full)
    assert_refused(run, folder, ("analyze", "m.onnx", *PAIRS), "out of memory")


def test_features_that_are_not_finite(run: Run, folder: Path) -> None:
    nodes = [core.node("Log", "x", core.TAP), core.node("MatMul", "features w", "logits")]
    made = core.model(
        core.graph(nodes, [core.value("x", ["N", 4])], [core.value("logits", ["N", 3])], [core.weights("w", 4, 3)])
    )
    model(made)(folder)
    npz("clean.npz", x=np.where(np.arange(48).reshape(12, 4) == 22, 0, X))(folder)
    assert_refused(run, folder, ("analyze", "m.onnx", *PAIRS), "tap 'features' is -inf at feature 2 of clean sample 5")
