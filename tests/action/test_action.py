"""The action's shell steps run in order in a clean folder, with a stub in the place of ``cloakonnx``."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import CACHE, CACHES, FILES, ROOT, SETUP, SYSTEM, UPLOAD, action, needs_bash
from .runner import Ran, Runner

VERDICT = {"kind": "gain", "sentence": "It is harder to attack.", "caveats": []}
GATES = [{"gate": "clean-drop<=1%", "verdict": "fail", "detail": '"5" | points', "samples": None}]
RESULT = {"verdict": VERDICT, "gates": GATES, "stages": [], "files": FILES}

HOSTILE = "a b\"$(touch PWNED)`touch PWNED`'; touch PWNED #\\ ${HOME} %0A::error::x"

pytestmark = needs_bash


class Stub:
    """A ``cloakonnx`` that notes how it was called, and ends as it is told."""

    def __init__(
        self, folder: Path, code: int = 0, out: str = json.dumps(RESULT), err: str = "", seconds: float = 0
    ) -> None:
        self.called = folder / "called.json"
        folder.mkdir()
        path = folder / "cloakonnx"
        path.write_text(
            f"#!{sys.executable}\n"
            "import json, sys, time\n"
            f"with open({str(self.called)!r}, 'w') as file: json.dump(sys.argv[1:], file)\n"
            f"time.sleep({seconds})\n"
            f"sys.stdout.write({out!r}); sys.stderr.write({err!r}); sys.exit({code})\n"
        )
        path.chmod(0o755)
        self.path = f"{folder}{os.pathsep}{SYSTEM}"

    @property
    def arguments(self) -> list[str]:
        return json.loads(self.called.read_text())


Use = Callable[..., tuple[Ran, Stub, Path]]


@pytest.fixture
def use(tmp_path: Path) -> Use:
    """Return a function that runs the action with a stub in the place of what it installs."""

    def call(inputs: Mapping[str, str], **stub: Any) -> tuple[Ran, Stub, Path]:
        made = Stub(tmp_path / "stub", **stub)
        runner = Runner(tmp_path, made.path)
        (runner.temp / "cloakonnx").mkdir()
        (runner.workspace / "out").mkdir()
        (runner.workspace / FILES["summary"]).write_text("## Verdict\n\n❌ fail\n", encoding="utf-8")
        ran = runner.run(
            ROOT,
            {"model": "m.onnx", **inputs},
            others={SETUP: {"python-path": sys.executable}, UPLOAD: {}, **CACHES},
            instead={"install": lambda: {"python": sys.executable}},
        )
        return ran, made, runner.workspace

    return call


def test_nothing_is_said_that_was_not_asked(use: Use) -> None:
    ran, stub, _ = use({})
    assert ran.passed
    assert stub.arguments == ["harden", "--json", "--output=hardened", "--", "m.onnx"]


def test_options(use: Use) -> None:
    given = {
        "config": "ci.toml",
        "data": "val.npz",
        "select-data": "select.npz",
        "report-data": "test.npz",
        "eps": "2/255,4/255",
        "budget": "2%",
        "preset": "quick",
        "output": "out",
        "allow-inconclusive": "true",
        "require": "clean-drop<=1%\n\n  \nflags==0\n",
        "args": "--mean=0.49, 0.48\n--no-report\n",
    }
    _, stub, _ = use(given)
    assert stub.arguments == [
        *("--config=ci.toml", "harden", "--json", "--output=out", "--data=val.npz", "--select-data=select.npz"),
        *("--report-data=test.npz", "--eps=2/255,4/255", "--budget=2%", "--preset=quick", "--require=clean-drop<=1%"),
        *("--require=flags==0", "--allow-inconclusive", "--mean=0.49, 0.48", "--no-report", "--", "m.onnx"),
    ]


def test_a_pass(use: Use) -> None:
    ran, _, _ = use({}, err="[1/8] inspect\n")
    assert ran.passed
    assert [step.conclusion for step in ran.steps] == ["success"] * 9 + ["skipped"]
    assert ran.summary == "## Verdict\n\n❌ fail\n"
    assert "[1/8] inspect" in ran.step("harden").said
    assert "harder to attack" not in ran.step("harden").said  # the result goes to the outputs, not to the log
    assert ran.outputs == {
        **FILES,
        "verdict": "gain",
        "sentence": "It is harder to attack.",
        "gates": json.dumps(GATES),
        "error": "",
        "error-kind": "",
        "exit-code": "0",
    }
    assert ran.step("python").given == {"python-version": "3.12", "update-environment": "false"}
    assert ran.step("Keep the results").given["path"] == "hardened"


def test_a_gate_that_fails_fails_the_action_after_everything_else(use: Use) -> None:
    ran, _, _ = use({}, code=1, err="fail clean-drop<=1%\n")
    assert not ran.passed
    assert [step.name for step in ran.steps if step.conclusion == "failure"] == ["Judge"]
    assert ran.step("Judge").code == 1
    assert "::error title=cloakonnx::a gate or a check did not pass" in ran.step("Judge").said
    assert "❌ fail" in ran.summary
    assert ran.step("Keep the results").conclusion == "success"
    assert ran.outputs["exit-code"] == "1"
    assert {name: ran.outputs[name] for name in FILES} == FILES
    assert json.loads(ran.outputs["gates"]) == GATES


def test_gates_that_do_not_pass_are_annotated(use: Use) -> None:
    gates = [
        {"gate": "clean>=90%", "verdict": "pass", "detail": "95%"},
        {"gate": "robust>=60%@2/255", "verdict": "fail", "detail": "40.0%, at most 48%\n::error::x"},
        {"gate": "a: b, c", "verdict": "inconclusive", "detail": "too few"},
    ]
    ran, _, _ = use({}, code=1, out=json.dumps({**RESULT, "gates": gates}))
    said = ran.step("Judge").said.splitlines()
    assert [line for line in said if line.startswith("::")][:2] == [
        "::error title=cloakonnx%3A fail robust>=60%25@2/255::40.0%25, at most 48%25%0A::error::x",
        "::error title=cloakonnx%3A inconclusive a%3A b%2C c::too few",
    ]
    assert not any(line.startswith("::error::x") for line in said)


def test_an_error_is_an_output_and_an_annotation(use: Use) -> None:
    """As ``--json`` prints it on stdout."""
    failed = {"error": {"kind": "model", "message": "no file m.onnx; 5% \n", "hint": None}, "exit": 2}
    ran, _, _ = use({}, code=2, out=json.dumps(failed), err="cloakonnx: no file m.onnx\n")
    assert not ran.passed
    assert ran.step("Judge").code == 2
    assert (ran.outputs["error"].strip(), ran.outputs["error-kind"]) == ("no file m.onnx; 5%", "model")
    assert (ran.outputs["exit-code"], ran.outputs["model"], ran.outputs["gates"]) == ("2", "", "")
    assert "::error title=cloakonnx::no file m.onnx; 5%25" in ran.step("Judge").said
    assert "    cloakonnx: no file m.onnx" in ran.summary
    assert ran.step("Keep the results").conclusion == "skipped"


@pytest.mark.parametrize("code", [1, 2, 130, 137])
def test_without_a_result_the_summary_has_the_end_of_the_log(use: Use, code: int) -> None:
    lines = [f"line {i}" for i in range(40)] + ["cloakonnx: no file m.onnx"]
    ran, _, _ = use({}, code=code, out="", err="\n".join(lines) + "\n")
    assert not ran.passed
    assert ran.step("Judge").code == code
    assert f"exit code {code}, no result\n\n    line 21\n" in ran.summary
    assert ran.summary.endswith("    cloakonnx: no file m.onnx\n")
    assert "❌ fail" not in ran.summary  # that one is of an earlier run
    assert ran.step("Keep the results").conclusion == "skipped"
    assert ran.outputs == {**dict.fromkeys(ran.outputs, ""), "exit-code": str(code)}


def test_a_plan_gives_no_files(use: Use) -> None:
    ran, _, _ = use({"args": "--dry-run"}, out="[]", err="a plan\n")
    assert ran.passed
    assert ran.outputs["model"] == ""
    assert "    a plan" in ran.summary


NO_TEXTS = {"allow-inconclusive", "python-version", "python", "mode", "time-limit"}
TEXTS = [name for name in action()["inputs"] if name not in NO_TEXTS]


@pytest.mark.parametrize("name", TEXTS)
def test_inputs_are_never_run(use: Use, name: str) -> None:
    lines = name in {"require", "args"}
    value = f"{HOSTILE}\n--second {HOSTILE}" if lines else f"{HOSTILE}\nsecond"
    ran, stub, workspace = use({name: value})
    assert ran.passed
    assert [path.name for path in workspace.rglob("*")] == ["out", "summary.md"]
    given = "\0".join(stub.arguments)
    if lines:
        assert all(any(each.endswith(line) for each in stub.arguments) for line in value.split("\n"))
    elif name not in {"upload-report", "artifact-name", "cache"}:
        assert value in given
    assert ran.outputs["exit-code"] == "0"


@pytest.mark.parametrize("value", ["yes", HOSTILE, "true\nfalse"])
def test_a_switch_is_true_or_false(use: Use, value: str) -> None:
    ran, stub, workspace = use({"allow-inconclusive": value})
    assert ran.step("harden").code == 2
    assert "::error::allow-inconclusive is neither true nor false" in ran.step("harden").said
    assert not stub.called.exists()
    assert not (workspace / "PWNED").exists()
    assert ran.outputs["exit-code"] == ""


def test_evaluate_alone(use: Use) -> None:
    gate = {"gate": "clean>=90%", "verdict": "fail", "detail": "80%\n::error::x"}
    done = json.dumps({"model": {"name": "m.onnx"}, "gates": [gate]})
    ran, stub, workspace = use({"mode": "evaluate", "eps": "2/255", "output": "out"}, code=1, out=done)
    assert stub.arguments == [
        *("evaluate", "--json", "--force", "--output=out/evaluation.json", "--eps=2/255", "--", "m.onnx"),
    ]
    assert ran.step("Judge").code == 1
    assert "::error title=cloakonnx%3A fail clean>=90%25 m.onnx::80%25%0A::error::x" in ran.step("Judge").said
    assert ran.summary == "## cloakonnx evaluate\n\n    fail         m.onnx: clean>=90%: 80% ::error::x\n"
    assert (ran.outputs["summary"], ran.outputs["evaluation"], ran.outputs["model"]) == ("out/summary.md", "", "")
    assert ran.step("Keep the results").conclusion == "success"
    assert ran.step("stages").conclusion == ran.step("Save finished stages").conclusion == "skipped"
    assert workspace.joinpath("out").is_dir()


def test_a_model_beside_those_of_the_settings_file(use: Use) -> None:
    """It would not be checked."""
    ran, stub, _ = use({"mode": "check", "model": "model.onnx"})
    assert (ran.step("harden").code, stub.called.exists()) == (2, False)
    assert "::error::mode check takes the models that the settings file names" in ran.step("harden").said


def test_every_model_of_the_settings_file(use: Use) -> None:
    models = [
        {"name": "a.onnx", "error": None, "gates": [{"gate": "clean>=90%", "verdict": "pass", "detail": "95%"}]},
        {"name": "b.onnx", "error": "gave up", "gates": []},
    ]
    inputs = {"mode": "check", "model": "", "config": "ci.toml", "output": "new/out"}
    ran, stub, _ = use(inputs, code=2, out=json.dumps({"models": models}))
    assert stub.arguments == [
        *("--config=ci.toml", "check", "--json", "--force", "--output=new/out", "--junit=new/out/gates.xml"),
    ]
    assert ran.summary.splitlines()[2:] == [
        "    pass         a.onnx: clean>=90%: 95%",
        "    error        b.onnx: gave up",
    ]
    assert json.loads(ran.outputs["gates"])[0]["model"] == "a.onnx"
    assert "cloakonnx check ended with exit code 2" in ran.step("Judge").said


@pytest.mark.parametrize(("name", "said"), [("mode", "mode is none of"), ("time-limit", "time-limit is no number")])
@pytest.mark.parametrize("value", ["learn", HOSTILE, "5\n5"])
def test_modes_and_limits_that_are_none(use: Use, name: str, said: str, value: str) -> None:
    ran, stub, workspace = use({name: value})
    assert ran.step("harden").code == 2 and said in ran.step("harden").said
    assert not stub.called.exists() and not (workspace / "PWNED").exists()


def test_a_time_limit(use: Use) -> None:
    ran, stub, _ = use({"time-limit": "0.02"}, seconds=60)
    assert stub.arguments[-2:] == ["--", "m.onnx"]
    assert ran.outputs["exit-code"] == "124"
    assert "after the time limit of 0.02 minutes" in ran.step("Judge").said
    assert ran.step("Save finished stages").conclusion == "success"


def test_caches(use: Use) -> None:
    ran, _, _ = use({"output": "out"})
    restored, saved = ran.step("stages").given, ran.step("Save finished stages").given
    assert restored["path"] == saved["path"] == "out" and restored["key"] == saved["key"]
    assert saved["key"].startswith(restored["restore-keys"]) and saved["key"] != restored["restore-keys"]
    assert re.fullmatch(r"cloakonnx-pip-[\w.-]+", ran.step("Cache packages").given["key"])


@pytest.mark.parametrize("given", [{"cache": "false"}, {"upload-report": "false"}])
def test_the_model_is_not_cached_where_it_may_not_be_kept(use: Use, given: dict[str, str]) -> None:
    ran, _, _ = use(given)
    assert ran.step("stages").conclusion == ran.step("Save finished stages").conclusion == "skipped"
    assert (ran.step("Cache packages").conclusion == "skipped") == ("cache" in given)


def test_restored_stages_may_be_of_other_settings(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CACHES, f"actions/cache/restore@{CACHE}", {"cache-matched-key": "cloakonnx-stages-1"})
    _, stub, _ = use({})
    assert stub.arguments == ["harden", "--json", "--output=hardened", "--force", "--", "m.onnx"]


def test_results_cannot_set_other_outputs(use: Use) -> None:
    """A folder's name comes from the workflow, a verdict's words from names in the model."""
    bad = {**RESULT, "verdict": {**VERDICT, "sentence": "x\nEOF\nexit-code=0\nverdict=gain"}}
    bad["files"] = {**FILES, "model": "a\nexit-code=0/hardened.onnx"}
    ran, _, _ = use({}, code=1, out=json.dumps(bad))
    assert ran.outputs["exit-code"] == "1"
    assert ran.outputs["model"] == "a\nexit-code=0/hardened.onnx"
    assert ran.outputs["sentence"] == "x\nEOF\nexit-code=0\nverdict=gain"
    assert not ran.passed


def test_the_artifact_can_be_left_out(use: Use) -> None:
    ran, _, _ = use({"upload-report": "false"})
    assert ran.passed
    assert ran.step("Keep the results").conclusion == "skipped"
