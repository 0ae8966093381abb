"""The report page: what each of its sections says, and that the same values give the same bytes."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scipy.stats import binomtest

from cloakonnx.errors import DataError, MissingDependencyError
from cloakonnx.evaluation.evaluation import STATEMENT, Evaluation, load_evaluation
from cloakonnx.evaluation.sweeps.record import load_sweep
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.reporting._charts import ticks
from cloakonnx.reporting.page import report_html
from cloakonnx.statistics import Accuracy, newcombe_paired
from tests.fixtures import core
from tests.fixtures.models import TAP
from tests.support.pages import Elements, table

from . import samples

PLACES = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "points", "d"}


def test_numbers(whole: str) -> None:
    text = Elements(whole).text
    assert text.count(STATEMENT) == 2
    found = samples.evaluation()
    interval = newcombe_paired(found.results[1].pairs)
    difference = f"+25.0 [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"
    rows = table(whole, "accuracy-table")
    assert [row[0] for row in rows] == [
        "clean",
        *(
            f"{kind} at {eps}/255 ({said})"
            for eps in "12"
            for kind, said in (("robust", "adaptive"), ("static", "no claim"))
        ),
    ]
    shares = [binomtest(correct, samples.COUNT).proportion_ci(method="wilson") for correct in (192, 188)]
    said = [f"[{share.low * 100:.1f}, {share.high * 100:.1f}]" for share in shares]
    assert rows[0][1:3] == [f"96.0% {said[0]}", f"94.0% {said[1]}"]
    assert rows[3][1:4] == ["25.0% [19.5, 31.4]", "50.0% [43.1, 56.9]", difference]
    for said in ("sha256", samples.HARDENED, samples.SOURCE, "c" * 64, "seed", "CPUExecutionProvider", "max_iter 20"):
        assert said in text
    assert next(row[:2] for row in table(whole, "sanity-table")) == ["single-step", "ok"]
    assert len(table(whole, "sanity-table")) == 11
    assert "cloakonnx evaluate model.hardened.onnx --data test.npz --attack quick --eps 1/255,2/255" in text


def test_how_to_do_it_again(whole: str) -> None:
    """A command that was made up from the evaluation's file says what it can't know; one that was given is what ran."""
    given = Elements(report_html(samples.evaluation(), command="cloakonnx harden m.onnx --data x.npz")).text
    assert "cloakonnx harden m.onnx --data x.npz" in given
    for said, wanted in (("Made from the settings", False), ("--limit", False), ("they are the same samples", True)):
        assert (said in given) == wanted
        assert said in Elements(whole).text


def test_charts_are_drawn(whole: str) -> None:
    charts = {}
    for text in re.findall(r'<svg class="chart".*?</svg>', whole, re.S):
        root = ET.fromstring(text)
        charts[str(root.attrib["aria-labelledby"])] = root
        for element in root.iter():  # a NaN or an infinity would leave a hole
            places = [value for key, value in element.attrib.items() if key in PLACES]
            assert not any(bad in value for value in places for bad in ("nan", "inf"))
    assert set(charts) == {"accuracy-title", "curve-title", "sweep-title", "scores-title"}
    marks = [mark.findtext("title") for mark in charts["curve-title"].iter("g") if mark.get("class") == "mark"]
    assert len(marks) == 9
    assert "after, attacked itself, eps 2/255: 50.0% [43.1, 56.9]" in marks
    assert len({e.get("class") for e in charts["curve-title"].iter("g") if "series" in e.get("class", "")}) == 3
    hatched = [bar for bar in charts["scores-title"].iter("rect") if bar.get("class") == "bar masked mark"]
    assert sum(int((bar.findtext("title") or "").split()[0]) for bar in hatched) == 3
    assert sum(float(bar.attrib["height"]) > 0 for bar in charts["scores-title"].iter("rect")) >= 20


def test_scores_with_the_masked_ones_marked(whole: str) -> None:
    rows = table(whole, "scores-table")
    assert [row for row in rows if row[3] == "masked"] == [
        ["17", "39", "1", "masked"],
        ["34", "38", "2", "masked"],
        ["11", "37", "3", "masked"],
    ]
    assert rows[-1] == ["0", "0", "40", "kept, dead"]
    assert "give --model to mark what the model really masks" in whole


def test_the_sweep(whole: str) -> None:
    rows = table(whole, "sweep-table")
    assert [row[1] for row in rows] == list(map(str, range(13)))
    assert rows[4][2:] == ["93.0% [88.6, 95.8]", "52.0% [45.1, 58.8]", "50.0% [43.1, 56.9]", "20.0% [15.0, 26.1]"]
    assert rows[1][4:] == ["", ""]
    assert rows[0][4] == "45.0% [38.3, 51.9]"


def test_learned_masks() -> None:
    page = report_html(samples.evaluation(), analysis=samples.learned())
    assert "4 masks on activations with 51 values: 1 removes what it multiplies" in page
    # 10% and 90% of (0, 1, 1.5) lie a fifth of the way from the ends; the change is the root of (1 + 0 + 1/4) / 3
    assert table(page, "taps-table")[3] == ["tap 3", "3", "1", "0.000", "0.200", "0.833", "1.400", "1.500", "0.645"]
    assert len(table(page, "weights-table")) == 51


def test_what_was_not_measured_has_no_section() -> None:
    page = report_html(samples.evaluation(fired=None))
    assert "The sanity checks were left out" in Elements(page).text  # a caveat of the verdict
    parts = {"numbers", "sweep-part", "masks", "samples", "flags", "controls", "settings", "again"}
    there = {each for each in parts if f'<section id="{each}"' in page}
    assert there == {"numbers", "controls", "settings", "again"}
    assert {each for each in parts if f'href="#{each}"' in page} == there
    full = report_html(samples.evaluation(), analysis=samples.scored(), sweep=samples.sweep())
    assert {each for each in parts if f'<section id="{each}"' in full} == parts - {"samples"}
    assert {each for each in parts if f'href="#{each}"' in full} == parts - {"samples"}


def test_flags_are_collapsed_unless_one_was_raised() -> None:
    def flags(page: str) -> str:
        return page[page.index('<section id="flags"') : page.index('<section id="controls"')]

    quiet, raised = (flags(report_html(samples.evaluation(fired=fired))) for fired in ((), ("single-step",)))
    assert "0 of 11 flags were raised" in quiet and "<details>" in quiet
    assert "1 of 11 flags were raised" in raised and "<details>" not in raised


def test_the_title_is_the_users_model() -> None:
    found, analysis = samples.evaluation(), samples.scored()
    assert f"<h1>{found.model.name}</h1>" in report_html(found)
    assert f"<h1>{analysis.model_name}</h1>" in report_html(found, analysis=analysis)
    named = dataclasses.replace(found, baseline_is_stripped=False)
    assert found.baseline is not None and f"<h1>{found.baseline.name}</h1>" in report_html(named)


def test_one_eps_gives_points_and_no_line() -> None:
    one, two = (
        report_html(samples.evaluation(*(samples.at(eps, 60, 100) for eps in radii))) for radii in ((0.1,), (0.1, 0.2))
    )
    drawn = [page[page.index('aria-labelledby="curve-title"') :].split("</svg>")[0] for page in (one, two)]
    assert ["<polyline" in each for each in drawn] == [False, True]
    assert all(each.count('class="mark"') >= 6 for each in drawn)


def test_the_same_values_give_the_same_bytes(whole: str, tmp_path: Path) -> None:
    """Also when they went through their files."""
    samples.evaluation().save(tmp_path / "e.json")
    samples.sweep().save(tmp_path / "s.json")
    evaluation, sweep = load_evaluation(tmp_path / "e.json"), load_sweep(tmp_path / "s.json")
    assert sweep.to_json() == samples.sweep().to_json()
    assert report_html(evaluation, analysis=samples.scored(), sweep=sweep) == whole


def model(folder: Path) -> tuple[Model, Model]:
    """A source and the model in which its features 1 and 4 are masked."""
    (folder / "m.onnx").write_bytes(core.mlp().SerializeToString())
    harden_file(load(folder / "m.onnx"), [Mask(TAP, np.array([1, 0, 1, 1, 0, 1], np.float32))], folder / "h.onnx")
    return load(folder / "m.onnx"), load(folder / "h.onnx")


def test_the_model_tells_what_is_masked(tmp_path: Path) -> None:
    source, hardened = model(tmp_path)
    found = samples.evaluation()
    found = Evaluation(
        **{
            **vars(found),
            "model": samples.ModelRecord("h.onnx", hardened.sha256),
            "baseline": samples.ModelRecord("m.onnx", source.sha256),
        }
    )
    scores = samples.TapScores(TAP, 1, "float32", "relative", np.arange(6.0), 10)
    analysis = samples.Analysis(**{**vars(samples.scored()), "model_sha256": source.sha256, "scores": scores})
    page = report_html(found, analysis=analysis, model=hardened)
    assert [row[0] for row in table(page, "scores-table") if row[3] == "masked"] == ["4", "1"]
    assert "as read from the hardened model" in page
    assert "2 remove what they multiply" in report_html(found, model=hardened)
    with pytest.raises(DataError, match=r"m\.onnx is not the model of the evaluation"):
        report_html(found, model=source)


def test_values_of_another_model() -> None:
    other = Evaluation(**{**vars(samples.evaluation()), "baseline": samples.ModelRecord("o.onnx", "e" * 64)})
    with pytest.raises(DataError, match=r"the analysis is of another model \(model.onnx, .*cloakonnx analyze makes it"):
        report_html(other, analysis=samples.scored())
    with pytest.raises(DataError, match="the sweep is of another model"):
        report_html(other, sweep=samples.sweep())


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match="pip install jinja2"):
        report_html(samples.evaluation())


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.4, 1, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        (0, 881.4, [0, 200, 400, 600, 800]),
        (3, 3, [3]),
    ],
)
def test_ticks(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(low, high) == wanted


def test_a_cell_says_how_many_have_converged() -> None:
    """Beside how many hold; where none has there is the number alone."""
    result = samples.at(2 / 255, 100, 50)
    first, *rest = result.hardened.stages
    hardened = dataclasses.replace(result.hardened, stages=(dataclasses.replace(first, converged=61), *rest))
    page = report_html(samples.evaluation(dataclasses.replace(result, hardened=hardened)))
    words = [word.strip() for word in Elements(page).words]
    assert f"{first.robust}, 61 converged" in words
    assert sum("converged" in word for word in words) == 1


def test_what_is_shipped_is_the_third_column() -> None:
    found = samples.evaluation()
    shipped = dataclasses.replace(
        samples.evaluation(name="int8.onnx"),
        model=samples.ModelRecord("int8.onnx", "d" * 64),
        clean_hardened=Accuracy(181, 200),
    )
    page = report_html(found, shipped=shipped)
    assert "Shipped is int8.onnx, attacked itself on the same samples" in Elements(page).text
    assert page.count('data-label="shipped"') == 1 + len(found.results), "clean, and robust at each eps"
    assert "90.5%" in page
    other = dataclasses.replace(shipped, data=dataclasses.replace(shipped.data, sha256="f" * 64))
    for wrong in (other, dataclasses.replace(shipped, attack="standard")):
        with pytest.raises(DataError, match=r"int8\.onnx is not beside that of model\.hardened\.onnx: other samples"):
            report_html(found, shipped=wrong)


def test_what_was_tried_without_a_gain_is_listed() -> None:
    page = report_html(samples.evaluation(), tried=("epoch 1: 3 of 9", "<b>epoch 2"))
    assert "What was tried, without a gain" in page
    assert "<li>epoch 1: 3 of 9</li>" in page
    assert "&lt;b&gt;epoch 2" in page
    assert 'id="tried"' not in report_html(samples.evaluation())


def test_the_page_names_the_documentation() -> None:
    assert "docs/report.md" in report_html(samples.evaluation())
