"""Hardening in one go: what it writes, what it does not do again, and how it goes on after an interrupt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import cloakonnx as ck
from cloakonnx.errors import CheckError, CloakError, DataError, OptionError, OutputError, TapError
from cloakonnx.graph.masks.metadata import masks_of
from cloakonnx.pipeline.settings import PRESETS, HardenSettings
from cloakonnx.reporting.cost import ratio_text
from cloakonnx.text import brief
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.cli.conftest import files
from tests.fixtures import false_defences
from tests.selection.helpers import training_arrays
from tests.support.classifiers import cpu

pytest.importorskip("sklearn")

EPS = 0.15
STAGES = ["inspect", "learn", "apply", "verify", "evaluate", "attest", "report"]
OUTPUTS = {
    "hardened.onnx", "analysis.cloak.json", "evaluation.json", "samples.npz", "attestation.json", "summary.md",
    "report.html",
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "eps": EPS,
    "attack": "fgsm",
    "preset": "quick",
    "select_data": "select.npz",
    "report_data": "test.npz",
    "latency": False,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with model, data and a finished hardening."""
    folder = tmp_path_factory.mktemp("harden")
    (folder / "m.onnx").write_bytes(DIGITS.read_bytes())
    for name, (x, y), rows in (
        ("train", training_arrays(), slice(600)),
        ("select", training_arrays(), slice(600, 700)),
        ("test", digits_arrays(), slice(30)),
    ):
        np.savez(folder / f"{name}.npz", x=x[rows], y=y[rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ck.harden(cpu("m.onnx"), "train.npz", **OPTIONS)
    return folder


@pytest.fixture
def there(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: a copy of the finished one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fresh(there: Path) -> Path:
    """Return the current folder, with nothing done."""
    shutil.rmtree(there / "m-hardened")
    return there


class Heard:
    """Listens, and interrupts where it is told to."""

    def __init__(self, *, stop_at: str = "", stop_in: str = "", calls: int = 1) -> None:
        self.ran: list[str] = []
        self.cached: list[str] = []
        self.said: list[str] = []
        self._stop_at, self._stop_in, self._calls = stop_at, stop_in, calls

    def stage(self, name: str, number: int, count: int, *, cached: bool) -> None:
        (self.cached if cached else self.ran).append(name)
        if name == self._stop_at:
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, what: str, total: int | None) -> AbstractContextManager[Callable[[float], None]]:
        def advance(done: float) -> None:
            self._calls -= self.ran[-1] == self._stop_in
            if self._calls == 0:
                raise KeyboardInterrupt

        return nullcontext(advance)


def again(*, limit: int | None = None, **changes: Any) -> tuple[ck.records.Hardened, Heard]:
    heard = Heard()
    data = "train.npz" if limit is None else ck.Samples("train.npz", limit=limit)
    return ck.harden(cpu("m.onnx"), data, observer=heard, **{**OPTIONS, **changes}), heard


def shown(folder: Path) -> dict[str, bytes]:
    """Return the outputs, without what lies beside them."""
    return {name: content for name, content in files(folder).items() if not name.startswith(".stages")}


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


def test_a_gate_on_latency_is_measured_once(there: Path) -> None:
    done, heard = again(require=["latency-ratio<=50"], latency=True)
    assert heard.ran == ["latency", "report"]
    assert [each.verdict for each in done.gates] == ["pass"]
    assert done.latency is not None and len(done.latency.ratios) == 9
    _, heard = again(require=["latency-ratio<=60"], latency=True)
    assert heard.ran == ["report"]


def test_the_latency_is_in_the_views_and_in_no_other_file(there: Path, finished: Path) -> None:
    """And measured once: the same call again changes nothing."""
    done, heard = again(latency=True)
    assert heard.ran == ["latency", "report"]
    found, before = shown(there / "m-hardened"), shown(finished / "m-hardened")
    assert {name for name in found if found[name] != before[name]} == {"report.html", "summary.md"}
    assert done.latency is not None
    assert done.latency.provider == "CPUExecutionProvider"
    for name in ("report.html", "summary.md"):
        text = found[name].decode()
        assert "latency, one sample" in text
        for said in (brief(done.latency.seconds), brief(done.latency.baseline_seconds), ratio_text(done.latency)):
            assert said in text
        assert "latency, one sample" not in before[name].decode()
    again_done, heard = again(latency=True)
    assert (heard.ran, again_done.latency) == ([], done.latency)
    assert shown(there / "m-hardened") == found
    done, heard = again()
    assert (heard.ran, done.latency) == (["report"], None)
    assert shown(there / "m-hardened") == before


def test_a_record_of_the_latency_that_is_damaged_is_an_error(there: Path) -> None:
    again(latency=True)
    record = there / "m-hardened" / ".stages" / "latency.json"
    content = json.loads(record.read_text())
    content["left"]["latency"]["cores"] = "two"
    record.write_text(json.dumps(content))
    with pytest.raises(OutputError, match=r"latency\.json is damaged: .*cores.*; remove it"):
        again(latency=True)
    record.unlink()
    assert again(latency=True, force=True)[1].ran == ["latency", "report"]


def test_a_gate_on_what_is_left_out_is_refused_before_any_work(fresh: Path) -> None:
    with pytest.raises(OptionError, match="a gate asks for what isn't measured: the latency was left out"):
        again(require=["latency-ratio<=1.02"])
    assert not (fresh / "m-hardened").exists()


def test_parts_of_steps_are_other_masks_whatever_the_workers(there: Path) -> None:
    whole = (there / "m-hardened" / "analysis.cloak.json").read_bytes()
    found = []
    for workers in (2, 3):
        done, _ = again(parts=2, report=False, force=True, output=f"by{workers}", engine=ck.engines.Threads(workers))
        assert done.analysis.learning is not None
        assert done.analysis.learning["recipe"]["parts"] == 2
        found.append(done.files["analysis"].read_bytes())
    assert found[0] == found[1] != whole


def test_a_latency_that_did_not_pass_is_measured_again(there: Path) -> None:
    done, _ = again(require=["latency-ratio<=0.001"], latency=True)
    assert [each.verdict for each in done.gates] == ["fail"]
    _, heard = again(require=["latency-ratio<=0.001"], latency=True)
    assert heard.ran == ["latency", "report"]
    done, heard = again(require=["latency-ratio<=50"], latency=True)
    assert heard.ran == ["latency", "report"]
    assert "latency-ratio<=50" in done.files["summary"].read_text()


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
        ({"require": ["robust>=5%@1/255"]}, OptionError, "asks for what wasn't measured: eps 0.00392157"),
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


def test_damaged_records_are_no_records(there: Path) -> None:
    (there / "m-hardened" / ".stages" / "report.json").write_text("[1")
    with pytest.raises(OutputError, match=r"summary\.md is there already"):
        again()
    _, heard = again(force=True)
    assert heard.ran == ["report"]
