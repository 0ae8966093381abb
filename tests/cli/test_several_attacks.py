"""``--attack pgd,square``: several attacks by name, in every verb that evaluates, and in what is made of the result."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cloakonnx as ck
from tests.support.pages import without_spans

from .conftest import Run
from .test_bad_input import assert_refused
from .test_gate import masked  # noqa: F401

DATA = ("--data", "many.npz", "--limit", "40")
GIVEN = (*DATA, "--eps", "0.1", "--no-sanity")


def stages(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the stages of the one eps that an attack with settings made."""
    (at,) = content["results"]
    return [each for each in at["hardened"]["stages"] if each["settings"]]


def test_the_worst_case_of_all(run: Run, masked: Path) -> None:  # noqa: F811
    """Each on what those before have left, and no better than any of them alone."""
    code, out, err = run("evaluate", "m.onnx", *GIVEN, "--attack", "fgsm, square", "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content["attack"] == "fgsm,square"
    made = stages(content)
    assert [each["name"] for each in made] == ["fgsm", "square"]
    assert made[0]["attacked"] == 40
    for before, after in pairwise(made):
        assert after["attacked"] == before["robust"]
    robust = content["results"][0]["hardened"]["robust"]["correct"]
    alone = [json.loads(run("evaluate", "m.onnx", *GIVEN, "--attack", n, "--json").out) for n in ("fgsm", "square")]
    assert 0 < robust <= min(each["results"][0]["hardened"]["robust"]["correct"] for each in alone) < 40
    fell_to = set(content["samples"]["outcomes"][0])
    assert {"fgsm", "robust"} <= fell_to <= {"fgsm", "square", "controls", "robust"}


def test_python_takes_a_list_or_the_text(run: Run, masked: Path) -> None:  # noqa: F811
    with np.load("many.npz") as data:
        samples = data["x"][:40], data["y"][:40]
    asked = {"eps": 0.1, "sanity": False, "max_iter": 3}
    listed = ck.evaluate("m.onnx", samples, attack=["pgd", "square"], **asked)
    assert listed == ck.evaluate("m.onnx", samples, attack="pgd,square", **asked)
    assert listed.attack == "pgd,square"
    assert [each.name for each in listed.results[0].hardened.stages[:2]] == ["pgd", "square"]


def test_what_is_made_of_the_result(run: Run, masked: Path) -> None:  # noqa: F811
    """The table, Markdown, the page with the command that makes it again, the evidence."""
    asked = (*GIVEN, "--attack", "pgd,fgsm,square", "--max-iter", "7", "--restarts", "2")
    done = run("evaluate", "m.onnx", *asked, "-o", "e.json")
    assert "m.onnx under pgd,fgsm,square (linf)" in done.out
    found = run("evaluate", "m.onnx", *asked, "--markdown").out
    assert found.startswith("### m.onnx under pgd,fgsm,square (linf)\n")
    assert run("report", "e.json", "-o", "page.html").code == 0
    page = without_spans(Path("page.html").read_text())
    again = next(line for line in page.splitlines() if "cloakonnx evaluate m.onnx" in line)
    words = shlex.split(again[again.index("cloakonnx evaluate") :].partition("<")[0])
    assert words[words.index("--attack") + 1] == "pgd,fgsm,square"
    assert words[words.index("--max-iter") + 1] == "7"
    assert words[words.index("--restarts") + 1] == "2"
    assert run(*words[1:], "--limit", "40").code == 0
    assert stages(json.loads(Path("again.json").read_text())) == stages(json.loads(Path("e.json").read_text()))
    assert run("evidence", "e.json", "--require", "clean>=1%", "-o", "x.json").code == 0
    listed = json.loads(Path("x.json").read_text())["predicate"]["configuration"]
    assert {each["name"] for each in listed} >= {"settings", "coverage"}
    assert run("evidence", "e.json", "--format", "cyclonedx", "-o", "c.json").code == 0
    assert "under pgd,fgsm,square, linf eps 0.1" in Path("c.json").read_text()


def test_settings_of_their_own_are_not_named_again(run: Run, masked: Path) -> None:  # noqa: F811
    run("evaluate", "m.onnx", *GIVEN, "--attack", "pgd,apgd-ce", "-o", "e.json")
    run("report", "e.json", "-o", "page.html")
    page = without_spans(Path("page.html").read_text())
    assert "--attack pgd,apgd-ce" in page
    assert "--max-iter" not in page and "--restarts" not in page


def test_dry_run(run: Run, masked: Path) -> None:  # noqa: F811
    code, out, err = run("evaluate", "m.onnx", *GIVEN, "--attack", "pgd,square", "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["samples"] == 40
    asked = ("evaluate", "m.onnx", *GIVEN, "--attack", "pgd,sqare", "--dry-run")
    assert_refused(run, masked, asked, "did you mean 'square'?")


def test_check_takes_a_list(run: Run, masked: Path) -> None:  # noqa: F811
    Path("cloakonnx.toml").write_text(
        'data = "many.npz"\nlimit = 20\neps = 0.1\nno-sanity = true\n'
        '[[models]]\npath = "m.onnx"\nattack = ["fgsm", "square"]\nrequire = "clean>=1%"\n'
        '[[models]]\npath = "m.hardened.onnx"\nattack = "fgsm,noise"\nrequire = "clean>=1%"\n'
    )
    assert run("check", "-o", "out").code == 0
    named = [json.loads(path.read_text())["attack"] for path in sorted(Path("out").glob("*.json"))]
    assert named == ["fgsm,noise", "fgsm,square"]


def test_sweep(run: Run, folder: Path) -> None:
    pairs = ("--data", "clean.npz", "--adversarial", "adversarial.npz")
    assert run("analyze", "m.onnx", *pairs).code == 0
    asked = ("--remove", "0..2", "--attack", "fgsm,noise", "--json")
    code, out, err = run("sweep", "m.onnx", *pairs, *asked)
    assert code == 0, err
    content = json.loads(out)
    assert content["attacks"]["attack"] == "fgsm,noise"
    (at,) = content["adaptive"][0]["results"]
    assert [each["name"] for each in at["hardened"]["stages"] if each["settings"]][:2] == ["fgsm", "noise"]


def test_harden(run: Run, masked: Path) -> None:  # noqa: F811
    given = ("m.onnx", "--data", "many.npz", "--eps", "0.1", "--preset", "quick", "--no-report", "-o", "h")
    done = run("harden", *given, "--attack", "fgsm,pgd", "--max-iter", "3")
    assert done.code in {0, 1}, done.err
    name = "evaluation.json" if done.code == 0 else "source-evaluation.json"
    content = json.loads((masked / "h" / name).read_text())
    assert content["attack"] == "fgsm,pgd"
    steps = {each["name"]: each["settings"]["max_iter"] for each in stages(content)}
    assert steps["pgd"] == 3
    assert_refused(run, masked, ("harden", *given, "--attack", "pgd,pgd"), "--attack pgd,pgd makes pgd twice")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--attack", "pgd,squar"), "no attack or preset 'squar'; there are quick,"),
        (("--attack", "pgd,squar"), "did you mean 'square'?"),
        (("--attack", "quick,square"), "--attack quick,square makes square twice: quick has it"),
        (("--attack", "pgd,,square"), "--attack 'pgd,,square' has an empty name"),
        (("--attack", "square,noise", "--max-iter", "3"), "take --max-iter, and square,noise has none that does"),
        (("--attack", "fgsm,square", "--restarts", "3"), "take --restarts, and fgsm,square has none that does"),
    ],
)
def test_bad_input(run: Run, masked: Path, options: tuple[str, ...], said: str) -> None:  # noqa: F811
    assert_refused(run, masked, ("evaluate", "m.onnx", *GIVEN, *options), said)


def test_verbs_that_make_one_attack_say_so(run: Run, folder: Path) -> None:
    asked = ("attack", "m.onnx", "--data", "clean.npz", "--eps", "0.1", "--attack", "pgd,square", "-o", "x.npz")
    assert_refused(run, folder, asked, "'pgd,square' names several attacks, and this takes one: run it once for each")
