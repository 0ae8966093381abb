"""``analyze --select greedy`` as a user sees it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.attacks.helpers import DIGITS, digits_arrays

from .conftest import Run

SELECT = ("--attack", "pgd", "--eps", "0.1", "--max-iter", "4", "--select", "greedy", "--budget", "3%")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIGITS, tmp_path / "m.onnx")
    x, y = digits_arrays()
    np.savez(tmp_path / "d.npz", x=x[:100], y=y[:100])
    np.savez(tmp_path / "s.npz", x=x[100:160], y=y[100:160])
    return tmp_path


def test_select_apply_verify(here: Path, run: Run) -> None:
    made = run("analyze", "m.onnx", "--data", "d.npz", "--select-data", "s.npz", *SELECT, "--rounds", "1", "--force")
    assert made.code == 0
    assert "round 1: 1 removed, last " in made.err
    assert "select part (s.npz, 60 samples): clean " in made.err
    assert "robust under the attack made again " in made.err
    first = (here / "m.cloak.json").read_bytes()
    removed = json.loads(first)["selection"]["rounds"][0]["removed"]
    applied = run("apply", "m.onnx", "--json")
    assert applied.code == 0
    assert json.loads(applied.out)["masks"][0]["removed"] == sorted(removed)
    assert run("verify", "m.hardened.onnx", "--source", "m.onnx").code == 0
    refused = run("apply", "m.onnx", "--remove", "5%", "--force")
    assert refused.code == 2
    again = run(
        "analyze", "m.onnx", "--data", "d.npz", "--select-data", "s.npz", *SELECT, "--rounds", "1", "--force", "--json"
    )
    assert again.out.encode() == first == (here / "m.cloak.json").read_bytes()


def test_no_gain_writes_nothing_and_exits_1(here: Path, run: Run) -> None:
    eps_zero = ("--attack", "fgsm", "--eps", "0", "--select", "greedy", "--budget", "0")
    refused = run("analyze", "m.onnx", "--data", "d.npz", *eps_zero)
    assert refused.code == 1
    assert "removing features of '/6/Relu_output_0' within the budget of 0 points" in refused.err
    assert not (here / "m.cloak.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--select", "greedy"), "--select greedy needs --budget"),
        (("--budget", "1%"), "--budget goes with --select greedy"),
        (("--rounds", "2"), "--rounds goes with --select greedy"),
        (("--select-data", "s.npz"), "--select-data goes with --select greedy"),
        ((*SELECT[-4:], "--criterion", "margin"), "--criterion and --select exclude each other"),
        (("--select", "greedy", "--budget", "150%"), "--budget 1.5 must be a share"),
        ((*SELECT[-4:], "--select-data", "z.npz"), "z.npz"),
    ],
)
def test_bad_usage(here: Path, run: Run, arguments: tuple[str, ...], said: str) -> None:
    found = run("analyze", "m.onnx", "--data", "d.npz", "--attack", "pgd", "--eps", "0.1", *arguments)
    assert found.code == 2
    assert said in found.err
    assert not (here / "m.cloak.json").exists()


def test_adversarial_inputs_take_one_round(here: Path, run: Run) -> None:
    adversarial = ("--data", "d.npz", "--adversarial", "d.npz", *SELECT[-4:])
    assert "there is one round" in run("analyze", "m.onnx", *adversarial, "--rounds", "2").err
    assert "--select-data goes with --attack" in run("analyze", "m.onnx", *adversarial, "--select-data", "s.npz").err
