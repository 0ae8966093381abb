"""Batches in order whatever the engine, progress, what is kept, and errors as if batches came one by one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.data.batch import Batch
from cloakonnx.engine.batches import Engine, InProcess, Tell, map_batches
from cloakonnx.engine.folder import Folder
from cloakonnx.engine.threads import Threads
from cloakonnx.errors import DataError, InferenceError, OptionError, OutputError

ENGINES: list[Engine] = [InProcess(), Threads(1), Threads(2), Threads(3), Threads(7)]
SIZE = 4


@dataclass(frozen=True, eq=False)
class Sum:
    x: NDArray[np.float32]
    total: int


@dataclass(frozen=True, eq=False)
class Work:
    """Adds up a batch: later batches are quicker, and those in ``failing`` raise."""

    failing: dict[int, Exception] = field(default_factory=dict)
    slow: float = 0.0
    meeting: threading.Barrier | None = None
    handled: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)

    result = Sum
    record: dict[str, Any] = field(default_factory=lambda: {"seed": 1})

    def start(self, worker: int = 0) -> Callable[[Batch, Tell], Sum]:
        self.started.append(worker)
        first = True

        def handle(batch: Batch, tell: Tell) -> Sum:
            nonlocal first
            if first and self.meeting is not None:
                self.meeting.wait(60)
            first = False
            number = batch.start // SIZE
            for share in (0.25, 0.5):
                time.sleep(self.slow / (number + 1))
                tell(share)
            if number in self.failing:
                raise self.failing[number]
            self.handled.append(number)
            return Sum(batch.x * 2, int(batch.x.sum()))

        return handle


def batches(count: int, *, bad: int | None = None) -> Iterator[Batch]:
    for number in range(count):
        if number == bad:
            raise DataError(f"batch {number} is bad")
        x = np.arange(number * SIZE, (number + 1) * SIZE, dtype=np.float32)[:, None]
        yield Batch(x, None, number * SIZE)


def run(work: Work, count: int, engine: Engine, **options: Any) -> list[int]:
    found = []
    given = options.pop("batches", None) or batches(count)
    with map_batches(work, given, engine=engine, **options) as handled:
        for batch, result in handled:
            np.testing.assert_array_equal(result.x, batch.x * 2)
            found.append(result.total)
    return found


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 9, 40])
def test_order(engine: Engine, count: int) -> None:
    work = Work(slow=0.02 if count < 10 else 0)
    expected = [int(batch.x.sum()) for batch in batches(count)]
    assert run(work, count, engine) == expected
    assert sorted(work.handled) == list(range(count))
    assert len(set(work.started)) == len(work.started)
    assert set(work.started) <= set(range(min(count, engine.workers)))  # no more workers than batches


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_every_worker_takes_part(engine: Engine) -> None:
    """Each one's first batch is not done before all of them have one."""
    work = Work(meeting=threading.Barrier(engine.workers))
    assert run(work, 40, engine) == [int(batch.x.sum()) for batch in batches(40)]
    assert sorted(work.started) == list(range(engine.workers))


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_progress_ends_with_all_and_comes_in_the_calling_thread(engine: Engine) -> None:
    told: list[float] = []
    threads: set[int] = set()

    def on_progress(done: float) -> None:
        told.append(done)
        threads.add(threading.get_ident())

    run(Work(slow=0.01), 9, engine, on_progress=on_progress)
    assert told[-1] == 9 * SIZE
    assert told == sorted(told)
    assert any(done % SIZE for done in told)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_the_first_batch_that_fails_is_what_is_raised(engine: Engine) -> None:
    """After all results before it, however quick the others were."""
    found: list[int] = []
    work = Work({2: InferenceError("two"), 3: InferenceError("three")}, slow=0.03)
    with pytest.raises(InferenceError, match="two"), map_batches(work, batches(9), engine=engine) as handled:
        for _, result in handled:
            found.append(result.total)
    assert found == [int(batch.x.sum()) for batch in batches(2)]
    found.clear()
    with (
        pytest.raises(DataError, match="batch 5 is bad"),
        map_batches(Work(slow=0.03), batches(9, bad=5), engine=engine) as handled,
    ):
        for _, result in handled:
            found.append(result.total)
    assert found == [int(batch.x.sum()) for batch in batches(5)]
    assert threading.active_count() == 1


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_nothing_goes_on_where_the_caller_stops(engine: Engine) -> None:
    """An interrupt may come between two batches, while nobody waits for the workers."""
    work = Work(slow=0.05)
    with pytest.raises(KeyboardInterrupt), map_batches(work, batches(30), engine=engine) as handled:
        next(handled)
        raise KeyboardInterrupt
    assert threading.active_count() == 1
    assert len(work.handled) < 30


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_an_interrupt_stops_the_workers_and_keeps_what_is_done(engine: Engine, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    folder = Folder(output, {"seed": 1}, run="a test")
    seen: list[int] = []

    def interrupt(done: float) -> None:
        if done >= 3 * SIZE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), folder.opened(resume=False):
        run(Work(slow=0.01), 30, engine, folder=folder, on_progress=interrupt)
    assert threading.active_count() == 1
    again = Folder(output, {"seed": 1}, run="a test")
    work = Work()
    with again.opened(resume=True):
        seen = run(work, 30, engine, folder=again, name="digits.npz")
    assert seen == [int(batch.x.sum()) for batch in batches(30)]
    assert 0 < len(work.handled) < 30  # what was done is not done again
    again.remove()
    assert not list(tmp_path.iterdir())


def test_a_batch_is_read_again_only_where_it_is_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", {}, run="a test")
    with folder.opened(resume=False):
        run(Work(), 5, InProcess(), folder=folder)
    part = folder.path / "000001.npz"
    part.write_bytes(part.read_bytes()[:-30])
    (folder.path / "000003.npz").unlink()
    work = Work()
    with folder.opened(resume=True):
        assert len(run(work, 5, Threads(2), folder=folder)) == 5
    assert sorted(work.handled) == [1, 3]
    with pytest.raises(DataError, match=r"other\.npz has other samples than a test that is resumed"):
        run(
            Work(), 5, InProcess(), folder=folder, name="other.npz", batches=(b._replace(x=b.x + 1) for b in batches(5))
        )


def test_unfinished_work_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", {"seed": 1}, run="an attack")
    folder.path.mkdir()
    settings = folder.path / "settings.json"
    settings.write_text(json.dumps({"seed": 1}))  # as 0.1.0 wrote it
    with (
        pytest.raises(OutputError, match=r"left by another version of cloakonnx.*start again without resume"),
        folder.opened(resume=True),
    ):
        pass
    assert settings.exists()
    with pytest.raises(KeyboardInterrupt), folder.opened(resume=False):
        assert json.loads(settings.read_text()) == {"seed": 1, "format": 2}
        raise KeyboardInterrupt
    assert not folder.path.exists()  # nothing was done


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "threads": 0}])
def test_numbers_below_one(options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="at least 1"):
        Threads(**options)
