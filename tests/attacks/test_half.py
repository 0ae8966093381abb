"""Float16 models: attacks see the function that the model's user runs, and that function tells success."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from cloakonnx.attacks.attack import attack
from cloakonnx.attacks.base import make
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import open_source
from cloakonnx.gradient.losses import Loss
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.session import to_numpy

from .helpers import Images, Labels, flat, victim

HOW = Preprocessing(mean=(0.5,), std=(0.02,))
"""Brings pixels to [-25, 25], where float16 has steps of up to 1/64: about 1/3000 in pixel space."""

EPS = 0.002


def images(count: int) -> Images:
    return np.random.default_rng(1).random((count, 12)).astype(np.float32)


def entry(x: Images) -> NDArray[np.float16]:
    """Return what the user of a float16 model feeds it with."""
    return ((x - np.float32(HOW.mean[0])) / np.float32(HOW.std[0])).astype(np.float16)


def in_use(made: onnx.ModelProto, x: Images) -> NDArray[Any]:
    """Return the scores of the file itself."""
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": entry(x)})[0])


def near_the_border(made: onnx.ModelProto) -> tuple[Images, Labels]:
    """Return samples whose class a small step may change, and their classes."""
    x = images(3000)
    scores = np.sort(in_use(made, x).astype(np.float64), axis=1)
    x = x[np.argsort(scores[:, -1] - scores[:, -2])[:300]]
    return x, in_use(made, x).argmax(axis=1)


def test_logits_are_those_in_use() -> None:
    """The graph in float32 rounds where the file does: its input, and its logits."""
    made = flat(4, dtype=np.float16)
    classifier = victim(made, preprocessing=HOW)
    x = images(400)
    expected = in_use(made, x)
    np.testing.assert_array_equal(classifier.logits(x), expected)
    y = expected.argmax(axis=1)
    # Between input and logits ONNX Runtime rounds where it finds kernels for float16: not at the same places.
    logits = classifier.gradient(x, y, loss=Loss.CE).logits
    np.testing.assert_array_equal(logits, np.float16(logits))
    np.testing.assert_allclose(logits, expected, rtol=0.01, atol=0.25)
    # Pixels that are the same number in float16 are the same to the gradient graph.
    near = x + np.float32(1e-6)
    same = (entry(near) == entry(x)).all(axis=1)
    assert same.sum() > 100
    np.testing.assert_array_equal(classifier.gradient(near, y, loss=Loss.CE).logits[same], logits[same])
    fixed = victim(made, preprocessing=HOW, sample_shape=(12,))
    np.testing.assert_array_equal(fixed.logits(x), expected)
    # Unrounded values would be seen: they give other logits for most samples.
    wide = victim(flat(4), preprocessing=HOW)
    assert (np.float16(wide.logits(x)) != expected).any(axis=1).mean() > 0.5


def test_gradients_are_not_rounded() -> None:
    """The loss of a saturated sample has gradients far below float16's least number, 6e-8."""
    made = flat(4, dtype=np.float16)
    classifier = victim(made, preprocessing=HOW)
    x = images(400)
    logits = np.sort(classifier.logits(x), axis=1)
    gap = logits[:, -1] - logits[:, -2]
    sure = (gap > 30) & (gap < 80)  # float32 holds e^-80
    assert sure.sum() > 20
    gradient = to_numpy(classifier.gradient(x, classifier.predict(x), loss=Loss.CE).gradient)
    assert gradient.dtype == np.float32
    largest = np.abs(gradient[sure]).max(axis=1)
    assert (largest > 0).all()
    assert largest.min() < 6e-8


def test_saved_inputs(tmp_path: Path) -> None:
    """The flags of a file fit its inputs, which are levels of 1/255 read back: not quite the attack's float32 pixels.

    The scale puts some levels between two float16 numbers, so that their last bit decides.
    """
    how = Preprocessing(scale=255 * 131 / 2048)

    def in_use(x: Images) -> Labels:
        session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"x": (x * np.float32(how.scale)).astype(np.float16)})[0].argmax(axis=1))

    made = flat(4, dtype=np.float16)
    x = np.random.default_rng(2).integers(0, 246, (4000, 12)).astype(np.uint8)
    y = in_use(np.divide(x, np.float32(255), dtype=np.float32))
    np.savez(tmp_path / "clean.npz", x=x, y=y)
    dataset = Dataset(open_source(tmp_path / "clean.npz"), how, (12,))
    classifier = victim(made, preprocessing=Preprocessing(scale=how.scale))
    fgsm = make("fgsm", eps=10 / 255)
    attack(classifier.classifier, dataset, output=tmp_path / "a.npz", attack=fgsm, batch_size=4000)
    saved = np.load(tmp_path / "a.npz")
    assert saved["x"].dtype == np.uint8
    assert saved["success"].any()
    read_back = np.divide(saved["x"], np.float32(255), dtype=np.float32)
    np.testing.assert_array_equal(in_use(read_back) != y, saved["success"])


@pytest.mark.parametrize("final", [None, "Softmax"])
@pytest.mark.parametrize(
    ("attack", "options"),
    [
        ("fgsm", {}),
        ("pgd", {"max_iter": 10}),
        ("apgd-ce", {"max_iter": 10}),
        ("square", {"max_iter": 30}),
        ("noise", {}),
    ],
)
def test_success_is_that_of_the_file(final: str | None, attack: str, options: dict[str, Any]) -> None:
    """Attacks stop just behind the border, where rounding decides, and where two float16 probabilities may be equal."""
    made = flat(4, dtype=np.float16, final=final)
    classifier = victim(made, preprocessing=HOW)
    x, y = near_the_border(made)
    np.testing.assert_array_equal(classifier.predict(x), y)
    found = make(attack, eps=EPS, **options).run(classifier, x, y)
    assert found.success.any()
    np.testing.assert_array_equal(in_use(made, found.x).argmax(axis=1) != y, found.success)
    aim = (y + 1) % 4
    if attack != "apgd-ce":
        found = make(attack, eps=EPS, targeted=True, **options).run(classifier, x, aim)
        np.testing.assert_array_equal(in_use(made, found.x).argmax(axis=1) == aim, found.success)
