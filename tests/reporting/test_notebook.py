"""What notebooks show: well-formed HTML with the verdict first, in which no name gets out of its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scipy.stats import binomtest

from cloakonnx.evaluation.evaluation import STATEMENT
from cloakonnx.evaluation.gates import Decision
from cloakonnx.evaluation.verdict import verdict
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.pipeline.harden import Hardened

from . import samples

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
PLAIN = {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def shown(value: Any) -> ET.Element:
    """Parse what a notebook shows; a tag that is not closed, or that came with a name, is an error."""
    root = ET.fromstring(f"<div>{value._repr_html_()}</div>")
    assert {element.tag for element in root.iter()} <= PLAIN
    assert {key for element in root.iter() for key in element.attrib} <= {"scope"}
    return root


def cells(root: ET.Element) -> list[list[str]]:
    return [[cell.text or "" for cell in row] for row in root.iter("tr")]


def words(root: ET.Element) -> list[str]:
    return ["".join(paragraph.itertext()) for paragraph in root.iter("p")]


def test_an_evaluation() -> None:
    found = samples.evaluation(fired=("static-gain",))
    root = shown(found)
    judged = verdict(found)
    assert words(root)[:3] == [f"{judged.title}: model.hardened.onnx", judged.sentence, judged.caveats[0]]
    assert words(root)[-1] == STATEMENT
    rows = cells(root)
    assert [row[0] for row in rows] == [
        "",
        "clean",
        "robust at 1/255 (adaptive)",
        "static at 1/255 (no claim)",
        "robust at 2/255 (adaptive)",
        "static at 2/255 (no claim)",
    ]
    share = binomtest(50, samples.COUNT).proportion_ci(method="wilson")
    assert rows[4][1] == f"25.0% [{share.low * 100:.1f}, {share.high * 100:.1f}]"
    assert rows[4][3].startswith("+25.0 [")
    assert rows[5][1:] == ["", "60.0% [53.1, 66.5]", "", ""]


def test_scores() -> None:
    found = samples.scored()
    root = shown(found)
    assert words(root) == [
        "Analysis of model.onnx",
        "clean.npz, 1 samples, CPUExecutionProvider",
        "deepcloak at features: the 10 highest of 40 features; 1 score 0",
    ]
    assert cells(root)[:4] == [["feature", "score"], ["17", "39"], ["34", "38"], ["11", "37"]]
    assert len(cells(root)) == 11


def test_masks() -> None:
    found = samples.learned()
    rows = cells(shown(found))
    assert [row[:3] for row in rows[1:]] == [*([f"tap {i}", "16", "0"] for i in range(3)), ["tap 3", "3", "1"]]
    assert rows[4][3:] == ["0.000", "0.833", "1.500"]
    many = replace(found, masks=tuple(Mask(f"tap {i}", np.ones(2, np.float32)) for i in range(14)))
    assert len(cells(shown(many))) == 11
    assert words(shown(many))[-1] == "and 4 more masks"


def hardened(text: str = "clean-drop<=1%") -> Hardened:
    return Hardened(
        folder=Path("out"),
        analysis=samples.learned(),
        evaluation=samples.evaluation(),
        gates=(Decision(text, "fail", f"{text}, measured"),),
        stages=(),
        files={"model": Path("out") / text.replace("/", "-")},
        split=None,
    )


def test_a_hardening() -> None:
    root = shown(hardened())
    assert words(root)[0].startswith("Harder to attack: ")
    rows = cells(root)
    assert ["clean-drop<=1%", "fail", "clean-drop<=1%, measured"] in rows
    assert rows[-1][0] == "model"
    assert ["gate", "", "measured"] not in cells(shown(replace(hardened(), gates=())))


@pytest.mark.parametrize(
    "value",
    [
        samples.evaluation(name=HOSTILE, tap=HOSTILE),
        replace(samples.evaluation(), attack=HOSTILE, norm=HOSTILE),
        samples.scored(HOSTILE),
        replace(samples.learned(), model_name=HOSTILE, provider=HOSTILE),
        replace(samples.learned(), masks=(Mask(HOSTILE, np.ones(2, np.float32)),)),
        hardened(HOSTILE),
    ],
)
def test_names_stay_in_their_place(value: Any) -> None:
    said = [text.replace("-script", "/script") for text in shown(value).itertext()]
    assert any(HOSTILE in text for text in said)
