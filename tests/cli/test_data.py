"""Data where it is: class folders, one folder with a CSV, tables; what a small mistake with them looks like."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from .conftest import Run

ROOT = Path(__file__).parents[2]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNT = 80
ATTACK = ("--eps", "2/16", "--attack", "noise", "-o", "a.npz", "--force")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return test digits as (N, 8, 8) uint8, and their labels."""
    sys.path.insert(0, str(ROOT / "samples"))
    try:
        import digits
    finally:
        sys.path.pop(0)
    x, y = digits.test_arrays()
    return np.rint(x[:COUNT, 0] * 255).astype(np.uint8), y[:COUNT]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: cnn.onnx takes (N, 1, 8, 8); imgs has a folder a class, named by words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cnn.onnx").write_bytes((ROOT / "samples" / "digits_cnn.onnx").read_bytes())
    for number, (pixels, label) in enumerate(zip(*digits(), strict=True)):
        folder = tmp_path / "imgs" / WORDS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return tmp_path


LEVELS = (0.2, 0.4, 0.6, 0.8)


def by_brightness(mean: float, std: float) -> None:
    """Write raw.onnx, which has a class for each level of brightness and takes (x - mean) / std; levels.npz fits it."""
    level = np.array(LEVELS, np.float32)
    weights = {
        "w": (2 * level * std * 20)[None],  # the nearest level has the largest 2 c m - c^2
        "b": (2 * level * mean - level**2) * 20,
    }
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), "raw.onnx")
    y = np.arange(COUNT) % 4
    x = level[y][:, None, None, None] + np.random.default_rng(0).uniform(-0.05, 0.05, (COUNT, 1, 8, 8))
    np.savez("levels.npz", x=x.astype(np.float32), y=y)


def test_class_folders_are_printed_with_their_numbers(run: Run, here: Path) -> None:
    """Where another order of the classes explains the model's answers, the option that gives it is said."""
    found = run("attack", "cnn.onnx", "--data", "imgs", *ATTACK)
    assert found.code == 0, found.err
    alphabet = ", ".join(f"{number} {name}" for number, name in enumerate(sorted(WORDS)))
    assert f"cloakonnx: imgs: 10 classes: {alphabet}\n" in found.err
    option = f"--classes {','.join(WORDS)}"
    assert f"Try {option}\n" in found.err
    found = run("attack", "cnn.onnx", "--data", "imgs", *ATTACK, *option.split())
    assert "imgs: 10 classes: 0 zero, 1 one, 2 two," in found.err
    assert "another order" not in found.err
    assert int(found.err.partition("cnn.onnx: ")[2].split()[0]) > 70


def test_more_than_twenty_classes_are_counted(run: Run, here: Path) -> None:
    for number in range(30):
        (here / "many" / f"kind {number}").mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(here / "many" / f"kind {number}" / "a.png")
    found = run("attack", "cnn.onnx", "--data", "many", *ATTACK)
    assert "many: 30 classes: 0 kind 0, 1 kind 1," in found.err
    assert "7 kind 7, ...\n" in found.err


@pytest.mark.parametrize(
    ("how", "given", "said"),
    [
        ((0.1307, 0.3081), (), "with --mean mnist --std mnist"),
        ((0.5, 0.5), (), "with --mean 0.5 --std 0.5"),
        ((0.0, 1 / 255), (), "with --scale 255"),
        ((0.0, 1.0), ("--mean", "2", "--std", "0.3"), "without --scale, --mean and --std"),
    ],
)
def test_preprocessing_that_is_not_the_models(
    run: Run, here: Path, how: tuple[float, float], given: tuple[str, ...], said: str
) -> None:
    by_brightness(*how)
    found = run("attack", "raw.onnx", "--data", "levels.npz", *ATTACK, *given)
    assert found.code == 0, found.err
    assert f"warning: {said} 64 of the first 64 samples would be right" in found.err
    option = said.removeprefix("with ").split() if said.startswith("with ") else ()
    found = run("attack", "raw.onnx", "--data", "levels.npz", *ATTACK, *option)
    assert "would be right" not in found.err
    assert f"raw.onnx: {COUNT} of {COUNT} correct" in found.err


def test_evaluate_and_harden_say_so_too(run: Run, here: Path) -> None:
    by_brightness(0.1307, 0.3081)
    text, data = "with --mean mnist --std mnist", ("--data", "levels.npz", "--eps", "0.01")
    evaluated = run(
        "evaluate", "raw.onnx", "--baseline", "raw.onnx", *data, "--attack", "noise", "--no-sanity", "--json"
    )
    assert text in evaluated.out
    hardened = run("harden", "raw.onnx", *data, "--preset", "quick", "--budget", "0%")
    assert hardened.code in {0, 1}, hardened.err
    assert text in hardened.err


def test_a_model_that_is_right_is_not_doubted(run: Run, here: Path) -> None:
    """Neither is one that no usual preprocessing helps: its labels are noise."""
    x, _ = digits()
    np.savez("noise.npz", x=x[:, None], y=np.random.default_rng(0).integers(0, 10, COUNT))
    found = run("attack", "cnn.onnx", "--data", "noise.npz", *ATTACK)
    assert "would be right" not in found.err
