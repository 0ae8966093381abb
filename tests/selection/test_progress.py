"""What learning says while it runs: the time that is left, a line for each epoch, and a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloakonnx.selection.learn.progress import Progress, watched
from tests.selection.helpers import StoppedError, learned

pytest.importorskip("sklearn")


def test_the_time_left_goes_by_the_steps_of_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by 3 seconds each time it is read: first when learning begins, then after each step."""
    clock = iter(range(0, 300, 3))
    monkeypatch.setattr("cloakonnx.selection.learn.learn.monotonic", lambda: next(clock))
    told: list[Progress] = []
    output = tmp_path / "m.cloak.json"

    def stop(now: Progress) -> None:
        told.append(now)
        if now.step == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        learned(output=output, on_progress=stop)
    learned(output=output, resume=True, on_progress=told.append)
    assert [(now.step, now.seconds_left) for now in told[:6]] == [(1, 15), (2, 12), (3, 9), (4, 6), (5, 3), (6, 0)]
    first, last = (now.epoch for now in (told[2], told[5]))
    assert first is not None
    assert last is not None
    assert [now.line is None for now in told[:7]] == [True, True, False, True, True, False, True]
    assert told[2].line == (
        f"epoch 1 of 2: loss {first['loss']:.4f}, right where attacks start {100 * first['start_accuracy']:.1f}%, "
        f"where they end {100 * first['adversarial_accuracy']:.1f}%; select clean {first['select_clean']} of 60, "
        f"robust {first['select_robust']} of 60; about 9 s left"
    )
    assert told[5].line is not None
    assert told[5].line.endswith(
        f"select clean {last['select_clean']} of 60, robust {last['select_robust']} of 60; choosing"
    )


def test_a_bar_is_opened_once_it_is_known_how_long_it_is() -> None:
    bars: list[int] = []
    moves: list[float] = []
    lines: list[str] = []

    @contextmanager
    def bar(steps: int) -> Iterator[Callable[[float], None]]:
        bars.append(steps)
        yield moves.append

    with watched(bar, lines.append) as on_progress:
        assert bars == []
        learned(on_progress=on_progress)
    assert bars == [6]
    assert moves == [1, 2, 3, 4, 5, 6, 6, 6]
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
