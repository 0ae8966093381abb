"""Parts of a source: which samples fall where, and that they come as they are stored."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource, ScriptSource, Source, open_source
from cloakonnx.data.subset import Subset, evenly, interleaved, survey
from cloakonnx.errors import DataError
from cloakonnx.preprocessing import Preprocessing


def samples(count: int, *, labels: NDArray[np.int64] | None = None) -> ArraySource:
    x = np.arange(count * 2, dtype=np.uint8).reshape(count, 2)
    return ArraySource("x.npz", x, np.arange(count) % 3 if labels is None else labels)


def script(source: ArraySource, size: int) -> ScriptSource:
    def function() -> Iterator[Any]:
        for batch in source.batches(size):
            yield batch.x, batch.y

    return ScriptSource("s.py:f", function)


@given(
    count=st.integers(1, 40),
    size=st.integers(1, 11),
    chunk=st.integers(1, 9),
    scripted=st.booleans(),
    data=st.data(),
)
def test_batches_are_the_rows_and_nothing_else(
    count: int, size: int, chunk: int, scripted: bool, data: st.DataObject
) -> None:
    whole = samples(count)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    source: Source = script(whole, chunk) if scripted else whole
    part = Subset(source, rows, "part")
    batches = list(part.batches(size))
    assert part.count() == len(rows)
    assert [len(b.x) for b in batches[:-1]] == [size] * (len(batches) - 1)
    assert [b.start for b in batches] == list(range(0, len(rows), size))
    np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), whole.x[rows])
    assert whole.y is not None
    np.testing.assert_array_equal(np.concatenate([b.y for b in batches if b.y is not None]), whole.y[rows])


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=6), seed=st.integers(0, 5), cut=st.floats(0, 1))
def test_every_stretch_has_the_classes_in_about_their_shares(counts: list[int], seed: int, cut: float) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = interleaved([np.flatnonzero(labels == label) for label in range(len(counts))], seed=seed)
    assert sorted(order) == list(range(len(labels)))
    first = labels[order[: round(cut * len(labels))]]
    for label, count in enumerate(counts):
        assert abs((first == label).sum() - cut * count) <= len(counts) + 1


def test_the_seed_decides_the_order() -> None:
    strata = list(np.arange(50).reshape(10, 5).T)
    np.testing.assert_array_equal(interleaved(strata, seed=1), interleaved(strata, seed=1))
    assert not np.array_equal(interleaved(strata, seed=1), interleaved(strata, seed=2))


def test_survey_tells_samples_apart() -> None:
    whole = samples(10)
    found = survey(whole)
    assert whole.y is not None
    np.testing.assert_array_equal(found.labels, whole.y)
    assert survey(script(whole, 3)).digest != survey(whole, limit=9).digest
    assert survey(samples(9)).digest == survey(whole, limit=9).digest
    turned = ArraySource("x", whole.x[::-1], whole.y)
    relabelled = ArraySource("x", whole.x, whole.y[::-1])
    wider = ArraySource("x", whole.x.astype(np.float32), whole.y)
    assert len({survey(each).digest for each in (whole, turned, relabelled, wider)}) == 4


def test_survey_needs_labels_and_samples() -> None:
    with pytest.raises(DataError, match="has no labels"):
        survey(ArraySource("x.npy", np.zeros((2, 2)), None))
    with pytest.raises(DataError, match="is empty"):
        survey(ArraySource("x.npy", np.zeros((0, 2)), np.zeros(0, np.int64)))


@pytest.mark.parametrize("seed", range(20))
def test_evenly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 2, 5, 6, 9], int(rng.integers(5, 60)), p=[0.5, 0.3, 0.1, 0.05, 0.05])
    classes, counts = np.unique(labels, return_counts=True)
    for most in range(1, len(labels) + 3):
        rows = evenly(labels, most)
        assert len(rows) == min(most, len(labels))
        assert (np.diff(rows) > 0).all()
        taken = np.array([(labels[rows] == each).sum() for each in classes])
        # No class has two fewer than another, except where it gave all that it has.
        assert all(t == c or t >= taken.max() - 1 for t, c in zip(taken, counts, strict=True))
        for each, t in zip(classes, taken, strict=True):
            np.testing.assert_array_equal(rows[labels[rows] == each], np.flatnonzero(labels == each)[:t])


def test_fewer_than_classes_are_spread_over_them() -> None:
    assert evenly(np.repeat(np.arange(1000), 3), 4).tolist() == [375, 1125, 1875, 2625]


def test_images_that_are_left_out_are_not_decoded(tmp_path: Path) -> None:
    for label in range(3):
        (tmp_path / str(label)).mkdir()
        Image.new("RGB", (4, 4), (label, 0, 0)).save(tmp_path / str(label) / "0.png")
        (tmp_path / str(label) / "1.png").write_bytes(b"damaged")
    data = Dataset(open_source(tmp_path), Preprocessing(), (3, 4, 4), limit=3)
    (batch,) = data.batches(5)
    np.testing.assert_array_equal(batch.x[:, 0, 0, 0], np.arange(3, dtype=np.float32) / np.float32(255))
    assert batch.y is not None
    assert batch.y.tolist() == [0, 1, 2]
