"""check: every model of a settings file, one table, one JUnit file; all settings are checked before any attack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import junitparser
import pytest

from .conftest import Run, files
from .test_gate import masked  # noqa: F401

SHARED = """
data = "many.npz"
attack = "fgsm"
[evaluate]
eps = "0.1"
no-sanity = true
"""
TWO = """
[[models]]
path = "m.onnx"
require = ["clean>=90%", "robust>=1%"]
[[models]]
path = "m.hardened.onnx"
name = 'second <&> "model"'
eps = ["0.05", "0.1"]
require = ["clean-drop<=3%", "robust-gain>=20%@0.1"]
"""


@pytest.fixture
def models(masked: Path) -> Path:  # noqa: F811
    return masked


def refused(run: Run, folder: Path, arguments: tuple[str, ...], said: str) -> None:
    before = files(folder)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and said in err.splitlines()[-1], err
    assert files(folder) == before


def settings(folder: Path, text: str) -> None:
    (folder / "cloakonnx.toml").write_text(SHARED + text)


def test_all_models_are_evaluated_and_judged(run: Run, models: Path) -> None:
    settings(models, TWO)
    code, out, err = run("check", "--junit", "gates.xml", "-o", "evaluations")
    assert code == 1, err
    assert out.splitlines()[0] == '1 of 2 models fail: second <&> "model".'
    assert [out.count(verdict) for verdict in (" pass ", " fail ")] == [3, 1]
    assert [line for line in err.splitlines() if line.startswith("[")] == ["[1/2] m.onnx", '[2/2] second <&> "model"']
    suites = list(junitparser.JUnitXml.fromfile("gates.xml"))
    assert [each.name for each in suites] == ["m.onnx", 'second <&> "model"']
    assert [(each.tests, each.failures, each.errors, each.skipped) for each in suites] == [(2, 0, 0, 0), (2, 1, 0, 0)]
    stored = [json.loads(Path("evaluations", name).read_text()) for name in ("m.onnx.json", "second-model.json")]
    assert [[at["eps"] for at in each["results"]] for each in stored] == [[0.1], [0.05, 0.1]]
    assert [each["baseline"] is None for each in stored] == [True, False]
    assert run("gate", "evaluations/m.onnx.json", "--require", "clean>=90%").code == 0
    refused(run, models, ("check", "-o", "evaluations"), "evaluations/m.onnx.json exists already")
    assert run("check", "-o", "evaluations", "--force").code == 1


def test_json(run: Run, models: Path) -> None:
    settings(models, TWO)
    found = json.loads(run("check", "--json", "-q").out)
    assert (found["passed"], [each["passed"] for each in found["models"]]) == (False, [True, False])
    first, second = found["models"]
    assert [each["verdict"] for each in second["gates"]] == ["pass", "fail"]
    assert first["gates"][1]["value"] == first["robust"][0]["share"] and first["clean"]["count"] == 300
    assert first["evaluation"] is None and len(first["model"]["sha256"]) == 64


def test_without_a_folder_samples_are_not_read_again(run: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(models, TWO)
    asked: list[object] = []
    monkeypatch.setattr("cloakonnx.cli.check.key_of", lambda *given: asked.append(given) or "")
    assert (run("check").code, asked) == (1, [])


def test_one_model_and_the_options_above_the_tables(run: Run, models: Path) -> None:
    (models / "cloakonnx.toml").write_text("model = 'm.onnx'\nrequire = ['clean>=90%']\n" + SHARED)
    code, out, err = run("check")
    assert (code, out.splitlines()[0]) == (0, "1 of 1 models pass."), err
    text = (models / "cloakonnx.toml").read_text().replace("[evaluate]", "[tool.cloakonnx.evaluate]")
    (models / "pyproject.toml").write_text(f"[tool.cloakonnx]\n{text}")
    (models / "cloakonnx.toml").unlink()
    assert run("check").code == 0


def test_model_stands_in_for_the_argument(run: Run, models: Path) -> None:
    (models / "cloakonnx.toml").write_text("model = 'm.onnx'\n" + SHARED)
    assert run("inspect").code == 0
    assert json.loads(run("evaluate", "--json").out)["model"]["name"] == "m.onnx"
    assert json.loads(run("evaluate", "m.hardened.onnx", "--json").out)["model"]["name"] == "m.hardened.onnx"
    assert "verify" in run("verify").err, "a hardened model is another argument"


def test_inconclusive_gates(run: Run, models: Path) -> None:
    one = "[[models]]\npath = 'm.onnx'\nrequire = ['clean>=99.9%']\n"
    settings(models, one)
    assert run("check", "--junit", "gates.xml").code == 1
    (case,) = next(iter(junitparser.JUnitXml.fromfile("gates.xml")))
    assert isinstance(case, junitparser.TestCase)
    assert [type(each) for each in case.result] == [junitparser.Failure]
    assert run("check", "--junit", "gates.xml", "--allow-inconclusive").code == 0
    (case,) = next(iter(junitparser.JUnitXml.fromfile("gates.xml")))
    assert isinstance(case, junitparser.TestCase)
    assert [type(each) for each in case.result] == [junitparser.Skipped]
    settings(models, one + "allow-inconclusive = true\n")
    code, _, err = run("check")
    assert code == 0 and "cloakonnx.toml [[models]] 1 sets allow-inconclusive = true" in err


def test_an_error_in_one_model_leaves_the_others(run: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloakonnx.cli._evaluation import Asked
    from cloakonnx.errors import InferenceError
    from cloakonnx.evaluation.evaluation import Evaluation

    whole = Asked.evaluated

    def fails(self: Asked, **outputs: object) -> Evaluation:
        if self.classifier.name == "m.onnx":
            raise InferenceError("m.onnx: ONNX Runtime gave up")
        return whole(self, **outputs)

    monkeypatch.setattr(Asked, "evaluated", fails)
    settings(models, TWO)
    code, out, err = run("check", "--junit", "gates.xml")
    assert code == 2 and "[[models]] 1 (m.onnx): m.onnx: ONNX Runtime gave up" in err
    assert "error" in out and "robust-gain>=20%@0.1" in out
    first, second = junitparser.JUnitXml.fromfile("gates.xml")
    assert (first.errors, second.tests) == (1, 2)
    assert json.loads(run("check", "--json", "-q").out)["models"][0]["error"] == "m.onnx: ONNX Runtime gave up"


GATE = "require = ['clean>=1%']\n"
BAD = [
    ("", "cloakonnx.toml has no model: name what to check"),
    ("[[models]]\nrequire = ['clean>=1%']", "cloakonnx.toml [[models]] 1 has no path"),
    ("[[models]]\npath = ''\n" + GATE, "[[models]] 1: path is a text, not ''"),
    ("[[models]]\npath = 'm.onnx'\nname = 3\n" + GATE, "[[models]] 1: name is a text, not 3"),
    ("[[models]]\npath = 'm.onnx'", "[[models]] 1 (m.onnx): Missing option '--require'"),
    ("[[models]]\npath = 'm.onnx'\nrequire = ['clean>1%']", "[[models]] 1 (m.onnx): 'clean>1%' is no gate"),
    ("[[models]]\npath = 'm.onnx'\nrequire = ['robust>=1%@0.2']", "eps 0.2 is not among 0.1"),
    ("[[models]]\npath = 'm.onnx'\nrequire = ['clean-drop<=1%']", "compares with a baseline"),
    ("[[models]]\npath = 'm.onnx'\nepss = '0.1'\n" + GATE, "models have no option 'epss'; did you mean 'eps'"),
    ("[[models]]\npath = 'm.onnx'\neps = '7'\n" + GATE, "[[models]] 1 (m.onnx): --eps 7 is wider than pixel space"),
    ("[[models]]\npath = 'm.onnx'\nattack = 'nope'\n" + GATE, "there is no attack or preset 'nope'"),
    ("[[models]]\npath = 'm.onnx'\ndata = 'no.npz'\n" + GATE, "[[models]] 1 (m.onnx): no file or folder no.npz"),
    ("[[models]]\npath = 'no.onnx'\n" + GATE, "[[models]] 1 (no.onnx): no file no.onnx"),
    ("[[models]]\npath = 'm.onnx'\nbatch-size = 'x'\n" + GATE, "[[models]] 1: batch-size: 'x' is not a valid integer"),
    ("[[models]]\npath = 'm.onnx'\ndata-script = 'a.py:f'\n" + GATE, "data-script runs code"),
    ("[[models]]\npath = 'm.onnx'\noutput = 'a'\n" + GATE, "models have no option 'output'"),
    ("[[models]]\npath = 'm.onnx'\nprovider = 'nope'\n" + GATE, "[[models]] 1 (m.onnx): "),
    (f"[[models]]\npath = 'm.onnx'\n{GATE}" * 2, "another model has that name"),
    (f"[models]\npath = 'm.onnx'\n{GATE}", "models are tables, each headed [[models]]"),
    ("[check]\njunit = 'm.onnx'", "junit decides which files are written over"),
    ("[evaluate2]", "there is no verb 'evaluate2'"),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[said[:50] for _, said in BAD])
def test_what_is_wrong_is_said_before_any_work(run: Run, models: Path, text: str, said: str) -> None:
    good = f"[[models]]\npath = 'm.hardened.onnx'\n{GATE}" if text.startswith("[[models]]") else ""
    settings(models, f"{text}\n{good}")
    refused(run, models, ("check", "--junit", "gates.xml"), said)


def test_model_and_models(run: Run, models: Path) -> None:
    (models / "cloakonnx.toml").write_text(f"model = 'm.onnx'\n{SHARED}{TWO}")
    refused(run, models, ("check",), "cloakonnx.toml has model and [[models]]")
    (models / "cloakonnx.toml").write_text("model = 3")
    refused(run, models, ("check",), "cloakonnx.toml: model is the path of a model, not 3")
    (models / "cloakonnx.toml").unlink()
    refused(run, models, ("check",), "no cloakonnx.toml here")


def test_two_models_into_one_file(run: Run, models: Path) -> None:
    settings(models, f"[[models]]\npath = 'm.onnx'\n{GATE}[[models]]\npath = 'm.hardened.onnx'\nname='m onnx'\n{GATE}")
    assert run("check", "-o", "e").code == 0
    settings(models, f"[[models]]\npath = 'm.onnx'\nname='a b'\n{GATE}[[models]]\npath = 'm.onnx'\nname='a-b'\n{GATE}")
    assert "two models would be written to" in run("check", "-o", "f").err


def test_an_interrupted_check_goes_on(run: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloakonnx.cli._evaluation import Asked
    from cloakonnx.evaluation.evaluation import Evaluation

    settings(models, TWO)
    assert run("check", "-o", "whole").code == 1
    evaluated, made = Asked.evaluated, []

    def watched(self: Asked, **outputs: object) -> Evaluation:
        made.append(self.classifier.name)
        if interrupts and self.classifier.name == "m.hardened.onnx":
            raise KeyboardInterrupt
        return evaluated(self, **outputs)

    monkeypatch.setattr(Asked, "evaluated", watched)
    interrupts = True
    code, _, err = run("check", "-o", "e")
    assert code == 130 and "--resume goes on where this stopped" in err
    interrupts = False
    refused(run, models, ("check", "-o", "e"), "e/m.onnx.json exists already")
    settings(models, TWO.replace("[[models]]", "[[models]]\nseed = 1", 1))
    refused(run, models, ("check", "-o", "e", "--resume"), "e/m.onnx.json was finished with other settings")
    settings(models, TWO)
    refused(run, models, ("check", "--resume"), "--resume needs -o")
    made.clear()
    code, out, err = run("check", "-o", "e", "--resume")
    assert (code, made) == (1, ["m.hardened.onnx"]), err
    assert "[1/2] m.onnx (finished before)" in err and "1 of 2 models fail" in out
    assert files(models / "e") == files(models / "whole")


def test_a_finished_file_that_was_changed_is_not_taken(run: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloakonnx.cli._evaluation import Asked

    settings(models, TWO)
    whole = Asked.evaluated
    monkeypatch.setattr(
        Asked,
        "evaluated",
        lambda self, **outputs: whole(self, **outputs) if self.classifier.name == "m.onnx" else _interrupt(),
    )
    assert run("check", "-o", "e").code == 130
    path = models / "e" / "m.onnx.json"
    path.write_text(path.read_text() + " ")
    refused(run, models, ("check", "-o", "e", "--resume"), "e/m.onnx.json exists already")


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def test_no_empty_folder_is_left(run: Run, models: Path) -> None:
    settings(models, f"[[models]]\npath = 'm.onnx'\nname='a b'\n{GATE}[[models]]\npath = 'm.onnx'\nname='a-b'\n{GATE}")
    refused(run, models, ("check", "-o", "f"), "two models would be written to")
