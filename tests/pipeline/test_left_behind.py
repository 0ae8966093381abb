"""What a hardening's folder keeps when it ends early in its second stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloakonnx.engine.folder import path_of
from cloakonnx.errors import DataError, InferenceError
from cloakonnx.pipeline.stage import ResultFolder, WorkStage

INSPECT = WorkStage("inspect", lambda resumed: {})
LEARN = WorkStage("learn", lambda resumed: {}, writes=("analysis.json",))


def ended_by(error: BaseException, path: Path, *, unfinished: bool = False) -> None:
    folder = ResultFolder(path)
    with pytest.raises(type(error)), folder.opened():
        folder.begin(INSPECT)
        folder.finish(INSPECT, {})
        folder.begin(LEARN)
        if unfinished:
            path_of(folder.file("analysis.json")).mkdir()
        raise error


def test_bad_input_leaves_nothing(tmp_path: Path) -> None:
    ended_by(DataError("the labels are no classes"), tmp_path / "made" / "here")
    assert not list(tmp_path.iterdir())


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ended_by(DataError("the labels are no classes"), tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InferenceError("no memory")])
def test_finished_stages_stay_for_the_next_run(error: BaseException, tmp_path: Path) -> None:
    ended_by(error, tmp_path / "here")
    assert ResultFolder(tmp_path / "here").is_done(INSPECT)


def test_unfinished_work_stays(tmp_path: Path) -> None:
    ended_by(DataError("the labels are no classes"), tmp_path / "here", unfinished=True)
    assert path_of(tmp_path / "here" / "analysis.json").is_dir()
