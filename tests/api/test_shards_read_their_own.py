"""A shard reads its own samples alone, where the source has them by rows; results are those of the whole run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cloakonnx as ck
from cloakonnx.data._images import ImageFolder
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource

CNN = "samples/digits_cnn.onnx"
SIZE, BATCHES, OF = 6, 8, 4
COUNT = SIZE * BATCHES
LIMIT = COUNT - 7
Read = list[int]


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with np.load("samples/digits_test_fgsm.npz") as found:
        return np.rint(found["x"][:COUNT] * 255).astype(np.uint8), found["y"][:COUNT].astype(np.int64)


def as_images(folder: Path) -> ck.Samples:
    for number, (sample, label) in enumerate(zip(*digits(), strict=True)):
        path = folder / "images" / str(label) / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample[0]).save(path)
    return ck.Samples(folder / "images")


def as_a_map(folder: Path) -> ck.Samples:
    for name, values in zip("xy", digits(), strict=True):
        np.save(folder / f"{name}.npy", values)
    return ck.Samples(folder / "x.npy", labels=folder / "y.npy")


def as_arrays(folder: Path) -> ck.Samples:
    return ck.Samples(digits())


KINDS = pytest.mark.parametrize("kind", [as_images, as_a_map, as_arrays])


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return how many samples were read, a number for each look at the data: images decoded, and rows of arrays."""
    counted: Read = []

    def counting(function: Callable[..., Any], size: Callable[[Any], int]) -> Callable[..., Any]:
        def counts(self: Any, wanted: Any) -> Any:
            found = function(self, wanted)
            counted.append(size(found))
            return found

        return counts

    monkeypatch.setattr(ImageFolder, "_decode", counting(ImageFolder._decode, lambda image: 1))
    monkeypatch.setattr(ArraySource, "_samples", counting(ArraySource._samples, len))
    return counted


def in_shards(folder: Path, read: Read, function: Callable[..., Any], *args: Any, **options: Any) -> list[int]:
    """Run all shards, and return how many samples each has read beside those that one without a batch looks at.

    Of images a shard with a batch decodes the first one as well, which says how large all have to be.
    """

    def of_one(number: int, of: int, output: Path) -> int:
        read.clear()
        ck.engines.Shard(number, of, output).run(function, *args, **options)
        return sum(read)

    looked_at = of_one(BATCHES + 1, BATCHES + 1, folder / "empty")
    return [of_one(number, OF, folder / f"{number}.shard") - looked_at for number in range(1, OF + 1)]


@KINDS
def test_an_evaluation(tmp_path: Path, read: Read, kind: Callable[[Path], ck.Samples]) -> None:
    samples = kind(tmp_path)
    asked: dict[str, Any] = {"eps": [1 / 16], "batch_size": SIZE, "attack": "pgd", "max_iter": 2, "sanity": False}
    whole = ck.evaluate(CNN, samples, **asked)
    found = in_shards(tmp_path, read, ck.evaluate, CNN, samples, **asked)
    assert found == [COUNT // OF + (kind is as_images)] * OF
    merged = ck.engines.merge(tmp_path.glob("*.shard"), ck.evaluate, CNN, samples, **asked)
    assert merged.to_json() == whole.to_json()


@KINDS
def test_an_attack_on_some_samples(tmp_path: Path, read: Read, kind: Callable[[Path], ck.Samples]) -> None:
    """A limit takes the classes evenly: some rows of the source, not the first ones; the last batch is short."""
    samples = replace(kind(tmp_path), limit=LIMIT)
    asked: dict[str, Any] = {"eps": 1 / 16, "batch_size": SIZE}
    whole = ck.attack(CNN, samples, "fgsm", **asked)
    found = in_shards(tmp_path, read, ck.attack, CNN, samples, "fgsm", **asked)
    assert sum(found) == LIMIT + OF * (kind is as_images)
    assert max(found) <= -(-BATCHES // OF) * SIZE + (kind is as_images)
    merged = ck.engines.merge(tmp_path.glob("*.shard"), ck.attack, CNN, samples, "fgsm", **asked)
    np.testing.assert_array_equal(merged.x, whole.x)
    np.testing.assert_array_equal(merged.success, whole.success)


@KINDS
def test_pairs(tmp_path: Path, read: Read, kind: Callable[[Path], ck.Samples]) -> None:
    samples = kind(tmp_path)
    moved = ck.attack(CNN, samples, "fgsm", eps=1 / 16, output=tmp_path / "moved.npz")
    pairs = ck.Pairs(samples, moved.path)
    whole = ck.analyze(CNN, pairs, batch_size=SIZE)
    found = in_shards(tmp_path, read, ck.analyze, CNN, pairs, batch_size=SIZE)
    assert found == [2 * COUNT // OF + (kind is as_images)] * OF
    merged = ck.engines.merge(tmp_path.glob("*.shard"), ck.analyze, CNN, pairs, batch_size=SIZE)
    assert merged.to_json() == whole.to_json()


def test_both_passes_of_a_sweep(tmp_path: Path, read: Read) -> None:
    """In the second one a batch of samples comes once for each mask: a shard reads those of which it has any."""
    samples = as_a_map(tmp_path)
    pairs = ck.Pairs(samples, ck.attack(CNN, samples, "fgsm", eps=1 / 16, output=tmp_path / "moved.npz").path)
    analysis = ck.analyze(CNN, pairs, batch_size=SIZE)
    asked: dict[str, Any] = {"batch_size": SIZE, "amounts": ["0%", "10%"], "adaptive_at": ["0%", "10%"]}
    asked |= {"attack": "pgd", "max_iter": 1, "eps": [1 / 16]}
    whole = ck.sweep(CNN, analysis, pairs, **asked)
    found = in_shards(tmp_path, read, ck.sweep, CNN, analysis, pairs, **asked)
    assert max(found) <= 2 * COUNT // OF + 2 * 2 * COUNT // OF  # with pairs: clean and moved samples
    merged = ck.engines.merge(tmp_path.glob("*.shard"), ck.sweep, CNN, analysis, pairs, **asked)
    assert merged.to_json() == whole.to_json()


def test_grey_images_among_coloured_ones(tmp_path: Path) -> None:
    """The first image of the folder says how many channels they have, not the first one of a shard."""
    x = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    (tmp_path / "images" / "0").mkdir(parents=True)
    for number, pixels in enumerate(x):
        path = tmp_path / "images" / "0" / f"{number}.png"
        Image.fromarray(pixels if number % 4 == 0 else pixels[..., 0]).save(path)
    dataset = Dataset(ck.Samples(tmp_path / "images").source, ck.Preprocessing(), None)
    whole = list(dataset.batches(3))
    for wanted in range(3):
        picked = list(dataset.batches(3, wanted=wanted.__eq__))
        assert [batch.size for batch in picked] == [3, 3, 2]
        for number, (one, other) in enumerate(zip(picked, whole, strict=True)):
            np.testing.assert_array_equal(one.x, other.x if number == wanted else np.zeros_like(other.x))
            np.testing.assert_array_equal(one.y, other.y)


def test_a_function_is_gone_through(tmp_path: Path) -> None:
    """It yields one sample after the other, so that a shard has to ask for all."""
    x, y = digits()
    samples = ck.Samples(lambda: iter([(x[:20], y[:20]), (x[20:], y[20:])]))
    whole = ck.attack(CNN, samples, "fgsm", eps=1 / 16, batch_size=SIZE)
    shards = [ck.engines.Shard(n, OF, tmp_path / f"{n}.shard") for n in range(1, OF + 1)]
    paths = [each.run(ck.attack, CNN, samples, "fgsm", eps=1 / 16, batch_size=SIZE) for each in shards]
    merged = ck.engines.merge(paths, ck.attack, CNN, samples, "fgsm", eps=1 / 16, batch_size=SIZE)
    np.testing.assert_array_equal(merged.x, whole.x)


def test_shards_of_other_samples_are_named(tmp_path: Path) -> None:
    """No shard knows the samples of the others: the merge does."""
    x, y = digits()
    asked: dict[str, Any] = {"eps": 1 / 16, "batch_size": SIZE}
    one = ck.engines.Shard(1, 2, tmp_path / "1.shard").run(ck.attack, CNN, (x, y), "fgsm", **asked)
    two = ck.engines.Shard(2, 2, tmp_path / "2.shard").run(ck.attack, CNN, (x[::-1], y[::-1]), "fgsm", **asked)
    with pytest.raises(ck.CloakError, match=r"not those of the shards.* \(batch 1, of .*2\.shard\); name"):
        ck.engines.merge([one, two], ck.attack, CNN, (x, y), "fgsm", **asked)
