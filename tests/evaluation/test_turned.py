"""Samples gained and lost: what the file says is what ONNX Runtime finds, and a resumed run writes the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import DataError, OutputError
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import Evaluation, load_evaluation
from cloakonnx.evaluation.samples import load_samples
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.masks.harden import harden_file, hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from tests.attacks.helpers import DIGITS, convolution, digits_arrays, flat
from tests.support.classifiers import cpu

from .test_resume import stopper

COUNT, EPS = 160, (1.5 / 16, 1 / 16)
OPTIONS: dict[str, Any] = {
    "eps": EPS,
    "attack": "pgd",
    "max_iter": 5,
    "batch_size": 40,
    "sanity": False,
}


def mask() -> Mask:
    removed = np.ones(64, np.float32)
    removed[::5] = 0
    return Mask("/6/Relu_output_0", removed)


@pytest.fixture(scope="module")
def model() -> Model:
    return hardened(load(DIGITS), [mask()])


def dataset(model: Model, shape: tuple[int, ...] = (1, 8, 8)) -> Dataset:
    x, y = digits_arrays()
    source = ArraySource("digits.npz", x[:COUNT].reshape(-1, *shape), y[:COUNT])
    return Dataset(source, Preprocessing(), input_shape(model), classes=10)


@pytest.fixture(scope="module")
def made(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("turned")
    evaluate(cpu(model), dataset(model), output=folder / "e.json", keep=folder / "s.npz", **OPTIONS)
    assert sorted(each.name for each in folder.iterdir()) == ["e.json", "s.npz"]
    harden_file(load(DIGITS), [mask()], folder / "h.onnx")
    return folder


def predicted(model: str | bytes, x: NDArray[np.float32]) -> NDArray[np.int64]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0].argmax(axis=1))


def test_onnx_runtime_agrees(made: Path) -> None:
    found, evaluation = load_samples(made / "s.npz"), load_evaluation(made / "e.json")
    assert found.evaluation == hashlib.sha256((made / "e.json").read_bytes()).hexdigest()
    assert found.eps == EPS[0]
    assert found.are_images
    turned = found.turned
    x, y = digits_arrays()
    clean, adversarial = (np.moveaxis(each, -1, 1) for each in (turned.x, turned.adversarial))
    np.testing.assert_array_equal(clean, x[turned.index])
    np.testing.assert_array_equal(turned.y, y[turned.index])
    assert np.abs(adversarial - clean).max() <= EPS[0] * (1 + 1e-6)
    assert 0 <= adversarial.min() <= adversarial.max() <= 1
    files = str(made / "h.onnx"), str(DIGITS)
    for each, said in zip(files, (turned.hardened, turned.baseline), strict=True):
        np.testing.assert_array_equal(predicted(each, clean), turned.y)
        np.testing.assert_array_equal(predicted(each, adversarial), said)
    gained = turned.gained
    np.testing.assert_array_equal(turned.hardened == turned.y, gained)
    np.testing.assert_array_equal(turned.baseline != turned.y, gained)
    # The first six of each kind, in the order of the data.
    kept = [int(gained.sum()), int((~gained).sum())]
    assert kept == np.minimum(turned.counts, 6).tolist()
    assert all((np.diff(turned.index[which]) > 0).all() for which in (gained, ~gained))
    # A sample that is robust on one model alone was gained or lost, or the other model was wrong from the start.
    pairs = evaluation.results[0].pairs
    right = [predicted(each, x[:COUNT]) == y[:COUNT] for each in files]
    wrong = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert pairs.only_first - wrong[0] <= turned.counts[0] <= pairs.only_first
    assert pairs.only_second - wrong[1] <= turned.counts[1] <= pairs.only_second
    assert turned.counts.max() > 6  # so that some are left out


def test_the_evaluation_is_the_same_without(model: Model, made: Path) -> None:
    found: Evaluation = evaluate(cpu(model), dataset(model), **OPTIONS)
    assert found.to_json() == (made / "e.json").read_text(encoding="utf-8")


def test_resumed_it_writes_the_same_bytes(model: Model, made: Path, tmp_path: Path) -> None:
    output, samples = tmp_path / "e.json", tmp_path / "s.npz"
    where: dict[str, Any] = {"output": output, "keep": samples}
    with pytest.raises(KeyboardInterrupt):
        evaluate(cpu(model), dataset(model), on_progress=stopper(90, KeyboardInterrupt), **where, **OPTIONS)
    assert [each.name for each in tmp_path.iterdir()] == [".e.json.parts"]
    with pytest.raises(OutputError, match=r"other settings \(samples\)"):
        evaluate(cpu(model), dataset(model), output=output, resume=True, **OPTIONS)
    evaluate(cpu(model), dataset(model), resume=True, **where, **OPTIONS)
    for path in (output, samples):
        assert path.read_bytes() == (made / path.name).read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["e.json", "s.npz"]


STORED = [
    ("flat", (8, 8, 1)),
    ("flat", (1, 8, 8)),
    ("flat", (64,)),
    ("nchw", (3, 8, 8)),
    ("nchw", (8, 8, 3)),
    ("nhwc", (8, 8, 3)),
]


@pytest.mark.parametrize(("kind", "shape"), STORED)
def test_images_are_images_however_they_are_stored(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Also where the model takes vectors; vectors stay vectors."""
    proto = flat(10, features=64) if kind == "flat" else convolution(nhwc=kind == "nhwc", classes=10)
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    first = numpy_helper.to_array(other.graph.initializer[0])
    moved = first + np.random.default_rng(2).normal(size=first.shape).astype(np.float32) * first.std() / 3
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(moved, other.graph.initializer[0].name))
    model, baseline = (load_bytes(each.SerializeToString()) for each in (proto, other))
    rng, channels = np.random.default_rng(1), 1 if kind == "flat" else 3
    images = rng.random((60, 1, 1, channels)) * 0.5 + rng.random((60, 8, 8, channels)) * 0.5  # each of its own colour
    x = (np.moveaxis(images, -1, 1) if shape[0] == 3 else images).reshape(60, *shape).astype(np.float32)
    source = ArraySource("made.npz", x, np.zeros(60, np.int64))
    data = Dataset(source, Preprocessing(), input_shape(model), classes=10)
    taken = next(iter(data.batches(60))).x
    data = dataclasses.replace(data, source=ArraySource("made.npz", x, predicted(proto.SerializeToString(), taken)))
    options = {**OPTIONS, "eps": (0.05,), "baseline": cpu(baseline)}
    evaluate(cpu(model), data, keep=tmp_path / "s.npz", **options)
    turned = load_samples(tmp_path / "s.npz").turned
    assert len(turned.index) >= 1
    assert load_samples(tmp_path / "s.npz").are_images == (shape != (64,))
    chosen = x[turned.index]
    np.testing.assert_array_equal(turned.x, np.moveaxis(chosen, 1, -1) if shape[0] in (1, 3) else chosen)
    assert 0 < np.abs(turned.adversarial - turned.x).max() <= 0.05 * (1 + 1e-6)


def test_bad_files(made: Path, tmp_path: Path, model: Model) -> None:
    with np.load(made / "s.npz") as arrays:
        good = dict(arrays)
    bad = tmp_path / "bad.npz"

    def refused(said: str, **changed: Any) -> None:
        np.savez(bad, **{key: value for key, value in {**good, **changed}.items() if value is not None})
        with pytest.raises(DataError, match=said):
            load_samples(bad)

    refused("has no array 'format'", format=None)
    refused("holds no samples of an evaluation", format=np.array("cloakonnx.else"))
    refused("holds no samples of an evaluation", format=np.array(3))
    refused("has version 2, this cloakonnx reads 1", version=np.array(2))
    refused("y is missing", y=None)
    refused("y has type float64", y=good["y"].astype(np.float64))
    refused("adversarial has type float32 and shape", adversarial=good["adversarial"][1:])
    refused("x has shape", x=good["x"][1:], adversarial=good["adversarial"][1:])
    refused("values that are no numbers", x=good["x"] * np.float32(np.nan))
    refused("eps has type", eps=np.array("0.1"))
    refused("counts has type", counts=np.array(3))
    refused("pickled", evaluation=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="no file or folder"):
        load_samples(tmp_path / "none.npz")
    with pytest.raises(OutputError, match="there is no folder"):
        evaluate(cpu(model), dataset(model), keep=tmp_path / "nowhere" / "s.npz", **OPTIONS)
