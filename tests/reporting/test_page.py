"""The report page: what it says, that it is always the same, loads nothing, and that no name gets out of its place."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import io
import itertools
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from cloakonnx.errors import DataError, MissingDependencyError
from cloakonnx.evaluation.evaluation import STATEMENT, Evaluation, load_evaluation
from cloakonnx.evaluation.sweeps.record import Sweep, load_sweep
from cloakonnx.evaluation.verdict import verdict
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.reporting._charts import ticks
from cloakonnx.reporting.cost import cost_lines, latency_note, ratio_text
from cloakonnx.reporting.page import report_html
from cloakonnx.reporting.tables import evaluation_markdown
from cloakonnx.statistics import Accuracy, newcombe_paired
from tests.fixtures import core
from tests.fixtures.models import TAP

from . import samples

PLACES = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "points", "d"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}&amp;"


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._raw = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._raw = tag if tag in {"style", "script"} else ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def table(page: str, key: str) -> list[list[str]]:
    """The cells of a table's body."""
    found = re.search(rf'<table id="{key}".*?<tbody>(.*?)</tbody>', page, re.S)
    assert found is not None, key
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", found[1], re.S)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)] for row in rows]


def pictures(page: str) -> list[tuple[str, np.ndarray[Any, np.dtype[np.uint8]]]]:
    """The text for each image in the page, and its pixels as Pillow reads them."""
    found = []
    for tag, attributes in Elements(page).found:
        if tag == "img":
            head, content = str(attributes["src"]).split(",")
            assert head == "data:image/png;base64"
            with Image.open(io.BytesIO(base64.b64decode(content, validate=True)), formats=["PNG"]) as image:
                found.append((str(attributes["alt"]), np.asarray(image)))
    return found


@pytest.fixture(scope="module")
def whole() -> str:
    return report_html(samples.evaluation(), analysis=samples.scored(), sweep=samples.sweep())


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


def test_hostile_names_stay_text(whole: str) -> None:
    found = samples.evaluation(name=HOSTILE, tap=HOSTILE)
    page = report_html(found, analysis=samples.scored(HOSTILE), sweep=samples.sweep())
    parsed, usual = (
        Elements(page),
        Elements(report_html(samples.evaluation(), analysis=samples.scored(), sweep=samples.sweep())),
    )
    assert [tag for tag, _ in parsed.found] == [tag for tag, _ in usual.found]
    assert not any(name.startswith("on") for _, attributes in parsed.found for name in attributes)
    assert HOSTILE in parsed.text
    assert shlex.quote(HOSTILE) in parsed.text


def test_it_loads_nothing(whole: str) -> None:
    elements = Elements(whole).found
    assert not [tag for tag, _ in elements if tag in {"iframe", "object", "embed", "img", "base", "form", "input"}]
    assert [a for tag, a in elements if tag == "link"] == [{"rel": "icon", "href": "data:,"}]
    links = [a["href"] for tag, a in elements if tag == "a"]
    assert all(link and link.startswith("#") for link in links)
    assert {str(link)[1:] for link in links} <= {a.get("id") for _, a in elements}
    assert "url(" not in re.sub(r"url\(#scores-hatch\)", "", whole)
    assert "://" not in whole.replace("http://www.w3.org/2000/svg", "")
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert not [a for _, a in elements if "style" in a]  # the policy would block them


def test_the_policy_allows_the_page_s_own_script_and_style_only(whole: str) -> None:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', whole)
    assert found is not None
    policy = dict(part.split(" ", 1) for part in html.unescape(found[1]).split("; "))
    assert policy["default-src"] == "'none'"
    for kind in ("style", "script"):
        bodies = re.findall(rf"<{kind}>(.*?)</{kind}>", whole, re.S)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"


@pytest.mark.parametrize(
    ("found", "kind", "said"),
    [
        (
            samples.evaluation(),
            "gain",
            "the masks raise robust accuracy at 1/255 from 55.0% to 75.0%, that is by 20.0 points",
        ),
        (samples.evaluation(fired=("large-eps",)), "doubt", "raise robust accuracy"),
        (samples.evaluation(seen=5), "doubt", "raise robust accuracy"),
        (
            samples.evaluation(samples.at(0.07, 101, 100)),
            "none",
            "No difference in robust accuracy is shown at 0.07: it is +0.5",
        ),
        (
            samples.evaluation(samples.at(0.07, 60, 100)),
            "loss",
            "the masks cost 20.0 points of robust accuracy at",
        ),
        (
            samples.evaluation(samples.at(0.07, 60, 100), samples.at(0.03, 150, 100)),
            "loss",
            "They gain at 0.03",
        ),
        (
            samples.evaluation(samples.at(0.07, 101, 100), samples.at(0.03, 150, 100)),
            "gain",
            "No gain is shown at 0.07.",
        ),
    ],
)
def test_verdicts(found: Evaluation, kind: str, said: str) -> None:
    judged = verdict(found)
    assert judged.kind == kind
    assert said in judged.sentence
    assert f'class="verdict {kind}"' in report_html(found)


def test_caveats() -> None:
    said = " ".join(verdict(samples.evaluation(fired=("single-step", "large-eps"), seen=5)).caveats)
    assert "seen 5 of the 200 samples" in said
    assert "2 sanity flags fired: single-step, large-eps." in said


def test_clean_accuracy_as_it_was() -> None:
    same = samples.Paired(190, 0, 0, 10)
    found = Evaluation(**{**vars(samples.evaluation()), "clean_hardened": samples.Accuracy(190, 200), "clean": same})
    assert "leave clean accuracy as it is [" in verdict(found).sentence


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


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_shown(channels: int) -> None:
    found = samples.evaluation()
    made = samples.turned(found, 6, 5, channels)
    page = report_html(found, samples=made)
    said = Elements(page).text
    assert "At eps 1/255, of 200 samples: 40 where an attack won against the baseline" in said
    assert "Gained: the attack used to win and now fails (3 of 40)" in said
    assert "Lost: the attack used to fail and now wins (1)" in said
    assert "Sample 20, class 2. Under attack the baseline predicts 7, the hardened model 2." in said
    assert "Sample 30, class 3. Under attack the baseline predicts 3, the hardened model 8." in said
    assert "The change is 63 times as large" in said  # 127.5 levels over 2 of them
    shown, turned = pictures(page), made.turned
    assert len({text for text, _ in shown}) == len(shown) == 12
    for index in range(4):
        clean, adversarial, change = (pixels.reshape(6, 5, channels) for _, pixels in shown[index * 3 : index * 3 + 3])
        np.testing.assert_array_equal(clean, np.rint(turned.x[index] * 255))
        np.testing.assert_array_equal(adversarial, np.rint(turned.adversarial[index] * 255))
        moved = (turned.adversarial[index].astype(np.float64) - turned.x[index]) * 255
        np.testing.assert_allclose(change, 127.5 + 63 * moved, atol=0.51)


def test_samples_of_other_bounds_and_large_changes() -> None:
    """Pixels from -1 to 1, changed by more than half of that: the change is made smaller, and nothing is cut off."""
    found = dataclasses.replace(samples.evaluation(), preprocessing={"bounds": [-1.0, 1.0]})
    made = samples.turned(found, 4, 4, 1, gained=1, lost=0)
    made.turned.x[:], made.turned.adversarial[:] = -1, 1
    page = report_html(found, samples=made)
    assert [np.unique(pixels).tolist() for _, pixels in pictures(page)] == [[0], [255], [255]]
    assert "0.5 times as large" in page
    assert "There is no such sample." in page


def test_large_images_are_thinned_out() -> None:
    found = samples.evaluation()
    made = samples.turned(found, 400, 700, 1, gained=1, lost=0)
    page = report_html(found, samples=made)
    assert "Of 400x700 pixels, every 3rd in either direction is drawn" in page
    np.testing.assert_array_equal(pictures(page)[0][1], np.rint(made.turned.x[0, ::3, ::3, 0] * 255))


def test_samples_that_are_no_images() -> None:
    found = samples.evaluation()
    page = report_html(found, samples=samples.turned(found, 20, 7))
    assert "The samples have shape 20x7: no images of 1 or 3 channels" in page
    assert pictures(page) == []
    assert [row[:5] for row in table(page, "samples-table")][2:] == [
        ["20", "gained", "2", "7", "2"],
        ["30", "lost", "3", "3", "8"],
    ]
    assert "samples-table" not in report_html(found, samples=samples.turned(found, 20, gained=0, lost=0))


def test_samples_of_another_evaluation() -> None:
    other = samples.evaluation(samples.at(2 / 255, 100, 51))
    with pytest.raises(DataError, match=r"the samples are of another evaluation .*evaluate --samples"):
        report_html(samples.evaluation(), samples=samples.turned(other, 6, 5, 3))


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"points": [', '"pints": ['), "the entry points is missing"),
        (('"count": 200', '"count": 1'), "samples are correct"),
        (('"version": 1', '"version": 2'), "has version 2"),
        (('"eps_is_of_twins": false', '"eps_is_of_twins": 0'), "neither true nor false"),
    ],
)
def test_damaged_sweeps(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = samples.sweep().to_json()
    assert change[0] in text
    with pytest.raises(DataError, match=said):
        Sweep.from_json(text.replace(*change))
    (tmp_path / "s.json").write_bytes(b"\xff")
    with pytest.raises(DataError, match="it is not text"):
        load_sweep(tmp_path / "s.json")


def test_a_cell_says_how_many_have_converged() -> None:
    """Beside how many hold; where none has there is the number alone."""
    result = samples.at(2 / 255, 100, 50)
    first, *rest = result.hardened.stages
    hardened = dataclasses.replace(result.hardened, stages=(dataclasses.replace(first, converged=61), *rest))
    page = report_html(samples.evaluation(dataclasses.replace(result, hardened=hardened)))
    words = [word.strip() for word in Elements(page).words]
    assert f"{first.robust}, 61 converged" in words
    assert sum("converged" in word for word in words) == 1


def _with_models(found: Evaluation, model: samples.ModelRecord, baseline: samples.ModelRecord) -> Evaluation:
    return dataclasses.replace(found, model=model, baseline=baseline)


def test_size_nodes_and_latency_before_and_after() -> None:
    model, baseline = (
        samples.ModelRecord("h.onnx", "a" * 64, 21_340, 12),
        samples.ModelRecord("m.onnx", "b" * 64, 1_220_000, 9),
    )
    found = _with_models(samples.evaluation(), model, baseline)
    timed = samples.latency()
    text = Elements(report_html(found, latency=timed)).text
    how = (
        "Latency: medians of 9 pairs of new sessions, timed in turn, by ONNX Runtime alone (CPUExecutionProvider, 2 "
        "threads) on 4 cores of a processor. Times differ from run to run."
    )
    times = ("1.32 ms", "1.31 ms", "1.010 times [1.000, 1.020]")
    for said in ("What it costs to ship", "21.3 kB", "1.22 MB", *times, how):
        assert said in text
    assert "latency, one sample" not in report_html(found)
    assert "What it costs" not in report_html(samples.evaluation()), "of files that do not have it"
    assert cost_of(evaluation_markdown(found, latency=timed)) == [
        "| file size | 21.3 kB | 1.22 MB | -98.3% |",
        "| nodes | 12 | 9 | +3 |",
        "| latency, one sample | 1.32 ms | 1.31 ms | 1.010 times [1.000, 1.020] |",
    ]
    assert how in evaluation_markdown(found, latency=timed)
    assert len(cost_of(evaluation_markdown(found))) == 2
    assert list(cost_lines(found, timed)) == [
        "Size: 21.3 kB in 12 nodes; baseline: 1.22 MB in 9 nodes.",
        "Latency, one sample: 1.32 ms; baseline: 1.31 ms; 1.010 times [1.000, 1.020].",
    ]
    alone = dataclasses.replace(samples.evaluation(), model=model)
    assert list(cost_lines(alone)) == []  # a baseline whose size is not known


def test_few_pairs_of_sessions_have_no_interval() -> None:
    timed = dataclasses.replace(samples.latency(), ratios=(1.0, 1.1, 1.2), shortened=True, threads=None, batch=4)
    assert ratio_text(timed) == "1.100 times"
    note = latency_note(timed)
    for said in ("3 pairs", "as many threads as it chooses", "few were timed", "fewer than 6 pairs give no interval"):
        assert said in note
    found = samples.evaluation()
    text = Elements(report_html(found, latency=timed)).text
    assert "latency, 4 samples" in text


def cost_of(text: str) -> list[str]:
    """Return the rows of the table on costs of an evaluation as Markdown."""
    lines = text.partition("**What it costs to ship**")[2].strip().splitlines()
    return list(itertools.takewhile(lambda line: line.startswith("|"), lines))[2:]


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
