"""The report in a real browser: nothing is asked of any host, charts are drawn, tables sort, all can use it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

from .conftest import ARTIFACTS, opened, shot

PAGES = ("full", "learned", "kernels", "tried", "bare")
BAD = """(all) => all.filter((each) => {
  const box = each.getBoundingClientRect(), frame = each.ownerSVGElement.getBoundingClientRect();
  return !(box.width > 0 && box.height > 0 && box.left >= frame.left - 1 && box.right <= frame.right + 1
    && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1);
}).map((each) => each.outerHTML)"""
"""Parts of a chart that are empty, or reach out of it."""
PHONE = {"width": 390, "height": 844}


def open_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


def ground(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize("name", PAGES)
def test_no_request_and_no_console_message(browser: Browser, pages: dict[str, Path], name: str) -> None:
    with opened(browser, pages[name]) as (page, seen):
        open_all(page)
        page.wait_for_timeout(200)
        shot(page, f"{name}-light")
        assert seen.console == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [pages[name].as_uri()]


def test_the_policy_holds(browser: Browser, pages: dict[str, Path]) -> None:
    """A script, a style or an image that got into the page would not run or load."""
    with opened(browser, pages["full"]) as (page, seen):
        page.evaluate(
            """() => {
              const script = document.createElement('script');
              script.textContent = 'window.ran = 1';
              document.body.append(script);
              document.body.insertAdjacentHTML('beforeend', '<img src="https://example.org/x.png" onerror="ran = 2">');
            }"""
        )
        page.wait_for_timeout(100)
        assert page.evaluate("window.ran") is None
        assert seen.blocked == ["csp"]  # refused by the policy, before any host was asked
        assert any("Content Security Policy" in line for line in seen.console)


@pytest.mark.parametrize(("name", "count"), [("full", 4), ("learned", 4), ("kernels", 4), ("bare", 2)])
def test_charts_are_drawn(browser: Browser, pages: dict[str, Path], name: str, count: int) -> None:
    with opened(browser, pages[name]) as (page, _):
        charts = page.locator("svg.chart")
        assert charts.count() == count
        for index in range(count):
            chart = charts.nth(index)
            frame = chart.bounding_box()
            assert frame is not None and frame["width"] > 300 and frame["height"] > 150
            marks = chart.locator(".mark")
            assert marks.count() >= 3
            assert marks.evaluate_all(BAD) == []
            assert chart.locator("text").evaluate_all(BAD) == []


@pytest.mark.parametrize(("name", "count"), [("learned", (4, 0)), ("kernels", (7, 2))])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 900}], ids=["phone", "desk"])
def test_layers_are_drawn(
    browser: Browser, pages: dict[str, Path], name: str, count: tuple[int, int], viewport: dict[str, int]
) -> None:
    """Each with its name and its title; bars and cells lie in their frames, and weaker and stronger look different."""
    with opened(browser, pages[name], viewport=viewport) as (page, _):
        layers = page.locator("svg.layer")
        assert (layers.count(), layers.locator("svg").count()) == count  # pictures, and maps in them
        for index in range(count[0]):
            frame = layers.nth(index).bounding_box()
            assert frame is not None and frame["width"] > 200 and frame["height"] > 95
            assert layers.nth(index).locator("rect.mark").evaluate_all(BAD) == []
            assert layers.nth(index).locator("path.mark").evaluate_all(BAD) == []
        sides = ("less", "same", "more")
        fills = [
            page.locator(f"svg.layer rect.{side}").first.evaluate("(e) => getComputedStyle(e).fill") for side in sides
        ]
        assert len(set(fills)) == 3


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 900}], ids=["phone", "desk"])
def test_samples_are_drawn(browser: Browser, pages: dict[str, Path], viewport: dict[str, int]) -> None:
    with opened(browser, pages["full"], viewport=viewport) as (page, _):
        images = page.locator("#samples img")
        assert images.count() == 12
        for index in range(12):
            image = images.nth(index)
            assert image.evaluate("(e) => [e.complete, e.naturalWidth, e.naturalHeight]") == [True, 32, 32]
            box = image.bounding_box()
            assert box is not None and min(box["width"], box["height"]) >= 90  # they can be seen
            assert abs(box["width"] - box["height"]) < 1
            assert 0 <= box["x"] <= box["x"] + box["width"] <= viewport["width"]
        shown = images.evaluate_all(
            """(all) => all.map((image) => {
              const canvas = new OffscreenCanvas(32, 32).getContext('2d');
              canvas.drawImage(image, 0, 0);
              return new Set(canvas.getImageData(0, 0, 32, 32).data).size;
            })"""
        )
        assert min(shown) >= 5  # five levels of change, many more of a picture
        page.locator("#samples").screenshot(path=ARTIFACTS / f"report-samples-{viewport['width']}.png")


def test_static_is_dashed_and_adaptive_solid(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["full"]) as (page, _):
        for chart in ("curve", "sweep"):
            inside = page.locator(f"svg[aria-labelledby={chart}-title]")
            dashes = {
                style: inside.locator(f".series.{style} .line").first.evaluate(
                    "(line) => getComputedStyle(line).strokeDasharray"
                )
                for style in ("static", "hardened")
            }
            assert dashes["static"] != "none"
            assert dashes["hardened"] == "none"


def column(page: Page, table: str, number: int) -> list[str]:
    return [text.strip() for text in page.locator(f"#{table} tbody tr > :nth-child({number})").all_inner_texts()]


def test_tables_sort(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["full"]) as (page, _):
        open_all(page)
        score = page.locator("#scores-table thead button", has_text="score")
        before = column(page, "scores-table", 2)
        assert [float(text) for text in before] == list(range(39, -1, -1))
        score.click()
        assert [float(text) for text in column(page, "scores-table", 2)] == list(range(40))
        head = page.locator("#scores-table thead th").nth(1)
        assert head.get_attribute("aria-sort") == "ascending"
        score.press("Enter")  # by keyboard
        assert column(page, "scores-table", 2) == before
        assert head.get_attribute("aria-sort") == "descending"
        page.locator("#scores-table thead button", has_text="state").click()
        assert column(page, "scores-table", 4)[-3:] == ["masked"] * 3
        page.locator("#sanity-table thead button", has_text="flag").click()
        names = column(page, "sanity-table", 1)
        assert names == sorted(names)
        for each in page.locator("table.sortable").all():  # every one, by every column
            rows = each.locator("tbody tr").count()
            for button in each.locator("thead button").all():
                button.click()
            assert each.locator("tbody tr").count() == rows


def test_dark(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["full"], color_scheme="dark") as (page, _):
        dark = ground(page)
        shot(page, "full-dark")
        button = page.locator("#theme")
        button.click()
        assert (button.inner_text(), ground(page)) == ("Theme: dark", dark)
        button.click()
        light = ground(page)
        assert button.inner_text() == "Theme: light"
        assert light == "rgb(255, 255, 255)" != dark
        page.reload()  # the choice is kept
        assert ground(page) == light
        button.click()
        assert ground(page) == dark
    with opened(browser, pages["full"]) as (page, _):
        assert ground(page) == light
        page.locator("#theme").click()
        assert ground(page) == dark
        page.emulate_media(media="print")
        assert ground(page) == light


@pytest.mark.parametrize("name", PAGES)
def test_a_phone(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """390 pixels: nothing scrolls sideways but wide tables in their own frames, and letters can be read."""
    with opened(browser, pages[name], viewport=PHONE, is_mobile=True, has_touch=True) as (page, _):
        open_all(page)
        shot(page, f"{name}-phone")
        assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
        wide = page.evaluate(
            """[...document.querySelectorAll('body *')].filter((each) => !each.closest('.scroll')
              && !each.matches('.skip') && each.getBoundingClientRect().right > 391)
              .map((each) => each.outerHTML.slice(0, 80))"""
        )
        assert wide == []
        heights = page.locator("svg.chart text").evaluate_all(
            "(all) => all.map((e) => e.getBoundingClientRect().height)"
        )
        assert min(heights) >= 13
        assert page.locator("svg.chart text").evaluate_all(BAD) == []
        assert page.locator("#theme").bounding_box()["height"] >= 30  # type: ignore[index]


def test_every_number_is_in_sight_on_a_phone(browser: Browser, pages: dict[str, Path]) -> None:
    """Tables of few rows show every cell within 390 pixels, each with its column's name."""
    with opened(browser, pages["full"], viewport=PHONE) as (page, _):
        open_all(page)
        cells = page.locator("table.stacked tbody td:not(:empty)")
        assert cells.count() > 50
        outside = cells.evaluate_all(
            """(all) => all.filter((e) => { const box = e.getBoundingClientRect();
              return box.width === 0 || box.left < 0 || box.right > 390 || e.scrollWidth > e.clientWidth + 1; })
              .map((e) => e.outerHTML)"""
        )
        assert outside == []
        named = cells.evaluate_all("(all) => all.map((e) => getComputedStyle(e, '::before').content)")
        assert {'"difference, points"', '"what was measured"'} <= set(named)


def test_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["full"]) as (page, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        reached = set()
        for _ in range(80):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.closest('section')?.id ?? ''"))
        assert {"numbers", "sweep-part", "masks", "flags", "controls", "again"} <= reached
        page.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("details").first.get_attribute("open") is not None


def test_print(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["full"], color_scheme="dark") as (page, _):
        ARTIFACTS.mkdir(exist_ok=True)
        page.pdf(path=ARTIFACTS / "report-full.pdf", format="A4")
        assert (ARTIFACTS / "report-full.pdf").read_bytes().startswith(b"%PDF")
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        assert not page.locator("#theme").is_visible()
        assert not page.locator("nav").is_visible()
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("name", ["full", "kernels", "tried"])
def test_pages_of_paper(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """No heading stands at the foot of a page, and a table that goes on over it has its head there again."""
    with opened(browser, pages[name]) as (page, _):
        page.pdf(path=ARTIFACTS / f"report-{name}.pdf", format="A4")
        headings = set(page.locator("h2, h3, summary, caption").all_inner_texts())
    read = PdfReader(ARTIFACTS / f"report-{name}.pdf").pages
    sheets = [unicodedata.normalize("NFKC", each.extract_text()) for each in read]  # without ligatures
    assert len(sheets) > 3
    for sheet in sheets[:-1]:
        assert sheet.strip().splitlines()[-1].strip() not in headings
    scores = [sheet for sheet in sheets if re.search(r"^\d+ .*(kept|masked)$", sheet, re.MULTILINE)]
    assert len(scores) == (2 if name == "full" else 0)
    for sheet in scores:
        assert "feature score rank state" in sheet


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_small_numbers_are_not_divided(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """An option such as --no-sanity, and a number such as 1.0e-04, stand in one line where they fit."""
    with opened(browser, pages[name], viewport=PHONE) as (page, _):
        open_all(page)
        words = page.locator("pre code span, .whole")
        assert words.count() > 3
        lines = words.evaluate_all("(all) => all.map((e) => e.getClientRects().length)")
        assert set(lines) == {1}
        assert page.locator("pre code").inner_text().startswith("cloakonnx evaluate ")


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("full", 1280, "light"),
        ("full", 1280, "dark"),
        ("full", 390, "light"),
        ("learned", 390, "dark"),
        ("kernels", 1280, "light"),
        ("kernels", 390, "dark"),
        ("bare", 1280, "dark"),
        ("tried", 390, "dark"),
    ],
)
def test_accessibility(browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    with opened(browser, pages[name], color_scheme=scheme, viewport={"width": width, "height": 900}) as (page, _):
        open_all(page)
        found = Axe().run(page).response["violations"]
        serious = [
            f"{each['impact']}: {each['id']}: {each['help']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
            for each in found
            if each["impact"] in {"serious", "critical"}
        ]
        assert serious == []
        assert [each["id"] for each in found] == []  # the lesser ones, too
