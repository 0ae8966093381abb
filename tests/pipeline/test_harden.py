"""Hardening in one go: what it writes, what its methods mask, and what it refuses before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import cloakonnx as ck
from cloakonnx.errors import CheckError, CloakError, DataError, OptionError, OutputError, TapError
from cloakonnx.graph.masks.metadata import masks_of
from cloakonnx.pipeline.settings import PRESETS, HardenSettings
from tests.attacks.helpers import digits_arrays
from tests.cli.conftest import files
from tests.fixtures import false_defences
from tests.support.classifiers import cpu

from .conftest import EPS, OPTIONS, STAGES, Heard, again, shown

pytest.importorskip("sklearn")

OUTPUTS = {
    "hardened.onnx", "analysis.cloak.json", "evaluation.json", "samples.npz", "attestation.json", "summary.md",
    "report.html",
}  # fmt: skip


def test_everything_is_there_and_hangs_together(there: Path) -> None:
    done, heard = again()
    assert (heard.ran, heard.cached) == ([], STAGES)
    out = there / "m-hardened"
    assert {path.name for path in out.iterdir()} == OUTPUTS | {".stages"}
    assert {path.name for path in done.files.values()} == OUTPUTS
    source, hardened = ck.load(there / "m.onnx"), ck.load(done.files["model"])
    assert len(masks_of(hardened.proto)) == 4
    attestation = ck.read(done.files["attestation"])
    assert attestation.settings["data"]["report"] == {
        "name": "test.npz", "count": 30, "digest": attestation.settings["data"]["report"]["digest"],
    }  # fmt: skip
    checked = ck.verify(
        cpu(hardened),
        source=source,
        attestation=attestation,
        analysis=done.analysis,
    )
    assert checked.passed
    assert done.evaluation.data.count == 30
    assert done.evaluation.data.seen == 0
    assert [each.eps for each in done.evaluation.results] == [EPS]
    assert len(done.evaluation.results[0].random_masks) == 3
    assert done.verdict.sentence in done.files["summary"].read_text()
    assert "Content-Security-Policy" in done.files["report"].read_text()
    assert done.passed()
    assert done.split is None


def test_the_parts_share_no_sample(fresh: Path) -> None:
    done, _ = again(select_data=None, report_data=None, preset="full")
    parts = ck.read(done.files["attestation"]).settings["data"]
    assert [parts[name]["count"] for name in ("learn", "select", "report")] == [240, 120, 240]
    assert done.analysis.samples.count == 360
    assert done.evaluation.data.seen == 0
    assert done.split == "train.npz, 600 samples, split class by class: 240 to learn, 120 to select, 240 to report"


def test_a_budget_that_is_missed_can_be_raised_without_learning_again(fresh: Path) -> None:
    with pytest.raises(CheckError, match="no masks gain robust accuracy within the budget"):
        ck.harden(cpu("m.onnx"), "train.npz", **{**OPTIONS, "eps": 1e-6})
    assert not [name for name in shown(fresh / "m-hardened") if name in OUTPUTS]
    found = ck.read(fresh / "m-hardened" / "source-evaluation.json")
    assert (found.model.name, found.baseline, found.results[0].eps) == ("m.onnx", None, 1e-6)
    page, summary = (
        (fresh / "m-hardened" / name).read_text(encoding="utf-8")
        for name in ("source-report.html", "source-summary.md")
    )
    for text in (page, summary):
        assert "m.onnx" in text
        assert "What was tried" in text
        assert "no masks gain robust accuracy within the budget" in text
        assert text.count(" attacked") >= 5, "without masks, and each of 4 epochs"
    heard = Heard()
    with pytest.raises(CheckError):
        ck.harden(cpu("m.onnx"), "train.npz", observer=heard, **{**OPTIONS, "eps": 1e-6, "budget": 0.6})
    assert not [line for line in heard.said if line.startswith(("epoch", "no masks gain"))], "both are kept"
    assert (
        heard.said[-1] == f"wrote source-evaluation.json, source-summary.md, source-report.html to {Path('m-hardened')}"
    )


def test_parts_of_steps_are_other_masks_whatever_the_workers(there: Path) -> None:
    whole = (there / "m-hardened" / "analysis.cloak.json").read_bytes()
    found = []
    for workers in (2, 3):
        done, _ = again(parts=2, report=False, force=True, output=f"by{workers}", engine=ck.engines.Threads(workers))
        assert done.analysis.learning is not None
        assert done.analysis.learning["recipe"]["parts"] == 2
        found.append(done.files["analysis"].read_bytes())
    assert found[0] == found[1] != whole


@pytest.mark.parametrize("part", ["select_data", "report_data"])
@pytest.mark.parametrize(
    ("value", "label", "said"),
    [
        (np.nan, 0, "has the value nan, which is no finite number"),
        (255, 0, "outside pixel space"),
        (0.5, 10, "has label 10, but the model has 10 classes"),
    ],
    ids=["NaN", "0 to 255", "label"],
)
def test_bad_samples_are_found_before_any_work(fresh: Path, part: str, value: float, label: int, said: str) -> None:
    x, y = digits_arrays()
    x, y = x[:9].copy(), y[:9].copy()
    x[3, 0, 0, 0], y[3] = value, label
    np.savez("bad.npz", x=x, y=y)
    before = files(fresh)
    with pytest.raises(DataError, match=said):
        again(**{part: "bad.npz"})
    assert files(fresh) == before


def test_a_hardened_model_is_not_hardened_twice(there: Path) -> None:
    shutil.copy(there / "m-hardened" / "hardened.onnx", there / "m.onnx")
    with pytest.raises(TapError, match=r"m\.onnx is hardened already.*cloakonnx strip"):
        again(output="twice")
    assert not (there / "twice").exists()


def test_nor_is_what_an_optimiser_made_of_it(there: Path) -> None:
    """It has folded the masks into the weights, and kept the metadata."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(there / "m.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ort.InferenceSession(there / "m-hardened" / "hardened.onnx", options, providers=["CPUExecutionProvider"])
    with pytest.raises(TapError, match=r"m\.onnx was changed after it was hardened.*harden the model that it was made"):
        again(output="twice")
    assert not (there / "twice").exists()


def test_a_model_that_rounds_is_hardened_before_it_does(fresh: Path) -> None:
    """By scores; masks are learned by straight-through gradients."""
    (fresh / "m.onnx").write_bytes(false_defences.quantised().SerializeToString())
    with pytest.raises(CloakError, match=r"Round .* has a zero gradient everywhere; harden the model before it is"):
        ck.harden(cpu("m.onnx"), "train.npz", **{**OPTIONS, "method": "score"})
    assert not list((fresh / "m-hardened").glob("[!.]*"))


def test_masks_can_go_into_weights(fresh: Path) -> None:
    done, _ = again(fold=True)
    attestation = ck.read(done.files["attestation"])
    assert attestation.kind == "folded"
    assert not done.evaluation.baseline_is_stripped
    assert done.evaluation.baseline.name == "m.onnx"


@pytest.mark.parametrize("method", ["score", "greedy"])
def test_other_methods_mask_one_tap(fresh: Path, method: Any) -> None:
    done, heard = again(method=method, budget=0.3, report=False, limit=300)
    assert heard.ran[1] == method
    (mask,) = ck.masks(done.files["model"])
    assert 1 <= len(mask.removed) < len(mask.weights)
    assert "report" not in done.files
    assert not (done.folder / "report.html").exists()
    if method == "score":
        assert done.analysis.scores is not None
        top = set(np.argsort(-done.analysis.scores.scores, kind="stable")[: len(mask.removed)].tolist())
        assert set(mask.removed) == top


def test_scores_are_removed_as_far_as_the_budget_goes(fresh: Path) -> None:
    def removed(budget: float) -> int:
        done, _ = again(method="score", budget=budget, report=False, limit=300, attack="noise", force=True)
        (mask,) = ck.masks(done.files["model"])
        return len(mask.removed)

    few, many = removed(0.02), removed(0.3)
    assert 1 <= few < many


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "lern"}, OptionError, "there is no method 'lern'; there are learn, greedy, score; did you mean"),
        ({"preset": "fast"}, OptionError, "there is no preset 'fast'; there are full, quick"),
        ({"eps": ()}, OptionError, "eps needs a number"),
        ({"budget": 4}, OptionError, "budget 4 must be a share"),
        ({"attack": "pdg"}, OptionError, "there is no attack or preset 'pdg'"),
        ({"require": ["robust>=5%@1/255"]}, OptionError, "asks for what wasn't measured: eps 1/255 is not among 0.15"),
        ({"require": ["static>=5%"]}, OptionError, "static figures are of inputs made on another model"),
        ({"taps": ["a", "b"], "method": "score"}, OptionError, "method score masks one tap; taps names 2"),
        ({"parts": 2, "method": "greedy"}, OptionError, "parts cuts steps of method learn; greedy takes none"),
        ({"parts": 0}, OptionError, "parts 0 must be at least 1"),
        (
            {"limit": 2, "select_data": None, "report_data": None},
            DataError,
            "2 samples are too few for a part to select on",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_input_is_told_before_anything_is_written(
    fresh: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message.replace("(", r"\(")):
        again(**changes)
    assert not (fresh / "m-hardened").exists()


def test_the_output_is_a_folder(fresh: Path) -> None:
    (fresh / "out").write_text("mine")
    with pytest.raises(OutputError, match="out: it is not a folder"):
        again(output="out")
    assert (fresh / "out").read_text() == "mine"


def test_a_plan_runs_nothing(fresh: Path) -> None:
    settings = HardenSettings(eps=(EPS, 0.2), preset="quick")
    assert settings.radii == (EPS,)
    assert PRESETS["quick"].epochs == 4


def test_records_hold_no_times_or_paths(there: Path) -> None:
    for name, content in files(there / "m-hardened").items():
        if content:
            assert str(there).encode() not in content, name
    record = json.loads((there / "m-hardened" / ".stages" / "learn.json").read_text())
    assert set(record) == {"key", "work", "files", "left"}
