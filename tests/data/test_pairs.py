"""Clean samples and their adversarial versions."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.data.sources import ArraySource, ScriptSource, Source
from cloakonnx.errors import DataError
from cloakonnx.preprocessing import Preprocessing

CLEAN = np.random.default_rng(0).integers(8, 248, (7, 5, 6, 3), np.uint8)
ADVERSARIAL = CLEAN + 4
WANTED = (3, 5, 6)


def source(name: str, x: NDArray[Any], y: Any = None) -> ArraySource:
    return ArraySource(name, x, None if y is None else np.asarray(y, np.int64))


def pairs(clean: Source, adversarial: Source, limit: int | None = None, wanted: Any = WANTED) -> FittedPairs:
    return FittedPairs(*(Dataset(each, Preprocessing(), wanted, limit=limit) for each in (clean, adversarial)))


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_batches_match(size: int) -> None:
    found = list(pairs(source("a", CLEAN, range(7)), source("b", ADVERSARIAL)).batches(size))
    assert [b.start for b in found] == list(range(0, 7, size))
    clean = np.concatenate([b.clean for b in found])
    adversarial = np.concatenate([b.adversarial for b in found])
    np.testing.assert_allclose(adversarial - clean, 4 / 255, atol=1e-6)
    assert all(b.y is not None for b in found)


def test_adversarial_inputs_may_be_stored_in_another_way() -> None:
    adversarial = (ADVERSARIAL.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    (batch,) = pairs(source("a", CLEAN), source("b", adversarial, range(7))).batches(9)
    np.testing.assert_allclose(batch.adversarial - batch.clean, 4 / 255, atol=1e-6)
    assert batch.y is not None
    assert batch.y.tolist() == list(range(7))


def test_limit_cuts_a_longer_one() -> None:
    found = list(pairs(source("a", CLEAN), source("b", ADVERSARIAL[:4]), limit=4).batches(3))
    assert sum(len(b.clean) for b in found) == 4


LABELS = [0, 0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("labels", [LABELS, None, [2, 2, 1, 1, 0, 0, 0]])
@pytest.mark.parametrize("whole", [True, False])
def test_limit_takes_the_versions_of_the_same_samples(labels: Any, whole: bool) -> None:
    """Whether the file has versions of all samples or of those taken, with the same labels, none or predictions."""
    rows = [0, 4, 6]
    given = None if labels is None else np.asarray(labels, np.int64)
    adversarial, own = (ADVERSARIAL, given) if whole else (ADVERSARIAL[rows], None if given is None else given[rows])
    other = ArraySource("b", adversarial, own, has_predicted_labels=labels != LABELS)
    (batch,) = pairs(source("a", CLEAN, LABELS), other, limit=3).batches(9)
    np.testing.assert_allclose(batch.adversarial - batch.clean, 4 / 255, atol=1e-6)
    np.testing.assert_allclose(batch.clean, (CLEAN[rows] / 255).transpose(0, 3, 1, 2), atol=1e-6)
    assert batch.y is not None
    assert batch.y.tolist() == [0, 1, 2]


def test_limit_takes_the_first_of_both_where_the_clean_ones_have_no_labels() -> None:
    (batch,) = pairs(source("a", CLEAN), source("b", ADVERSARIAL, LABELS), limit=3).batches(9)
    np.testing.assert_allclose(batch.adversarial - batch.clean, 4 / 255, atol=1e-6)
    assert batch.y is not None
    assert batch.y.tolist() == [0, 0, 0]


def test_a_file_of_the_first_ones_is_told_by_its_labels() -> None:
    (batch,) = pairs(source("a", CLEAN, LABELS), source("b", ADVERSARIAL[:5], LABELS[:5]), limit=5).batches(9)
    np.testing.assert_allclose(batch.adversarial - batch.clean, 4 / 255, atol=1e-6)
    assert batch.y is not None
    assert batch.y.tolist() == LABELS[:5]


def test_limit_of_a_script_of_all_versions() -> None:
    (batch,) = pairs(source("a", CLEAN, LABELS), ScriptSource("b.py:f", lambda: [ADVERSARIAL]), limit=3).batches(9)
    np.testing.assert_allclose(batch.adversarial - batch.clean, 4 / 255, atol=1e-6)


def test_limit_of_files_of_other_lengths() -> None:
    with pytest.raises(DataError, match="a has 7 samples, b has 5; pairs need the same number"):
        list(pairs(source("a", CLEAN, LABELS), source("b", ADVERSARIAL[:5], LABELS[:5]), limit=3).batches(3))


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize(("clean", "adversarial"), [(7, 5), (5, 7), (7, 6), (6, 7)])
def test_different_lengths(size: int, clean: int, adversarial: int) -> None:
    a, b = source("a", CLEAN[:clean]), source("b", ADVERSARIAL[:adversarial])
    with pytest.raises(DataError, match=f"a has {clean} samples, b has {adversarial}.*limit"):
        next(pairs(a, b).batches(size))
    by_script = ScriptSource("b.py:f", lambda: [ADVERSARIAL[:adversarial]])
    with pytest.raises(DataError, match=r"a and b\.py:f have different numbers of samples"):
        list(pairs(a, by_script).batches(size))


def test_different_shapes() -> None:
    free = (3, None, None)
    with pytest.raises(DataError, match=r"a has samples of shape \(3, 5, 6\), b of \(3, 5, 5\)"):
        list(pairs(source("a", CLEAN), source("b", ADVERSARIAL[:, :, :5]), wanted=free).batches(3))
    with pytest.raises(DataError, match=r"b: samples of shape \(5, 5, 3\) do not fit"):
        list(pairs(source("a", CLEAN), source("b", ADVERSARIAL[:, :, :5])).batches(3))


def test_different_labels() -> None:
    other = [0, 1, 2, 3, 9, 5, 6]
    with pytest.raises(DataError, match="a and b differ in the label of sample 4: not the same order"):
        list(pairs(source("a", CLEAN, range(7)), source("b", ADVERSARIAL, other)).batches(3))


def test_one_is_empty() -> None:
    for clean, adversarial, name in ((CLEAN[:0], ADVERSARIAL, "a"), (CLEAN, ADVERSARIAL[:0], "b")):
        with pytest.raises(DataError, match=f"{name} is empty"):
            list(pairs(source("a", clean), source("b", adversarial)).batches(3))
