"""The report's pictures of learned masks, layer by layer and epoch by epoch, against numbers computed apart."""

from __future__ import annotations

import copy
import re
from collections import Counter
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from cloakonnx.errors import DataError
from cloakonnx.graph.masks.mask import KERNEL, Mask
from cloakonnx.reporting._layers import layer_part
from cloakonnx.reporting._learning import learning_part
from cloakonnx.reporting.page import report_html
from tests.support.pages import HOSTILE, Elements, table

from . import samples

SVG = "{http://www.w3.org/2000/svg}"


def kernels(values: NDArray[Any]) -> Mask:
    return Mask("conv.weight", values.astype(np.float32)[:, :, None, None], granularity=KERNEL)


def drawn(svg: str) -> NDArray[np.float64]:
    """What a map shows: how strong the colour of each cell is, negative for those below 1."""
    root = ET.fromstring(svg).find("svg")
    assert root is not None
    columns, rows = map(int, root.attrib["viewBox"].split()[2:])
    found = np.zeros((rows, columns))
    for path in root.iter("path"):
        sign = {"mark less": -1, "mark more": 1}[path.attrib["class"]]
        for x, y, width, back in re.findall(r"M(\d+),(\d+)h(\d+)v1h-(\d+)z", path.attrib["d"]):
            assert width == back
            cells = found[int(y), int(x) : int(x) + int(width)]
            assert len(cells) == int(width)
            assert not cells.any()  # each is drawn once
            cells[:] = sign * float(path.attrib["fill-opacity"])
    return found


def bars(svg: str) -> dict[str, int]:
    """How many numbers each bar says that it has, by the range that it says."""
    titles = [bar.findtext("title") or "" for bar in ET.fromstring(svg).iter("rect") if "mark" in bar.attrib["class"]]
    return {span: int(count) for count, span in (title.split(": ") for title in titles)}


def test_a_map_shows_each_kernel_at_its_place() -> None:
    """Numbers a quarter away from 1 at the most, in steps of 1/32: eight of them are the whole way."""
    values = np.array([[0.75, 1, 1.25], [0.875, 1.0625, 1.25]])
    (layer,) = layer_part([kernels(values)]).layers
    np.testing.assert_allclose(drawn(layer.svg), [[-1, 0, 1], [-0.5, 0.25, 1]])
    spans = {"below 0.766": 1, "0.859 to 0.891": 1, "0.984 to 1.02": 1, "1.05 to 1.08": 1, "above 1.23": 2}
    assert bars(layer.svg) == spans
    assert layer.name == "conv.weight"
    assert layer.said == "6 numbers (2 x 3), from 0.750 to 1.250; root mean square of the change 0.186"
    assert ET.fromstring(layer.svg).findtext("title") == f"conv.weight: {layer.said}"


def test_the_bars_have_every_number() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(1, 0.2, (20, 30))
    values[0, 0] = 3.9
    (layer,) = layer_part([kernels(values)]).layers
    reach = np.percentile(np.abs(values.astype(np.float32) - 1), 99)  # single numbers far away do not count
    edges = 1 + reach * (np.arange(18) - 8.5) / 8
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    assert list(bars(layer.svg).values()) == [count for count in counts if count]
    assert sum(counts) == 600


def test_large_masks_are_drawn_as_means() -> None:
    """50 rows go into 17 of 3 (the last has 2), 70 columns into 24 of 3 (the last has 1)."""
    rows, columns = np.arange(50) // 3, np.arange(70) // 3
    inside = np.random.default_rng(0).permuted(np.array([-0.3, 0, 0.3]))
    values = 1 + 0.02 * (rows[:, None] - 8) + np.zeros(70)
    values[:, :69] += inside[np.arange(69) % 3]  # which means over three columns take out again
    found = drawn(layer_part([kernels(values)]).layers[0].svg)
    assert found.shape == (17, len(set(columns)))
    assert (np.diff(found[:, 0]) >= 0).all()
    assert not found[8].any()
    assert (found[0] < 0).all()
    assert (found[-1] > 0).all()
    assert (found == found[:, :1]).all()


@pytest.mark.parametrize("size", [(1000, 1), (3000, 1000), (24, 25)])
def test_no_mask_makes_a_large_picture(size: tuple[int, int]) -> None:
    (layer,) = layer_part([kernels(np.random.default_rng(0).uniform(0, 2, size))]).layers
    assert len(layer.svg) < 16_000
    if size[1] > 1:
        assert max(drawn(layer.svg).shape) <= 24
    else:
        assert "<path" not in layer.svg


def test_the_masks_that_change_most_are_drawn_in_the_models_order() -> None:
    changes = np.random.default_rng(0).permutation(60) / 100
    masks = [Mask(f"tap {i}", np.array([1 + change, 1], np.float32)) for i, change in enumerate(changes)]
    found = layer_part(masks)
    assert [layer.name for layer in found.layers] == [f"tap {i}" for i in np.flatnonzero(changes >= 0.12)]
    assert "of the 48 masks that change most" in found.intro
    assert "that change most" not in layer_part(masks[:48]).intro


def test_masks_that_change_nothing_make_no_picture() -> None:
    assert layer_part([Mask("tap", np.ones(3, np.float32))]).layers == ()


def test_the_page_shows_masks_and_epochs() -> None:
    page = report_html(samples.evaluation(), analysis=samples.kernels())
    assert page == report_html(samples.evaluation(), analysis=samples.kernels())
    parsed = Elements(page)
    classes = Counter(attributes.get("class") for tag, attributes in parsed.found if tag == "svg")
    assert classes["layer"] == 7
    ids = [attributes["id"] for _, attributes in parsed.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["aria-labelledby"] for tag, attributes in parsed.found if tag == "svg" and "role" in attributes]
    assert set(named) <= set(ids)
    assert not [attributes for _, attributes in parsed.found if "style" in attributes]  # the policy would block them
    assert [row[0] for row in table(page, "taps-table")][-3:] == ["small", "large", "bias"]
    assert "layers" not in Elements(report_html(samples.evaluation(), analysis=samples.scored())).text


def interval(correct: int, count: int) -> str:
    found = binomtest(correct, count).proportion_ci(method="wilson")
    return f"{correct} of {count}, {100 * correct / count:.1f}% [{found.low * 100:.1f}, {found.high * 100:.1f}]"


def test_the_epochs_in_numbers() -> None:
    page = report_html(samples.evaluation(), analysis=samples.learned())
    assert table(page, "learning-table") == [
        ["without masks", "", interval(380, 400), interval(30, 300)],
        ["epoch 2", "1.8000", interval(376, 400), interval(75, 300)],
        ["epoch 4", "1.6000", interval(370, 400), interval(105, 300)],
        ["epoch 6", "1.4000", interval(364, 400), interval(141, 300)],
        ["epoch 8", "1.2000", interval(362, 400), interval(144, 300)],
        ["chosen: epoch 6, drawn to 0.9 of the way", "", interval(366, 400), interval(138, 300)],
    ]


def test_the_epochs_are_drawn_with_the_chosen_one_marked() -> None:
    chart = ET.fromstring(learning_part(samples.LEARNING).chart.svg)
    series = {each.attrib["class"].split()[1]: each for each in chart.iter("g") if "series" in each.attrib["class"]}
    titles = {
        name: [mark.findtext("title") for mark in each.iter("g") if mark is not each] for name, each in series.items()
    }
    assert titles["chosen"] == [
        f"robust, chosen: epoch 6, drawn to 0.9 of the way: {interval(138, 300)}",
        f"clean, chosen: epoch 6, drawn to 0.9 of the way: {interval(366, 400)}",
    ]
    assert titles["hardened"][0] == f"robust, without masks: {interval(30, 300)}"
    assert titles["clean"][-1] == f"clean, epoch 8: {interval(362, 400)}"
    marks = series["chosen"].iter("path")
    (low, high), xs = np.array([list(map(float, m.attrib["d"].split()[0][1:].split(","))) for m in marks]), []
    for name in ("hardened", "clean"):
        dots = [each for each in series[name].iter() if each.attrib.get("class") == "dot"]
        place = dots[3].attrib.get("cx") or dots[3].attrib["d"][1:].split(",")[0]
        xs.append(float(place))
    assert low[0] == high[0] == pytest.approx(np.mean(xs))  # both lines are set side by side around it
    heights = {
        value: float(text.attrib["y"]) for text in chart.iter("text") if (value := text.text or "").endswith("%")
    }
    scale = heights["0%"] - heights["100%"]
    assert low[1] - high[1] == pytest.approx((366 / 400 - 138 / 300) * scale, abs=0.02)


def test_a_whole_blend_is_not_spoken_of() -> None:
    learning = copy.deepcopy(samples.LEARNING)
    learning["chosen"]["blend"] = 1
    assert "chosen: epoch 6" in [text for _, text in learning_part(learning).chart.legend]


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("select", "count"), 0, "learning.select.count is not a whole number from 1 on"),
        (("select", "attacked"), "many", "learning.select.attacked is not a whole number"),
        (("curve",), {}, "learning.curve is not a list"),
        (("curve", 1, "loss"), None, r"learning.curve\[1\].loss is not a number"),
        (("curve", 0, "select_clean"), 401, r"learning.curve\[0\] has 401 of 400 samples right"),
        (("chosen",), None, "learning.chosen is not an object"),
    ],
)
def test_a_damaged_learning_is_an_error(keys: tuple[Any, ...], value: Any, said: str) -> None:
    learning = copy.deepcopy(samples.LEARNING)
    place: Any = learning
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(DataError, match=f"the analysis is damaged: {said}; make it again with cloakonnx learn"):
        learning_part(learning)


def test_hostile_names_of_masks_stay_text() -> None:
    masks = [Mask(name, np.array([0.5, 1], np.float32)) for name in ("plain", HOSTILE)]
    pages = [Elements(report_html(samples.evaluation(), analysis=samples.learned(mask))) for mask in masks]
    assert [tag for tag, _ in pages[0].found] == [tag for tag, _ in pages[1].found]
    assert pages[1].text.count(HOSTILE) == pages[0].text.count("plain") == 5
