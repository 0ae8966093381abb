"""``cloakonnx harden`` as a user and a pipeline see it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.attacks.helpers import DIGITS, digits_arrays
from tests.cli.conftest import Run, files
from tests.selection.helpers import training_arrays

pytest.importorskip("sklearn")

DATA = ("--data", "train.npz", "--select-data", "select.npz", "--report-data", "test.npz")
COMMAND = ("harden", "m.onnx", *DATA, "--eps", "0.15", "--attack", "fgsm", "--provider", "cpu", "--no-latency")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with the sample model and its data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(DIGITS.read_bytes())
    for name, (x, y), rows in (
        ("train", training_arrays(), slice(200)),
        ("select", training_arrays(), slice(600, 700)),
        ("test", digits_arrays(), slice(30)),
    ):
        np.savez(tmp_path / f"{name}.npz", x=x[rows], y=y[rows])
    return tmp_path


def test_one_go_a_second_one_and_what_the_page_says_to_do_it_again(digits: Path, run: Run) -> None:
    planned = run(*COMMAND, "--dry-run", "--json")
    assert planned.code == 0
    plan = json.loads(planned.out)
    assert [each["name"] for each in plan] == ["inspect", "learn", "apply", "verify", "evaluate", "attest", "report"]
    assert [each["name"] for each in plan if each["seconds"] is not None] == ["learn", "evaluate"]
    assert all(each["seconds"] > 0 for each in plan if each["seconds"] is not None)
    assert not (digits / "m-hardened").exists()
    words = run(*COMMAND, "--dry-run")
    assert words.out.splitlines()[-1].endswith("at most in all")

    first = run(*COMMAND, "--json", "--require", "clean-drop<=30%")
    assert first.code == 0, first.err
    assert "[2/7] learn\n      epoch 5 of 40: loss" in first.err
    told = json.loads(first.out)
    assert told["cost"]["latency"] is None
    assert told["cost"]["model"]["nodes"] > told["cost"]["baseline"]["nodes"] > 0
    assert told["cost"]["model"]["size"] > told["cost"]["baseline"]["size"] == DIGITS.stat().st_size
    assert not any(stage["cached"] for stage in told["stages"])
    assert [gate["verdict"] for gate in told["gates"]] == ["pass"]
    assert {Path(path).name for path in told["files"].values()} == {
        "hardened.onnx", "analysis.cloak.json", "evaluation.json", "samples.npz", "attestation.json", "summary.md",
    "report.html",
    }  # fmt: skip
    before = files(digits)

    second = run(*COMMAND, "--require", "clean-drop<=30%")
    assert second.code == 0
    assert second.err.count(": as before") == 7
    assert told["verdict"]["sentence"] in second.out
    assert files(digits) == before
    assert [line.split(": ")[-1] for line in second.err.splitlines() if "[" in line] == ["as before"] * 7

    again = shlex.join(["cloakonnx", *COMMAND, "--require", "clean-drop<=30%"])
    summary = (digits / "m-hardened" / "summary.md").read_text()
    assert sorted(shlex.split(again)) == sorted(shlex.split(summary.split("```sh\n")[1].split("\n```")[0]))
    for verb in (
        ("verify", "m-hardened/hardened.onnx", "--source", "m.onnx"),
        ("verify", "m-hardened/hardened.onnx", "--attestation", "m-hardened/attestation.json"),
        ("gate", "m-hardened/evaluation.json", "--require", "clean-drop<=30%"),
    ):
        assert run(*verb).code == 0


def test_the_latency_is_measured_unless_it_is_left_out(digits: Path, run: Run) -> None:
    command = [each for each in COMMAND if each != "--no-latency"]
    quick = ("--preset", "quick", "--no-report")
    first = run(*command, *quick, "--json")
    assert first.code == 0, first.err
    assert "[6/8] latency" in first.err
    latency = json.loads(first.out)["cost"]["latency"]
    assert latency["model_seconds"] > 0 and latency["baseline_seconds"] > 0 and len(latency["ratios"]) == 9
    second = run(*command, *quick)
    assert second.err.count(": as before") == 8
    assert f"; {latency['ratio']:.3f} times [" in second.out
    assert "Size: " in second.out
    assert "Latency: medians of 9 pairs of new sessions" in second.err
    refused = run(*COMMAND, "--require", "latency-ratio<=2")
    assert refused.code == 2 and "the latency was left out" in refused.err


def test_a_gate_that_fails_is_exit_code_1_and_everything_is_written(digits: Path, run: Run) -> None:
    failed = run(*COMMAND, "--require", "robust-gain>=90%", "--require", "clean-drop<=30%", "-o", "out")
    assert failed.code == 1
    lines = [line for line in failed.err.splitlines() if ">=90%" in line or "<=30%" in line]
    assert [line.split()[0] for line in lines] == ["fail", "pass"]
    assert (digits / "out" / "report.html").exists()
    again = run(*COMMAND, "--require", "robust-gain>=90%", "--allow-inconclusive", "-o", "out")
    assert again.code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("harden", "m.onnx", "--eps", "0.1"), "labelled samples are needed: --data is missing"),
        (("harden", "m.onnx", *DATA), "Missing option '--eps'"),
        (("harden", "n.onnx", *DATA, "--eps", "0.1"), "no file n.onnx; did you mean 'm.onnx'?"),
        ((*COMMAND, "--require", "robustness>=5%"), "there is no gate 'robustness'; did you mean 'robust"),
        ((*COMMAND, "--require", "robust>=5%@0.2"), "asks for what wasn't measured"),
        ((*COMMAND, "--preset", "quik"), "Invalid value for '--preset'"),
        ((*COMMAND, "--tap", "/1/Relu"), "'/1/Relu' does not exist"),
        ((*COMMAND, "-o", "taken"), "taken: it is not a folder"),
        ((*COMMAND, "-o", "m.onnx"), "m.onnx is to be a folder"),
        ((*COMMAND, "-o", "m.onnx/x"), "cannot write"),
    ],
)
def test_bad_input_is_one_line(digits: Path, run: Run, arguments: tuple[str, ...], message: str) -> None:
    (digits / "taken").write_text("a file")
    before = files(digits)
    found = run(*arguments)
    assert found.code == 2
    assert message in found.err.splitlines()[-1]
    assert "Traceback" not in found.err
    assert files(digits) == before


def test_results_of_other_settings_need_force(digits: Path, run: Run) -> None:
    assert run(*COMMAND).code == 0
    refused = run(*COMMAND, "--seed", "1")
    assert refused.code == 2
    assert "is there already, of other inputs, settings or versions" in refused.err
    assert run(*COMMAND, "--seed", "1", "--dry-run").code == 2
    assert run(*COMMAND, "--seed", "1", "--force").code == 0


def test_the_page_needs_jinja2_and_says_so_first(digits: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    missing = run(*COMMAND)
    assert missing.code == 2
    assert "pip install jinja2" in missing.err
    assert not (digits / "m-hardened").exists()
    assert run(*COMMAND, "--no-report").code == 0
    assert not (digits / "m-hardened" / "report.html").exists()


def test_options_come_from_the_file(digits: Path, run: Run) -> None:
    (digits / "cloakonnx.toml").write_text(
        'eps = "0.15"\n[harden]\ndata = "train.npz"\nselect-data = "select.npz"\nreport-data = "test.npz"\n'
        'attack = "fgsm"\npreset = "quick"\nbudget = "20%"\nrequire = ["clean-drop<=50%"]\nno-report = true\n'
    )
    planned = run("harden", "m.onnx", "--dry-run", "--json")
    assert planned.code == 0, planned.err
    assert json.loads(planned.out)[-1]["files"] == ["summary.md"]


@pytest.mark.parametrize("stage", ["learn", "evaluate"])
def test_ctrl_c_is_130_and_the_next_run_goes_on(digits: Path, stage: str) -> None:
    big = ["--attack", "square"] if stage == "evaluate" else ["--attack", "fgsm"]
    command = [sys.executable, "-m", "cloakonnx", *COMMAND, *big]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        sign = "epoch 1" if stage == "learn" else "at most:"
        said = ""
        for line in process.stderr:
            said += line
            if sign in line:
                break
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, said + err
    said = "cloakonnx: interrupted; no output was left half-written; the same call goes on where this stopped"
    assert (out, err.splitlines()[-1]) == ("", said)
    there = {path.name for path in (digits / "m-hardened").iterdir() if not path.name.startswith(".")}
    assert there == (set() if stage == "learn" else {"analysis.cloak.json", "hardened.onnx"})
    ended = subprocess.run(
        [*command, "--attack", "fgsm"] if stage == "learn" else command, capture_output=True, text=True, check=True
    )
    assert ("[2/7] learn: as before" in ended.stderr) == (stage == "evaluate")
    assert "epoch 1 " not in ended.stderr
    assert (digits / "m-hardened" / "report.html").exists()
