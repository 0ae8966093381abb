"""Memory does not grow with the number of samples."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource, ScriptSource, Source, open_source
from cloakonnx.preprocessing import Preprocessing

SHAPE = (32, 32, 3)
FEW, MANY = 64, 1024
BATCH = 16
SLACK = 400_000  # bytes; 960 more uint8 images would be 2,949,120


def peak(open_it: Callable[[], Source]) -> int:
    """Return the most bytes that going through all batches takes.

    The least of three: what other tests left behind (garbage whose warnings are worded just now) only adds.
    """
    return min(_peak(open_it) for _ in range(3))


def _peak(open_it: Callable[[], Source]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        for _ in Dataset(open_it(), Preprocessing(), (3, 32, 32)).batches(BATCH):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def npy(folder: Path, count: int) -> Callable[[], Source]:
    path = folder / f"{count}.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (count, *SHAPE), np.uint8))
    return lambda: open_source(path)


def images(folder: Path, count: int) -> Callable[[], Source]:
    inside = folder / str(count) / "class"
    inside.mkdir(parents=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8))
    for i in range(count):
        picture.save(inside / f"{i}.bmp")
    return lambda: open_source(inside.parent)


def script(folder: Path, count: int) -> Callable[[], Source]:
    def function() -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        for _ in range(count):
            yield np.zeros((1, *SHAPE), np.uint8)

    return lambda: ScriptSource("s.py:f", function)


@pytest.mark.parametrize("make", [npy, images, script])
def test_streams(tmp_path: Path, make: Callable[[Path, int], Callable[[], Source]]) -> None:
    few, many = make(tmp_path, FEW), make(tmp_path, MANY)
    peak(few)  # imports and caches
    assert peak(many) < peak(few) + SLACK


def test_npz_is_held_once_in_its_own_type(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros((MANY, *SHAPE), np.uint8))
    assert peak(lambda: open_source(path)) < MANY * np.prod(SHAPE) + BATCH * np.prod(SHAPE) * 16 + SLACK
    source = open_source(path)
    assert isinstance(source, ArraySource)
    assert source.x.dtype == np.uint8
