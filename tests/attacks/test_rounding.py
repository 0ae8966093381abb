"""--round: inputs in levels of 1/255, judged as they are stored, on a net whose robust samples can be written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cloakonnx.attacks.attack import attack
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import open_source
from cloakonnx.graph.file.model import load_bytes
from tests.support.classifiers import cpu

CLASSES, SIZE, COUNT = 5, 36, 100


class Linear:
    """A nearest-prototype classifier, linear in x, and samples in levels of 1/255."""

    def __init__(self) -> None:
        rng = np.random.default_rng(77)
        prototypes = rng.uniform(0.2, 0.8, (CLASSES, SIZE))
        self.y = (np.arange(COUNT) % CLASSES).astype(np.int64)
        noisy = prototypes[self.y] + np.random.default_rng(4).normal(0, 0.22, (COUNT, SIZE))
        self.levels = np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
        self.w = (8 * prototypes.T).astype(np.float32)
        self.b = (-4 * (prototypes**2).sum(axis=1)).astype(np.float32)

    def model(self) -> ModelProto:
        made = helper.make_graph(
            [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIZE])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
            [numpy_helper.from_array(self.w, "w"), numpy_helper.from_array(self.b, "b")],
        )
        return helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])

    def robust(self, reach: int) -> int:
        """How many withstand every change of at most so many levels: the worst one is a corner, for each class."""
        levels = self.levels.astype(np.int64)
        up, down = np.minimum(levels + reach, 255) - levels, np.maximum(levels - reach, 0) - levels
        w, own = self.w.astype(np.float64), np.arange(COUNT)
        scores = levels / 255 @ w + self.b
        keep = np.ones(COUNT, bool)
        for label in range(CLASSES):
            slope = w[:, label] - w[:, self.y].T
            worst = scores[:, label] - scores[own, self.y] + np.maximum(slope * up, slope * down).sum(axis=1) / 255
            keep &= (label == self.y) | (worst < 0)
        return int(keep.sum())

    def predicted(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        session = ort.InferenceSession(self.model().SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"x": x})[0].argmax(axis=1))


LINEAR = Linear()


def attacked(folder: Path, x: NDArray[Any], **settings: Any) -> tuple[int, NDArray[np.float32], NDArray[np.bool_]]:
    """Return how many withstand, and what the file holds, as its user reads it."""
    np.savez(folder / "test.npz", x=x, y=LINEAR.y)
    classifier = cpu(load_bytes(LINEAR.model().SerializeToString()))
    dataset = Dataset.of(open_source(folder / "test.npz"), classifier)
    found = attack(classifier, dataset, output=folder / "a.npz", round_levels=True, **settings)
    file = np.load(folder / "a.npz")
    pixels = file["x"] / np.float32(255) if file["x"].dtype == np.uint8 else file["x"]
    return found.robust, pixels, file["success"]


@pytest.mark.parametrize("reach", [20.0, 20.9, 8.0, 1.5])
@pytest.mark.parametrize(
    "settings",
    [
        {"attack": "pgd", "loss": "margin"},
        {"attack": "pgd"},
        {"attack": "fgsm"},
        {"attack": "apgd-ce"},
        {"attack": "apgd-t"},
        {"attack": "fab-t", "max_iter": 20},
        {"attack": "square"},
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_exact_on_levels(tmp_path: Path, settings: dict[str, Any], reach: float) -> None:
    eps = reach / 255
    robust, pixels, success = attacked(tmp_path, LINEAR.levels, eps=eps, **settings)
    assert robust == LINEAR.robust(int(reach))
    assert (np.rint(pixels * 255) / 255).astype(np.float32) == pytest.approx(pixels, abs=1e-7)
    assert np.abs(pixels * 255 - LINEAR.levels).max() <= int(reach) + 1e-3
    wrong = LINEAR.predicted(pixels) != LINEAR.y
    np.testing.assert_array_equal(wrong, success)
    assert int((~wrong).sum()) == robust


def test_what_the_exact_numbers_are() -> None:
    assert LINEAR.robust(0) == COUNT
    assert [LINEAR.robust(reach) for reach in (1, 8, 20)] == [100, 96, 81]


def test_l2_stays_in_the_ball(tmp_path: Path) -> None:
    robust, pixels, success = attacked(tmp_path, LINEAR.levels, attack="pgd", eps=0.4, norm="l2", loss="margin")
    change = np.linalg.norm(pixels.astype(np.float64) - LINEAR.levels / 255, axis=1)
    assert change.max() <= 0.4 * (1 + 1e-5)
    np.testing.assert_array_equal(LINEAR.predicted(pixels) != LINEAR.y, success)
    assert robust < COUNT


def test_targeted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels are the classes to reach; success is that the model says so of what is stored."""
    monkeypatch.setattr(LINEAR, "y", (LINEAR.y + 1) % CLASSES)
    _, pixels, success = attacked(tmp_path, LINEAR.levels, attack="pgd", eps=60 / 255, loss="margin", targeted=True)
    np.testing.assert_array_equal(LINEAR.predicted(pixels) == LINEAR.y, success)
    assert success.any()


def test_samples_that_are_no_levels(tmp_path: Path) -> None:
    """A pixel without a level between it and the clean value keeps the clean value; the others are levels."""
    clean = np.clip(LINEAR.levels / 255 + 0.3 / 255, 0, 1).astype(np.float32)
    robust, pixels, success = attacked(tmp_path, clean, attack="pgd", eps=20 / 255, loss="margin")
    assert np.abs(pixels - clean).max() <= 20 / 255 + 1e-6
    moved = pixels[pixels != clean] * 255
    assert np.abs(moved - np.rint(moved)).max() < 1e-3
    np.testing.assert_array_equal(LINEAR.predicted(pixels) != LINEAR.y, success)
    assert 78 <= robust <= 84
