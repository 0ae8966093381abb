"""Batches on many workers, played through: against cases worked out by hand, and bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cloakonnx.engine.schedule import Overheads, schedule
from cloakonnx.errors import OptionError


@pytest.mark.parametrize(
    ("times", "workers", "overheads", "seconds"),
    [
        ([1.0, 2.0, 3.0], 1, Overheads(), 6.0),
        ([1.0] * 10, 4, Overheads(), 3.0),
        ([1.0] * 3, 100, Overheads(start=5.0), 6.0),
        # One driver gives a batch a second: the tenth arrives after 10 s and takes 1 s.
        ([1.0] * 10, 100, Overheads(dispatch=1.0), 11.0),
        # The third batch waits behind the short one of the first worker, the fourth behind the long one.
        ([1.0, 9.0, 1.0, 1.0], 2, Overheads(), 10.0),
        ([], 3, Overheads(), 0.0),
    ],
)
def test_by_hand(times: list[float], workers: int, overheads: Overheads, seconds: float) -> None:
    found = schedule(times, workers, overheads=overheads)
    assert found.seconds == pytest.approx(seconds)
    assert found.work == pytest.approx(sum(times))
    assert (found.lost, found.failures) == (0, 0)


@pytest.mark.parametrize("workers", [1, 2, 7, 64, 1000])
def test_between_the_bounds_of_list_scheduling(workers: int) -> None:
    """No faster than the work divided, nor than the longest batch; no slower than one batch in the wrong place."""
    times = np.random.default_rng(0).lognormal(0, 0.5, 2000)
    found = schedule(times.tolist(), workers)
    share = times.sum() / workers
    assert max(share, times.max()) <= found.seconds + 1e-9
    assert found.seconds <= share + 2 * times.max()
    assert found.efficiency == pytest.approx(share / found.seconds)
    assert found.tails.min() == pytest.approx(0, abs=1e-9)
    assert found.tails.max() <= found.seconds


def test_one_late_batch_holds_the_others_back() -> None:
    """Memory is bounded: behind it 4 batches a worker are started, and no more until it ends."""
    found = schedule([100.0] + [1.0] * 39, 4)
    assert found.seconds == pytest.approx(100 + 24 / 4, abs=1.5)


def test_what_a_failure_cuts_off_runs_again() -> None:
    times = [60.0] * 400
    known = Overheads(start=5.0, failures=2.0, per_node=4)
    found = schedule(times, 16, overheads=known, seed=3)
    calm = schedule(times, 16, overheads=Overheads(start=5.0, per_node=4))
    assert found.failures > 0
    assert 0 < found.lost <= found.failures * 4 * 65
    assert found.seconds > calm.seconds
    assert found.work == calm.work
    assert schedule(times, 16, overheads=known, seed=3).seconds == found.seconds


def test_mean_loss_of_failures_is_half_a_batch() -> None:
    """Failures at random moments lose half of what is under way in the mean."""
    found = schedule([100.0] * 20_000, 8, overheads=Overheads(failures=1.0))
    expected = found.seconds / 3600 * 8
    assert found.failures == pytest.approx(expected, rel=4 / math.sqrt(expected))
    assert found.lost / found.failures == pytest.approx(50, rel=0.1)


def test_thousands_of_workers() -> None:
    found = schedule([1.0] * 20_000, 4096)
    assert found.seconds == pytest.approx(5)


@pytest.mark.parametrize(
    ("workers", "overheads", "said"),
    [
        (0, Overheads(), "at least 1"),
        (4, Overheads(start=-1.0), "0 or more"),
        (4, Overheads(failures=1e6), "seldom end a batch"),
    ],
)
def test_what_makes_no_sense(workers: int, overheads: Overheads, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        schedule([1.0], workers, overheads=overheads)
