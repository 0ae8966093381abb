"""``cloakonnx sweep`` from the command line: the table, the file, ranges, and one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from cloakonnx.cli._types import Amounts
from cloakonnx.evaluation.evaluation import STATEMENT
from cloakonnx.selection.topk import Count, Share

from .conftest import Run, files

PAIRS = ("--data", "clean.npz", "--adversarial", "adversarial.npz")
SHORT = ("--attack", "pgd", "--max-iter", "2")


@pytest.fixture
def analysed(run: Run, folder: Path) -> Path:
    assert run("analyze", "m.onnx", *PAIRS).code == 0
    return folder


def test_a_table(run: Run, analysed: Path) -> None:
    code, out, err = run("sweep", "m.onnx", *PAIRS, "--remove", "0%..50%:10%", *SHORT)
    assert (code, err) == (0, "cloakonnx: warning: m.cloak.json has seen 12 of the 12 samples\n")
    assert STATEMENT in out
    assert "n = 12" in out
    assert "static (no claim)" in out
    assert "random: static" in out
    assert "(the largest difference of the adversarial samples)" in out
    assert "WARNING: the analysis has seen 12" in out
    rows = [line.split()[:2] for line in out.splitlines()]
    assert [row for row in rows if row[:1] and row[0].endswith("%")] == [
        *(["0%", "0"], ["10%..30%", "1"], ["40%", "2"], ["50%", "3"]),
        ["50%", "0.09902"],
    ]
    assert "Adaptive accuracy, beside the model without a mask" in out


def test_no_adaptive_accuracy_is_said(run: Run, analysed: Path) -> None:
    code, out, _ = run("sweep", "m.onnx", *PAIRS, "--remove", "0..3", "--adaptive-at", "none")
    assert code == 0
    assert "Adaptive accuracy was not measured, so nothing here tells how robust any of these masks is." in out
    assert STATEMENT in out
    (analysed / "cloakonnx.toml").write_text("eps = '0.1'\n")  # for evaluate and others
    assert run("sweep", "m.onnx", *PAIRS, "--remove", "0..3", "--adaptive-at", "none").out == out


def test_json_and_a_file(run: Run, analysed: Path) -> None:
    options = ("--remove", "0..3", "--adaptive-at", "1,3", "--eps", "0.05,0.1", *SHORT)
    code, out, err = run("sweep", "m.onnx", *PAIRS, *options, "--json", "-o", "curve.json")
    assert code == 0
    assert err.startswith("wrote curve.json\n")
    assert (analysed / "curve.json").read_text(encoding="utf-8") == out
    content: dict[str, Any] = json.loads(out)
    assert [point["removed"] for point in content["points"]] == [0, 1, 2, 3]
    assert [each["remove"] for each in content["adaptive"]] == ["1", "3"]
    assert content["attacks"]["eps"] == [0.05, 0.1]
    code, _, err = run("sweep", "m.onnx", *PAIRS, *options, "-o", "curve.json")
    assert code == 2
    assert "--force" in err


def test_preprocessing_is_the_analysis_s(run: Run, folder: Path) -> None:
    assert run("analyze", "m.onnx", *PAIRS, "--scale", "3", "--mean", "0.5").code == 0
    command = ("sweep", "m.onnx", *PAIRS, "--remove", "0..2", "--adaptive-at", "none", "--json")
    code, out, _ = run(*command)
    assert code == 0
    assert json.loads(out)["preprocessing"]["scale"] == 3
    assert json.loads(out)["preprocessing"]["mean"] == [0.5]
    assert run(*command, "--scale", "3").out == out
    code, _, err = run(*command, "--scale", "2")
    assert code == 2
    assert "--scale 2.0 contradicts the analysis, which was made with 3.0" in err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0%..3%", (0, 0.01, 0.02, 0.03)),
        ("0%..30%:10%", (0, 0.1, 0.2, 0.3)),
        ("5%, 10%", (0.05, 0.1)),
        ("29%", (0.29,)),
        ("0%..1%:0.5%", (0, 0.005, 0.01)),
        ("0%..2%,29%", (0, 0.01, 0.02, 0.29)),
    ],
)
def test_shares(text: str, wanted: tuple[float, ...]) -> None:
    assert Amounts().convert(text, None, None) == tuple(map(Share, wanted))


def test_counts() -> None:
    assert Amounts().convert("0..8:4,9", None, None) == tuple(map(Count, (0, 4, 8, 9)))
    assert Amounts(none=True).convert("none", None, None) == ()


NO_AMOUNTS = [
    "",
    "none",
    "30%..0%",
    "0%..30",
    "0..30%",
    "0%..30%:0%",
    "0%..30%:5",
    "1.5",
    "-1",
    "5%:1%",
    "a%",
    "0..9999",
]


@pytest.mark.parametrize("text", NO_AMOUNTS)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a range"):
        Amounts().convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--adversarial", "adversarial.npz"), "--data is missing"),
        (("--data", "clean.npz"), "--adversarial is missing"),
        ((*PAIRS, "--remove", "0%..101%"), "--remove 100% must be above 0% and below 100%"),
        ((*PAIRS, "--remove", "5"), None),
        ((*PAIRS, "--remove", "6"), "would remove all 6 features"),
        ((*PAIRS, "--remove", "30%..10%"), "neither a range"),
        ((*PAIRS, "--remove", "1,1"), "names the same amount twice"),
        ((*PAIRS, "--remove", "0..3", "--adaptive-at", "4"), "--adaptive-at 4 is not among"),
        ((*PAIRS, "--remove", "0..3", "--adaptive-at", "0"), "only the model without a mask"),
        ((*PAIRS, "--adaptive-at", "none", "--eps", "0.1"), "--eps goes with adaptive accuracy"),
        ((*PAIRS, "--attack", "qick"), "did you mean 'quick'"),
        ((*PAIRS, "--eps", "8"), "--eps 8 is wider than pixel space, [0, 1]"),
        ((*PAIRS, "--norm", "l2"), "--norm l2 needs --eps"),
        ((*PAIRS, "--resume"), "--resume needs -o"),
        (("--data", "clean.npz", "--adversarial", "clean.npz"), "tell no eps"),
        (("--data", "bare.npz", "--adversarial", "bare.npz"), "bare.npz has no labels"),
        (("--data", "many.npz", "--adversarial", "many.npz"), "has label 7, but the model has 3 classes"),
        (("--data", "bare.npz", "--adversarial", "adversarial.npz"), "bare.npz has 3 samples, adversarial.npz has 12"),
        ((*PAIRS, "--analysis", "other.cloak.json"), "no analysis other.cloak.json"),
        ((*PAIRS, "--analysis", "theirs.json"), "was made for another model"),
        ((*PAIRS, "-o", "m.onnx"), "m.onnx is to hold JSON: give it the suffix .json"),
        ((*PAIRS, "-o", "m.cloak.json"), "m.cloak.json is the input"),
    ],
)
def test_bad_input(run: Run, analysed: Path, arguments: tuple[str, ...], said: str | None) -> None:
    x = np.zeros((3, 4), np.float32)
    np.savez(analysed / "bare.npz", x=x)
    np.savez(analysed / "many.npz", x=x, y=np.array([0, 1, 7]))
    text = (analysed / "m.cloak.json").read_text()
    digest = json.loads(text)["model"]["sha256"]
    (analysed / "theirs.json").write_text(text.replace(digest, "0" * 64))
    before = files(analysed)
    code, out, err = run("sweep", "m.onnx", *arguments, *(() if said else SHORT))
    assert files(analysed) == before
    if said is None:
        assert code == 0
        return
    assert (code, out) == (2, "")
    assert err.startswith("cloakonnx: ")
    assert err.count("\n") == 1
    assert said in err
