"""The progress bar: shown to a terminal only, with the time left."""

from __future__ import annotations

import re
import time

import pytest

from cloakonnx.cli._output import progress


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


def test_no_bar_in_a_log(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with progress("evaluate, quick", None) as move:
        move(3)
    assert capfd.readouterr() == ("", "")
