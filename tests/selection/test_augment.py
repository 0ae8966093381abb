"""Images that are mirrored and shifted to learn masks on, and whether a recipe asks for it by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import DataError
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.selection.learn.augment import Augmentation
from cloakonnx.selection.learn.settled import settled
from tests.selection.helpers import QUICK, dataset, training_arrays

pytest.importorskip("sklearn")


def color_data(x: NDArray[np.float32], y: NDArray[np.int64], bounds: tuple[float, float] = (0, 1)) -> Dataset:
    return Dataset(ArraySource("c", x.repeat(3, axis=1), y), Preprocessing(bounds=bounds), (3, 8, 8))


def test_what_a_recipe_leaves_open_is_settled_by_the_samples() -> None:
    x, y = training_arrays()
    table = Dataset(ArraySource("t", x.reshape(len(x), -1), y), Preprocessing(), (64,))
    for data, flip, shift in ((color_data(x, y), True, 1), (dataset(x, y), False, 0), (table, False, 0)):
        found = settled(QUICK, data, count=150)
        assert (found.flip, found.shift) == (flip, shift)
        assert settled(replace(QUICK, flip=not flip, shift=3), data, count=150) == replace(
            QUICK, flip=not flip, shift=3
        )
    for count, epochs in ((4000, 8), (50_000, 8), (1198, 27), (150, 40), (7, 40)):
        assert settled(replace(QUICK, epochs=None), table, count=count).epochs == epochs
    assert Augmentation.of(settled(QUICK, table, count=150), table) is None


def test_images_are_mirrored_by_sample_and_epoch() -> None:
    x, y = training_arrays()
    mirrored = Augmentation.of(replace(QUICK, flip=True, shift=0), color_data(x, y))
    assert mirrored is not None
    x, rows = x[:100].repeat(3, axis=1), np.arange(100)
    found = mirrored(x, rows, epoch=0)
    turned = (found == x[..., ::-1]).all(axis=(1, 2, 3))
    assert 30 < turned.sum() < 70
    assert (found[~turned] == x[~turned]).all()
    assert np.array_equal(mirrored(x[50:], rows[50:], epoch=0), found[50:])
    assert not np.array_equal(mirrored(x, rows, epoch=1), found)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_images_are_shifted_and_black_comes_in(bounds: tuple[float, float]) -> None:
    x, y = training_arrays()
    shifted = Augmentation.of(replace(QUICK, flip=False, shift=2), color_data(x, y, bounds))
    assert shifted is not None
    x, rows = x[:200].repeat(3, axis=1), np.arange(200)
    found = shifted(x, rows, epoch=3)
    seen = set()
    for image, moved in zip(x, found, strict=True):
        wide = np.full((3, 12, 12), bounds[0], np.float32)
        wide[:, 2:10, 2:10] = image
        places = [(i, j) for i in range(5) for j in range(5) if np.array_equal(wide[:, i : i + 8, j : j + 8], moved)]
        assert places
        seen.update(places[:1])
    assert len(seen) > 15
    assert np.array_equal(shifted(x[50:], rows[50:], epoch=3), found[50:])


def test_what_is_no_image_cannot_be_mirrored_or_shifted() -> None:
    x, y = training_arrays()
    table = Dataset(ArraySource("t", x.reshape(len(x), -1), y), Preprocessing(), (64,))
    for wanted, option in (({"flip": True}, "flip"), ({"shift": 2}, "shift")):
        with pytest.raises(DataError, match=f"are no images with channels.* leave out {option}"):
            Augmentation.of(settled(replace(QUICK, **wanted), table, count=150), table)
    with pytest.raises(DataError, match="shift 8 moves images of 8 pixels out of sight"):
        Augmentation.of(replace(QUICK, shift=8), dataset(x, y))
