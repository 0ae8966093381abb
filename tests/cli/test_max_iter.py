"""--max-iter with presets, in evaluate and in harden: the remedy that the flag ``iterations`` names."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.pages import without_spans

from .conftest import Run
from .test_gate import masked  # noqa: F401


def steps(path: Path) -> dict[str, int]:
    (at,) = json.loads(path.read_text())["results"]
    stages = at["hardened"]["stages"]
    return {each["name"]: each["settings"]["max_iter"] for each in stages if each["settings"]}


def test_evaluate(run: Run, masked: Path) -> None:  # noqa: F811
    given = ("--data", "many.npz", "--limit", "20", "--eps", "0.1", "--no-sanity")
    assert run("evaluate", "m.onnx", *given, "--max-iter", "7", "-o", "e.json").code == 0
    assert steps(masked / "e.json") == {"pgd": 7, "apgd-ce": 7, "square": 500}
    run("report", "e.json", "-o", "page.html")
    assert "--max-iter 7" in without_spans((masked / "page.html").read_text())


def test_harden(run: Run, masked: Path) -> None:  # noqa: F811
    given = ("m.onnx", "--data", "many.npz", "--eps", "0.1", "--preset", "quick", "--no-report", "-o", "h")
    done = run("harden", *given, "--max-iter", "7", "--no-latency")
    assert done.code in {0, 1}, done.err
    name = "evaluation.json" if done.code == 0 else "source-evaluation.json"
    assert steps(masked / "h" / name) == {"pgd": 7, "apgd-ce": 7, "square": 500}
    assert "max_iter" in run("harden", *given, "--max-iter", "converged").err.replace("-", "_")
