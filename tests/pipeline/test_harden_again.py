"""A hardening run again: after an interrupt, where files are lost or edited, and with other settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

import cloakonnx as ck
from cloakonnx.errors import OutputError
from tests.cli.conftest import files
from tests.support.classifiers import cpu

from .conftest import OPTIONS, STAGES, Heard, again, shown

pytest.importorskip("sklearn")


@pytest.mark.parametrize("stage", ["learn", "apply", "evaluate", "report"])
def test_an_interrupt_before_a_stage_leaves_those_done(fresh: Path, finished: Path, stage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        ck.harden(cpu("m.onnx"), "train.npz", observer=Heard(stop_at=stage), **OPTIONS)
    _, heard = again()
    done = STAGES.index(stage)
    assert (heard.cached, heard.ran) == (STAGES[:done], STAGES[done:])
    assert shown(fresh / "m-hardened") == shown(finished / "m-hardened")


@pytest.mark.parametrize(("stage", "calls"), [("learn", 1), ("learn", 9), ("evaluate", 2)])
def test_an_interrupt_within_a_stage_leaves_no_half_file(fresh: Path, finished: Path, stage: str, calls: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        ck.harden(cpu("m.onnx"), "train.npz", observer=Heard(stop_in=stage, calls=calls), **OPTIONS)
    whole = shown(finished / "m-hardened")
    for name, content in shown(fresh / "m-hardened").items():
        assert name.startswith(f".{'analysis.cloak' if stage == 'learn' else 'evaluation'}.json.parts") or (
            content == whole[name]
        )
    _, heard = again()
    assert heard.ran[0] == stage
    assert shown(fresh / "m-hardened") == whole


def test_learning_goes_on_where_it_was(fresh: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ck.harden(cpu("m.onnx"), "train.npz", observer=Heard(stop_in="learn", calls=15), **OPTIONS)
    _, heard = again()
    assert [line.split(":")[0] for line in heard.said if line.startswith("epoch")] == [
        f"epoch {i} of 4" for i in range(2, 5)
    ]


def lost(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def changed(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("a", encoding="utf-8") as stream:
            stream.write(" ")

    return change


@pytest.mark.parametrize(
    ("damage", "ran"),
    [
        (lost("hardened.onnx"), ["apply"]),
        (lost("evaluation.json"), ["evaluate"]),
        (lost("attestation.json"), ["attest"]),
        (lost("report.html"), ["report"]),
        (lost(".stages/verify.json"), ["verify"]),
    ],
    ids=["model", "evaluation", "attestation", "report", "verification"],
)
def test_what_is_lost_is_made_again(
    there: Path, finished: Path, damage: Callable[[Path], None], ran: Sequence[str]
) -> None:
    damage(there / "m-hardened")
    _, heard = again()
    assert heard.ran == ran
    assert shown(there / "m-hardened") == shown(finished / "m-hardened")


@pytest.mark.parametrize(
    ("changes", "stage", "file"),
    [
        ({"eps": 0.2}, "learn", "analysis.cloak.json"),
        ({"budget": 0.2}, "learn", "analysis.cloak.json"),
        ({"seed": 1}, "learn", "analysis.cloak.json"),
        ({"limit": 500}, "learn", "analysis.cloak.json"),
        ({"fold": True}, "learn", "analysis.cloak.json"),
        ({"attack": "noise"}, "evaluate", "evaluation.json"),
        ({"report_data": None}, "learn", "analysis.cloak.json"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_results_of_other_settings_are_not_lost(there: Path, changes: dict[str, Any], stage: str, file: str) -> None:
    before = files(there)
    with pytest.raises(OutputError, match=f"{file} is there already"):
        again(**changes)
    assert files(there) == before


def test_weights_beside_the_model_belong_to_it(fresh: Path) -> None:
    """What is lost is copied again; what was changed is not written over unasked."""
    external = onnx.load(fresh / "m.onnx")
    onnx.save_model(external, fresh / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    again()
    beside = fresh / "m-hardened" / "m.bin"
    whole = beside.read_bytes()
    assert again()[1].ran == []
    beside.unlink()
    assert again()[1].ran == ["apply"]
    assert beside.read_bytes() == whole
    beside.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(OutputError, match=r"m\.bin is there already, changed since it was written"):
        again()
    assert again(force=True)[1].ran == ["apply"]
    assert beside.read_bytes() == whole


def test_force_does_again_what_changes(there: Path) -> None:
    _, heard = again(attack="noise", force=True)
    assert heard.cached == STAGES[:4]
    assert heard.ran == STAGES[4:]
    _, heard = again(attack="noise")
    assert heard.ran == []


def test_a_file_that_somebody_edited_is_not_taken_for_ours(there: Path) -> None:
    changed("analysis.cloak.json")(there / "m-hardened")
    with pytest.raises(OutputError, match=r"analysis\.cloak\.json is there already"):
        again()
    changed("summary.md")(there / "m-hardened")
    _, heard = again(force=True)
    assert heard.ran == ["learn", "report"]


def test_gates_are_judged_anew_and_change_only_the_views(there: Path) -> None:
    done, heard = again(require=["clean-drop<=20%", "robust-gain>=90%"])
    assert heard.ran == ["report"]
    assert [each.verdict for each in done.gates] == ["pass", "fail"]
    assert not done.passed(allow_inconclusive=True)
    assert "❌ fail | `robust-gain>=90%`" in done.files["summary"].read_text()


def test_a_page_of_an_earlier_run_does_not_stay(there: Path) -> None:
    page = there / "m-hardened" / "report.html"
    done, heard = again(report=False, require=["flags==0"])
    assert heard.ran == ["report"]
    assert not page.exists()
    assert "report" not in done.files
    again()
    page.write_text("somebody's own")
    with pytest.raises(OutputError, match=r"report\.html is there already, changed since it was written"):
        again(report=False, require=["flags==0"])
    again(report=False, require=["flags==0"], force=True)
    assert page.read_text() == "somebody's own"


def test_damaged_records_are_no_records(there: Path) -> None:
    (there / "m-hardened" / ".stages" / "report.json").write_text("[1")
    with pytest.raises(OutputError, match=r"summary\.md is there already"):
        again()
    _, heard = again(force=True)
    assert heard.ran == ["report"]
