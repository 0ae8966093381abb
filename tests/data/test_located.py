"""Batches that travel without their pixels: read again from the same files, or not at all."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.given import Pairs, Samples
from cloakonnx.data.located import Located, without_pixels
from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.evaluation.sweeps._adaptive import MaskedBatch
from cloakonnx.evaluation.sweeps._amounts import labelled
from tests.attacks.helpers import DIGITS

COUNT = 23


def arrays(kind: str = "levels") -> tuple[NDArray[Any], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (COUNT, 1, 8, 8)).astype(np.uint8)
    return (x if kind == "levels" else (x / np.float32(255)).astype(kind)), np.arange(COUNT) % 10


def npy(folder: Path) -> Samples:
    x, y = arrays()
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return Samples(folder / "x.npy", labels=folder / "y.npy")


def npy_by_columns(folder: Path) -> Samples:
    x, y = arrays("float64")
    np.save(folder / "x.npy", np.asfortranarray(x))
    np.save(folder / "y.npy", y)
    return Samples(folder / "x.npy", labels=folder / "y.npy")


def npz(folder: Path) -> Samples:
    x, y = arrays("float32")
    np.savez(folder / "x.npz", other=np.zeros(3), y=y, x=x)
    return Samples(folder / "x.npz")


def channels_last(folder: Path) -> Samples:
    x, y = arrays()
    np.savez(folder / "x.npz", x=x.transpose(0, 2, 3, 1), y=y)
    return Samples(folder / "x.npz")


def by_class(folder: Path) -> Samples:
    """With rows that do not follow each other."""
    return Samples(npz(folder).given, limit=9)


def pictures(folder: Path) -> Samples:
    x, y = arrays()
    for number in range(10):
        (folder / "images" / str(number)).mkdir(parents=True)
    for number, (sample, label) in enumerate(zip(x, y, strict=True)):
        Image.fromarray(sample[0]).save(folder / "images" / str(label) / f"{number:03d}.png")
    return Samples(folder / "images")


def some_pictures(folder: Path) -> Samples:
    return Samples(pictures(folder).given, limit=9)


def fitted(samples: Any) -> Dataset:
    return Dataset.of(samples, Classifier(DIGITS))


def sent(batch: Any) -> Located:
    """Return what another process gets."""
    found = without_pixels(batch)
    assert found is not None
    content = pickle.dumps(found)
    assert len(content) < 2000
    back: Located = pickle.loads(content)
    return back


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    for name in a._fields:
        x, y = getattr(a, name), getattr(b, name)
        if hasattr(x, "_fields"):
            same(x, y)
        elif name != "origins":
            np.testing.assert_array_equal(x, y)
            assert getattr(x, "dtype", None) == getattr(y, "dtype", None)


KINDS = [npy, npy_by_columns, npz, channels_last, by_class, pictures, some_pictures]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """From any working directory."""
    monkeypatch.chdir(tmp_path)
    batches = list(fitted(make(Path())).batches(5))
    monkeypatch.chdir("/")
    assert len(batches) > 1
    for batch in batches:
        same(sent(batch).whole(), batch)
        of_labelled = batch.labelled("")
        same(sent(of_labelled).whole(), of_labelled)


def test_pairs(tmp_path: Path) -> None:
    x, y = arrays("float32")
    for name, shift in (("clean", 0.0), ("versions", 0.01)):
        np.savez(tmp_path / f"{name}.npz", x=np.clip(x + np.float32(shift), 0, 1), y=y)
    pairs = FittedPairs.of(Pairs(tmp_path / "clean.npz", tmp_path / "versions.npz"), Classifier(DIGITS))
    for batch in pairs.batches(7):
        same(sent(batch).whole(), batch)
    for each in labelled(pairs, 7):
        same(sent(each).whole(), each)
        of_mask = MaskedBatch(3, each.clean)
        same(sent(of_mask).whole(), of_mask)


def as_script(folder: Path) -> Any:
    x, y = arrays("float32")
    return lambda: iter([(x, y)])


def in_memory(folder: Path) -> Any:
    return arrays("float32")


def packed(folder: Path) -> Any:
    x, y = arrays("float32")
    np.savez_compressed(folder / "x.npz", x=x, y=y)
    return folder / "x.npz"


@pytest.mark.parametrize("make", [as_script, in_memory, packed], ids=lambda make: make.__name__)
def test_what_can_not_be_read_by_rows_travels(tmp_path: Path, make: Any) -> None:
    assert [without_pixels(batch) for batch in fitted(make(tmp_path)).batches(20)] == [None, None]


def removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def longer(path: Path) -> None:
    for each in _files(path):
        each.write_bytes(each.read_bytes() + b"more")


def other_values(path: Path) -> None:
    for each in _files(path):
        if each.suffix == ".png":
            Image.fromarray(255 - np.asarray(Image.open(each))).save(each)
        else:
            content = bytearray(each.read_bytes())
            middle = len(content) // 2
            content[middle : middle + 4096] = bytes(4096)
            each.write_bytes(content)


def _files(path: Path) -> Iterator[Path]:
    return (each for each in path.rglob("*") if each.is_file()) if path.is_dir() else iter([path])


@pytest.mark.parametrize("change", [removed, longer, other_values], ids=lambda change: change.__name__)
@pytest.mark.parametrize("make", [npz, pictures], ids=lambda make: make.__name__)
def test_other_files_are_not_taken(tmp_path: Path, make: Any, change: Any) -> None:
    samples = make(tmp_path)
    batches = [sent(batch) for batch in fitted(samples).batches(COUNT)]
    change(Path(samples.given))
    found = [batch.whole() for batch in batches]
    is_taken = make is pictures and change is longer  # bytes behind an image change no pixel
    assert [each is not None for each in found] == [is_taken]
