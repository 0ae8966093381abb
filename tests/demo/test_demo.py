"""The demonstration: its files are the repository's sample, and it shows a gain, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cloakonnx
from cloakonnx.demo.demo import ACTS, write_sample
from cloakonnx.errors import OutputError

ROOT = Path(__file__).parents[2]


def test_the_files_are_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(ROOT / "samples"))
    import digits

    write_sample(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert (folder / "model.onnx").read_bytes() == (ROOT / "samples" / "digits_cnn.onnx").read_bytes()
    trained, tested = digits.training_arrays(), digits.test_arrays()
    wanted = {
        "train": trained,
        "clean": tuple(each[:500] for each in trained),
        "val": tuple(each[:200] for each in tested),
        "test": tuple(each[200:] for each in tested),
    }
    assert {path.stem for path in folder.glob("*.npz")} == set(wanted)
    for name, (x, y) in wanted.items():
        with np.load(folder / f"{name}.npz") as stored:
            assert np.array_equal(stored["x"], x) and stored["x"].dtype == np.float32
            assert np.array_equal(stored["y"], y) and stored["y"].dtype == np.int64


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(OutputError, match="is not empty; overwrite the demonstration in it with force"):
        write_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "mine"
    (tmp_path / "notes.txt").write_text("mine")
    write_sample(tmp_path, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "model.onnx").stat().st_size > 100_000


def test_where_a_file_is_in_the_way_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "cloakonnx-demo").write_text("a file")
    with pytest.raises(OutputError, match="cloakonnx-demo"):
        write_sample(tmp_path / "cloakonnx-demo", force=True)


def test_in_an_empty_folder(tmp_path: Path) -> None:
    """As a module, as where no script is on the path; the gain, and what replayed inputs would have promised."""
    path = os.pathsep.join(filter(None, [str(Path(cloakonnx.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "cloakonnx", "demo", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [act.command in done.stderr for act in ACTS] == [True, True]
    shown = json.loads(done.stdout)
    learned, deepcloak = shown["learn"], shown["score"]
    assert learned["verdict"] == "gain" and deepcloak["verdict"] == "none"
    share = {
        name: {row: values[row]["hardened"]["share"] - values[row]["original"]["share"] for row in ("clean", "robust")}
        for name, values in shown.items()
    }
    assert share["learn"]["robust"] > 0.25 and share["learn"]["clean"] >= 0
    assert learned["replayed"]["share"] > learned["robust"]["hardened"]["share"] + 0.1
    # Replayed inputs promise a gain of DeepCloak's mask; attacked anew, nothing is left of it.
    assert deepcloak["replayed"]["share"] > deepcloak["robust"]["original"]["share"] + 0.15
    assert share["score"]["robust"] < 0.06
    for values in shown.values():
        assert all((tmp_path / file).is_file() for file in values["files"].values())
        page = (tmp_path / values["files"]["report"]).read_text(encoding="utf-8")
        assert "at 2/16 from" in page or "is shown at 2/16" in page, "the radius as it was written"
    assert [path.name for path in tmp_path.iterdir()] == ["cloakonnx-demo"]
