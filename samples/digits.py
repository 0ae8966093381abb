"""Scikit-learn's bundled handwritten digits as batches for the tool: `samples/digits.py:test` and its siblings.

1,797 greyscale images of 8x8 pixels, values 0..16 divided by 16. Every third image (index 2, 5, 8, ...) is for testing,
the others are for training; so the 13 writers, who come one after the other in the data, are on both sides.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]

BATCH_SIZE = 128
SCORE_COUNT = 500


def train() -> Iterator[Batch]:
    """Yield the 1,198 training images, float32 (N, 1, 8, 8) in [0, 1], with their labels."""
    return _batches(*training_arrays())


def score() -> Iterator[Batch]:
    """Yield the first 500 training images, to score features on; `digits_fgsm.npz` holds their FGSM versions."""
    images, labels = training_arrays()
    return _batches(images[:SCORE_COUNT], labels[:SCORE_COUNT])


def test() -> Iterator[Batch]:
    """Yield the 599 test images; `digits_test_fgsm.npz` holds their FGSM versions."""
    return _batches(*test_arrays())


def training_arrays() -> Batch:
    """Return all training images and labels at once."""
    images, labels = _load()
    chosen = np.arange(len(images)) % 3 != 2
    return images[chosen], labels[chosen]


def test_arrays() -> Batch:
    """Return all test images and labels at once."""
    images, labels = _load()
    return images[2::3], labels[2::3]


def _load() -> Batch:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32), labels.astype(np.int64)


def _batches(images: NDArray[np.float32], labels: NDArray[np.int64]) -> Iterator[Batch]:
    for start in range(0, len(images), BATCH_SIZE):
        yield images[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]
