"""A sweep's file that is damaged is refused with what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloakonnx.errors import DataError
from cloakonnx.evaluation.sweeps.record import Sweep, load_sweep
from tests.reporting import samples


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"points": [', '"pints": ['), "the entry points is missing"),
        (('"count": 200', '"count": 1'), "samples are correct"),
        (('"version": 1', '"version": 2'), "has version 2"),
        (('"eps_is_of_twins": false', '"eps_is_of_twins": 0'), "neither true nor false"),
    ],
)
def test_damaged_sweeps(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = samples.sweep().to_json()
    assert change[0] in text
    with pytest.raises(DataError, match=said):
        Sweep.from_json(text.replace(*change))
    (tmp_path / "s.json").write_bytes(b"\xff")
    with pytest.raises(DataError, match="it is not text"):
        load_sweep(tmp_path / "s.json")
