"""``cloakonnx report`` from the command line: files in, a page out, one line for bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cloakonnx.evaluation.evaluation import STATEMENT
from tests.reporting import samples

from .conftest import Run, files


@pytest.fixture
def made(folder: Path) -> Path:
    samples.evaluation().save(folder / "e.json")
    samples.sweep().save(folder / "s.json")
    samples.scored().save(folder / "a.json")
    samples.turned(samples.evaluation(), 8, 8, 3).save(folder / "s.npz")
    samples.turned(samples.evaluation(seen=1), 8, 8, 3).save(folder / "other.npz")
    (folder / "other.json").write_text(samples.scored().to_json().replace("a" * 64, "f" * 64))
    return folder


def test_a_page(run: Run, made: Path) -> None:
    arguments = ("report", "e.json", "--analysis", "a.json", "--sweep", "s.json", "-o", "report.html")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "wrote report.html\n")
    assert out.startswith(
        "Harder to attack: Under attacks that know them, the masks raise robust accuracy at 1/255 from"
    )
    page = (made / "report.html").read_bytes()
    assert page.startswith(b"<!DOCTYPE html>")
    assert STATEMENT.encode() in page
    code, _, err = run(*arguments)
    assert code == 2
    assert "--force" in err
    judged = json.loads(run(*arguments, "--force", "--json").out)
    assert (judged["verdict"], judged["caveats"]) == ("gain", [])
    assert (made / "report.html").read_bytes() == page


def test_with_samples(run: Run, made: Path) -> None:
    assert run("report", "e.json", "--samples", "s.npz", "-o", "r.html").code == 0
    assert (made / "r.html").read_text(encoding="utf-8").count('<img src="data:image/png;base64,') == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("e.json",), "Missing option '-o'"),
        (("none.json", "-o", "r.html"), "cannot read the evaluation none.json"),
        (("s.json", "-o", "r.html"), "s.json is not an evaluation"),
        (("e.json", "--sweep", "e.json", "-o", "r.html"), "e.json is not a sweep"),
        (("e.json", "--sweep", "none.json", "-o", "r.html"), "cannot read the sweep none.json"),
        (("e.json", "--analysis", "none.json", "-o", "r.html"), "no analysis none.json"),
        (("e.json", "--analysis", "other.json", "-o", "r.html"), "the analysis is of another model"),
        (("e.json", "--model", "m.onnx", "-o", "r.html"), "m.onnx is not the model of the evaluation"),
        (("e.json", "--model", "none.onnx", "-o", "r.html"), "none.onnx"),
        (("e.json", "--samples", "none.npz", "-o", "r.html"), "no file or folder none.npz"),
        (("e.json", "--samples", "e.json", "-o", "r.html"), "e.json: it is not an .npz file"),
        (("e.json", "--samples", "other.npz", "-o", "r.html"), "the samples are of another evaluation"),
        (("e.json", "-o", "e.json"), "e.json is to hold an HTML page"),
        (("e.json", "-o", "nowhere/r.html"), "there is no folder"),
    ],
)
def test_bad_input(run: Run, made: Path, arguments: tuple[str, ...], said: str) -> None:
    before = files(made)
    code, out, err = run("report", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("cloakonnx: ")
    assert err.count("\n") == 1
    assert said in err
    assert files(made) == before


def test_without_the_extra(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, out, err = run("report", "e.json", "-o", "r.html")
    assert (code, out) == (2, "")
    assert err == "cloakonnx: a report needs Jinja2: pip install jinja2\n"
    assert not (made / "r.html").exists()
