"""Learning that was interrupted goes on to the same bytes, with the same settings only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloakonnx.engine.folder import forget
from cloakonnx.errors import OutputError
from cloakonnx.selection.learn.progress import Progress
from cloakonnx.selection.learn.recipe import Recipe
from tests.selection.helpers import EPS, QUICK, StoppedError, learned

pytest.importorskip("sklearn")


@pytest.mark.parametrize(("stop", "granularity"), [(1, "feature"), (4, "feature"), (5, "feature"), (5, "kernel")])
def test_an_interrupted_call_goes_on_to_the_same_bytes(
    stop: int, granularity: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloakonnx.selection.learn.learn._SAVE_EVERY", 2)
    recipe = replace(QUICK, granularity=granularity)
    whole = learned(recipe).to_json()
    output = tmp_path / "m.cloak.json"
    told: list[int] = []

    def interrupt(now: Progress) -> None:
        told.append(now.step)
        if now.step == stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        learned(recipe, output=output, on_progress=interrupt)
    assert told == list(range(1, stop + 1))
    told.clear()
    kept, stop = {1: 0, 4: 4, 5: 4}[stop], -1
    assert bool(list(tmp_path.iterdir())) == (kept > 0)
    assert learned(recipe, output=output, resume=True, on_progress=interrupt).to_json() == whole
    assert told[0] == kept + 1
    forget(output)
    assert not list(tmp_path.iterdir())


def test_resume_wants_the_same_settings_but_for_the_budget(tmp_path: Path) -> None:
    output = tmp_path / "m.cloak.json"
    learned(output=output)
    with pytest.raises(OutputError, match=r"left by learning with other settings \(recipe\); start again"):
        learned(Recipe(eps=EPS, budget=0.04, epochs=3), output=output, resume=True)
    other = Recipe(eps=EPS, budget=0.02, epochs=2, batch_size=50, learning_rate=0.05)
    steps: list[int] = []
    learned(other, output=output, resume=True, on_progress=lambda now: steps.append(now.step))
    assert set(steps) == {6}  # only choosing is left


def test_damaged_checkpoints_are_made_again(tmp_path: Path) -> None:
    output = tmp_path / "m.cloak.json"
    whole = learned(output=output).to_json()
    (tmp_path / ".m.cloak.json.parts" / "state.npz").write_bytes(b"PK")
    assert learned(output=output, resume=True).to_json() == whole
