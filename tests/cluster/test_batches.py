"""Order, progress and errors on a cluster, as on any engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from cloakonnx.data.batch import Batch
from cloakonnx.engine.batches import Tell, map_batches
from cloakonnx.engines import Ray
from cloakonnx.errors import DataError, InferenceError, OptionError
from tests.engine.test_batches import SIZE, Sum, Work, batches, run


@dataclass(frozen=True, eq=False)
class Failing:
    """Raises for some batches, later ones sooner."""

    errors: dict[int, Exception]

    result = Sum
    record: dict[str, Any] = field(default_factory=dict)

    def start(self, worker: int = 0) -> Callable[[Batch, Tell], Sum]:
        def handle(batch: Batch, tell: Tell) -> Sum:
            number = batch.start // SIZE
            time.sleep(0.3 / (number + 1))
            if number in self.errors:
                raise self.errors[number]
            return Sum(batch.x * 2, int(batch.x.sum()))

        return handle


def totals(count: int) -> list[int]:
    return [int(batch.x.sum()) for batch in batches(count)]


@pytest.mark.parametrize("count", [0, 1, 9, 40])
def test_order(engine: Ray, count: int) -> None:
    assert run(Work(slow=0.02 if count < 10 else 0), count, engine) == totals(count)


def test_shares_of_slow_batches_are_told_in_the_calling_thread(engine: Ray) -> None:
    told: list[float] = []
    threads: set[int] = set()

    def on_progress(done: float) -> None:
        told.append(done)
        threads.add(threading.get_ident())

    run(Work(slow=2.5), 3, engine, on_progress=on_progress)
    assert told[-1] == 3 * SIZE
    assert any(done % SIZE for done in told)
    assert len(told) < 30  # asked for once a second, not told with every step
    assert threads == {threading.get_ident()}


def test_the_first_batch_that_fails_is_what_is_raised(engine: Ray) -> None:
    found: list[int] = []
    given = Failing({2: InferenceError("two"), 3: DataError("three")})
    with pytest.raises(InferenceError, match=r"^two$") as caught, map_batches(given, batches(9), engine=engine) as done:
        found.extend(result.total for _, result in done)
    assert found == totals(2)
    assert not hasattr(caught.value, "__notes__")  # one line, no traceback
    with pytest.raises(DataError, match="batch 5 is bad"):
        run(Work(), 9, engine, batches=batches(9, bad=5))


def test_an_error_keeps_its_parameters(engine: Ray) -> None:
    given = Failing({0: OptionError("{eps_step} is too large", parameter="eps_step")})
    with pytest.raises(OptionError) as caught:
        run(given, 1, engine)  # type: ignore[arg-type]
    assert caught.value.parameters == ("eps_step",)
    assert caught.value.said(lambda name: f"--{name}") == "--eps_step is too large"


def test_an_error_that_can_not_travel_says_what_it_was(engine: Ray) -> None:
    class LocalError(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("not to be pickled")

    class Raising:
        result, record = Sum, {}  # type: ignore[var-annotated]

        def start(self, worker: int = 0) -> Any:
            raise LocalError("what it was")

    with pytest.raises(RuntimeError, match="LocalError: what it was"):
        run(Raising(), 2, engine)  # type: ignore[arg-type]


def test_the_caller_may_stop_and_go_on(engine: Ray) -> None:
    with pytest.raises(KeyboardInterrupt), map_batches(Work(slow=1), batches(30), engine=engine) as handled:
        next(handled)
        raise KeyboardInterrupt
    assert run(Work(), 9, engine) == totals(9)


def test_two_works_by_turns(engine: Ray) -> None:
    """One of them is learning's steps, say, and the other the attack that it is judged by."""
    found = []
    with engine.open(Work()) as outer:
        for _ in range(2):
            found.append({n: done.total for n, done in outer.run(enumerate(batches(4)), lambda number, share: None)})
            assert run(Work(), 5, engine) == totals(5)
    assert found == [dict(enumerate(totals(4)))] * 2
