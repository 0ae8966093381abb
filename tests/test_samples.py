"""The samples run as they stand."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cloakonnx.statistics import newcombe_paired

ROOT = Path(__file__).parents[1]


def run_cells(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Run a script cell by cell, as a notebook would; return its names, and what the cells show."""
    names: dict[str, Any] = {}
    shown = []
    first, *cells = path.read_text(encoding="utf-8").split("\n# %%")
    for cell in (first, *(f"# %%{cell}" for cell in cells)):
        tree = ast.parse(cell, path.name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))
    return names, shown


@pytest.mark.parametrize("folder", [ROOT, ROOT / "samples"], ids=["checkout", "samples"])
def test_the_first_cell_finds_its_files(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A notebook may lie in either."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["harden_digits.py", str(tmp_path)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    first = (ROOT / "samples" / "harden_digits.py").read_text(encoding="utf-8").split("\n# %%")[1]
    names: dict[str, Any] = {}
    exec(compile(f"# %%{first}", "harden_digits.py", "exec"), names)
    assert (names["SAMPLES"] / "digits_cnn.onnx").exists()


def test_harden_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["harden_digits.py", str(tmp_path)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    names, shown = run_cells(ROOT / "samples" / "harden_digits.py")
    said = capsys.readouterr().out
    assert "Harder to attack" in said
    assert "all gates passed: True" in said
    difference = newcombe_paired(names["found"].results[0].pairs)
    assert difference.low > 0
    tables = [value for value in shown if hasattr(value, "_repr_html_")]
    assert tables == [names["done"], names["found"], names["done"].analysis]
    for value in tables:
        assert ET.fromstring(f"<div>{value._repr_html_()}</div>").find(".//table") is not None
    assert (tmp_path / "digits_cnn-hardened" / "hardened.onnx").stat().st_size > 0
