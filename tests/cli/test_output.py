"""The progress bar: shown to a terminal only, with the time left."""

from __future__ import annotations

import re
import time

import pytest

from cloakonnx.cli._output import progress
from cloakonnx.engine.batches import Engine
from cloakonnx.engines import InProcess, Threads


def test_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("cloakonnx.cli._output._MOVES", 0.0)
    with progress("evaluate, quick", 4) as move:
        for done in (0.5, 1, 2.75, 3):
            time.sleep(0.12)  # ten pictures a second
            move(done)
    out, err = capfd.readouterr()
    assert out == ""
    assert "evaluate, quick" in err
    assert re.search(r"2/4.*0:00:0\d", err)


def test_a_line_a_minute_in_a_log(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    now = iter([0.0, 30.0, 61.0, 100.0, 130.0])
    monkeypatch.setattr("cloakonnx.cli._output.time.monotonic", lambda: next(now))
    with progress("evaluate, quick", 90) as move:
        for done in (10, 30, 50, 65):
            move(done)
    assert capfd.readouterr() == (
        "",
        "evaluate, quick: 30 of 90, about 2 min left\nevaluate, quick: 65 of 90, about 50 s left\n",
    )


class _Crew(InProcess):
    """An engine that has lost a worker."""

    alive = 3


def test_speed_and_workers_beside_the_bar(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("cloakonnx.cli._output._MOVES", 0.0)
    with progress("evaluate, quick", 4, unit="samples", engine=_Crew()) as move:
        for done in (0.5, 1, 2.75, 3):
            time.sleep(0.12)
            move(done)
    err = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capfd.readouterr().err)
    assert re.search(r"3/4 [0-9.]+ samples/s 3 workers 0:00:0\d", err)


@pytest.mark.parametrize(
    ("engine", "said"), [(None, ""), (InProcess(), ""), (Threads(2), ""), (_Crew(), ", 3 workers")], ids=str
)
def test_speed_and_workers_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], engine: Engine | None, said: str
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    now = iter([0.0, 61.0, 122.0, 183.0])
    monkeypatch.setattr("cloakonnx.cli._output.time.monotonic", lambda: next(now))
    with progress("attack, pgd", 900, unit="samples", engine=engine) as move:
        for done in (1, 305, 732):
            move(done)
    assert capfd.readouterr().err.splitlines() == [
        f"attack, pgd: 1 of 900, 0.984 samples/min{said}, about 15 h left",
        f"attack, pgd: 305 of 900, 2.5 samples/s{said}, about 4 min left",
        f"attack, pgd: 732 of 900, 4 samples/s{said}, about 42 s left",
    ]


def test_no_bar_in_a_log(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with progress("evaluate, quick", None) as move:
        move(3)
    assert capfd.readouterr() == ("", "")
