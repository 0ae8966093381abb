"""Random numbers are a function of (seed, attack, restart, sample index), and look random."""

from __future__ import annotations

import numpy as np
import pytest

from cloakonnx.attacks.random import Stream

MANY = np.arange(2000)
KNOWN = [[0.8146909860640503, 0.9399005442760698], [0.9655532504210141, 0.04249713364506613]]


def test_known_numbers() -> None:
    """Results of one version can be had again with the next one."""
    stream = Stream.of(7, "pgd", 1, np.array([0, 5]))
    found = stream.uniform((2,), draw=3)
    again = Stream.of(7, "pgd", 1, np.array([5, 0])).uniform((2,), draw=3)
    np.testing.assert_array_equal(found, again[::-1])
    np.testing.assert_allclose(found, KNOWN, rtol=0, atol=1e-15)


def test_a_sample_has_its_own_numbers_whatever_else_is_in_the_batch() -> None:
    whole = Stream.of(0, "pgd", 0, MANY)
    for draw in ("uniform", "normal", "signs"):
        all_numbers = getattr(whole, draw)((3, 4), draw=2)
        some = getattr(Stream.of(0, "pgd", 0, MANY[[77, 5, 1999]]), draw)((3, 4), draw=2)
        np.testing.assert_array_equal(some, all_numbers[[77, 5, 1999]])
        taken = getattr(whole.take(np.array([9, 2])), draw)((3, 4), draw=2)
        np.testing.assert_array_equal(taken, all_numbers[[9, 2]])


@pytest.mark.parametrize("other", [(1, "pgd", 0), (0, "apgd-ce", 0), (0, "pgd", 1)])
def test_seed_attack_and_restart_each_give_other_numbers(other: tuple[int, str, int]) -> None:
    one, two = (Stream.of(*key, MANY[:50]).uniform((20,)) for key in ((0, "pgd", 0), other))
    assert not np.isin(one, two).any()


def test_draws_and_samples_differ() -> None:
    stream = Stream.of(0, "square", 0, MANY[:100])
    numbers = np.stack([stream.uniform((10,), draw=draw) for draw in range(20)])
    assert len(np.unique(numbers)) == numbers.size


@pytest.mark.parametrize("shape", [(1,), (50,)])
def test_uniform(shape: tuple[int, ...]) -> None:
    """Moments within 5 standard errors, equally full bins, no correlation between neighbours."""
    numbers = np.concatenate([Stream.of(3, "a", r, MANY).uniform(shape, draw=r) for r in range(10)])
    n = numbers.size
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 5 / np.sqrt(12 * n)
    assert abs(numbers.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    counts = np.histogram(numbers, 64, (0, 1))[0]
    chi_square = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert chi_square < 63 + 5 * np.sqrt(2 * 63)
    flat = numbers.reshape(-1)
    assert abs(np.corrcoef(flat[1:], flat[:-1])[0, 1]) < 5 / np.sqrt(n)


def test_normal() -> None:
    numbers = Stream.of(0, "a", 0, MANY).normal((50,))
    n = numbers.size
    assert abs(numbers.mean()) < 5 / np.sqrt(n)
    assert abs((numbers**2).mean() - 1) < 5 * np.sqrt(2 / n)
    assert abs((numbers**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((numbers**4).mean() - 3) < 5 * np.sqrt(96 / n)


def test_signs_and_integers() -> None:
    stream = Stream.of(0, "a", 0, MANY)
    signs = stream.signs((50,))
    assert set(np.unique(signs)) == {-1, 1}
    assert signs.dtype == np.float32
    assert abs(signs.mean()) < 5 / np.sqrt(signs.size)
    whole = stream.integers(7)
    counts = np.bincount(whole, minlength=7)
    assert len(counts) == 7
    assert ((counts - len(MANY) / 7) ** 2 / (len(MANY) / 7)).sum() < 6 + 5 * np.sqrt(12)
    assert (stream.integers(1) == 0).all()
