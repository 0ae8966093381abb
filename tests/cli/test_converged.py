"""Whether an attack has converged: said by attack and evaluate, kept in files, refused where it can't be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from cloakonnx.evaluation.evaluation import Evaluation
from tests.attacks.helpers import DIGITS, model
from tests.selection.helpers import digits_arrays

from .conftest import Run

pytest.importorskip("sklearn")

GIVEN = ("--attack", "pgd", "--max-iter", "converged", "--eps", "1/16")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    x, y = digits_arrays()
    np.savez(tmp_path / "test.npz", x=x[:12], y=y[:12])
    return tmp_path / "test.npz"


def test_attack_says_for_how_many(run: Run, data: Path, tmp_path: Path) -> None:
    done = run("attack", DIGITS, "--data", data, *GIVEN, "-o", tmp_path / "o.npz", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert 0 < found["converged"] <= found["robust"]
    said = run("attack", DIGITS, "--data", data, *GIVEN, "-o", tmp_path / "o.npz", "--force").err
    assert f"converged for {found['converged']} of {found['robust']} robust samples" in said


def test_an_evaluation_keeps_it_and_reads_files_without_it(run: Run, data: Path, tmp_path: Path) -> None:
    other = DIGITS.with_name("digits_robust.onnx")
    output = tmp_path / "e.json"
    done = run("evaluate", other, "--baseline", DIGITS, "--data", data, *GIVEN, "--no-sanity", "-o", output)
    assert done.code == 0
    assert "pgd at 1/16, baseline: converged for " in done.err
    content = json.loads(output.read_text())
    stages = [s for who in ("hardened", "baseline") for s in content["results"][0][who]["stages"] if "converged" in s]
    assert stages
    assert all(0 < stage["converged"] <= stage["robust"] for stage in stages)
    assert Evaluation.from_json(output.read_text()).to_json() == output.read_text()
    for stage in stages:
        del stage["converged"]
    assert json.loads(Evaluation.from_json(json.dumps(content)).to_json()) == content


def test_harden_says_for_how_many(run: Run, data: Path, tmp_path: Path) -> None:
    parts = ("--data", data, "--select-data", data, "--report-data", data)
    how = ("--eps", "1/16", "--attack", "pgd", "--method", "score", "--budget", "50%", "--no-report")
    done = run("harden", DIGITS, *parts, *how, "--no-latency", "-o", tmp_path / "hardened")
    assert done.code == 0, done.err
    (at,) = json.loads((tmp_path / "hardened" / "evaluation.json").read_text())["results"]
    wanted = [
        f"      pgd at 1/16, {who}: converged for {stage['converged']} of {stage['robust']} robust samples"
        for who in ("hardened", "baseline")
        for stage in at[who]["stages"]
        if "converged" in stage
    ]
    assert wanted
    assert [line for line in done.err.splitlines() if "converged for" in line] == wanted


def test_the_flag_on_iterations_goes_by_it(run: Run, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "e.json"
    assert run("evaluate", DIGITS, "--baseline", DIGITS, "--data", data, *GIVEN, "-o", output).code == 0
    content = json.loads(output.read_text())
    (stage,) = [each for each in content["results"][0]["hardened"]["stages"] if "converged" in each]
    (flag,) = [each for each in content["sanity"]["flags"] if each["name"] == "iterations"]
    assert stage["converged"] == stage["robust"] > 0
    assert (flag["fired"], flag["value"]) == (False, 0.0)
    assert f"own PGD ran into an exact cycle for each of the {stage['robust']} robust samples" in flag["measured"]


def test_pairs_take_a_number_of_steps(run: Run, data: Path, tmp_path: Path) -> None:
    done = run("analyze", DIGITS, "--data", data, *GIVEN, "-o", tmp_path / "a.json")
    assert done.code == 2
    assert "--max-iter converged goes with attack, evaluate and sweep" in done.err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("slopes", ["linear", "many"])
def test_learn_says_how_far_the_attack_of_its_choice_was(run: Run, tmp_path: Path, slopes: str) -> None:
    """In a linear net sign steps end in a corner of the ball within the ten steps; the sample net takes far more."""
    x, y = digits_arrays()
    if slopes == "linear":
        w = np.random.default_rng(2).normal(size=(64, 2)).astype(np.float32)
        x, path = x.reshape(len(x), 64), tmp_path / "linear.onnx"
        y = (x @ w).argmax(axis=1)
        made = model([helper.make_node("Gemm", ["x", "w"], ["scores"], name="g")], {"w": w}, ["N", 64], 2)
        path.write_bytes(made.SerializeToString())
    else:
        path = DIGITS
    np.savez(tmp_path / "train.npz", x=x, y=y)
    how = ("--eps", "1/32", "--epochs", "1", "--budget", "50%", "--force")
    done = run("learn", path, "--data", tmp_path / "train.npz", *how, "-o", tmp_path / "a.json")
    assert done.code == 0, done.err
    chosen = json.loads((tmp_path / "a.json").read_text())["learning"]["chosen"]
    assert chosen["robust"] > 0
    if slopes == "linear":
        assert chosen["converged"] == chosen["robust"]
        assert f"PGD-10 ran into an exact cycle for each of {chosen['robust']} robust samples" in done.err
    else:
        converged = chosen.get("converged", 0)
        assert converged < chosen["robust"]
        assert f"PGD-10 has converged for {converged} of {chosen['robust']} robust samples, so" in done.err
        assert "upper bound" in done.err
