"""A headless Chromium that is there already, driven by Playwright, and the pages that it opens."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cloakonnx.reporting.page import report_html
from tests.reporting import samples

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.fail(
            "there is no chromium: install Debian's (apt-get install chromium), or name one in $CHROMIUM", False
        )
    with sync_playwright() as playwright:
        # The sandbox needs a user other than root, and what containers often lack; what it opens here is our own page.
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports: with all parts; learned masks, and samples that are no images; masks on kernels; nothing gained;
    nothing but the evaluation."""
    folder = tmp_path_factory.mktemp("pages")
    full, learned = samples.evaluation(fired=("single-step",)), samples.evaluation(samples.at(0.07, 60, 100))
    made = {
        "full": report_html(
            full,
            analysis=samples.scored(),
            sweep=samples.sweep(),
            samples=samples.turned(full, 32, 32, 3),
            latency=samples.latency(),
        ),
        "learned": report_html(learned, analysis=samples.learned(), samples=samples.turned(learned, 20)),
        "kernels": report_html(learned, analysis=samples.kernels()),
        "tried": report_html(
            samples.evaluation(samples.at(1e-6, 101, 100)),
            tried=("no masks gain robust accuracy", "masks on 4 tensors, epoch 1 of 4: 198 of 200 clean"),
        ),
        "bare": report_html(samples.evaluation(samples.at(0.07, 101, 100), fired=None)),
    }
    for name, page in made.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@dataclass
class Seen:
    """What a page did beside showing itself."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    blocked: list[str | None] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[tuple[Page, Seen]]:
    """Open a page in a context of its own; light, 1280 pixels wide, unless told otherwise."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options})
    page, seen = context.new_page(), Seen()
    page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("requestfailed", lambda request: seen.blocked.append(request.failure))
    page.goto(path.as_uri())
    yield page, seen
    context.close()


def shot(page: Page, name: str) -> None:
    """Keep a screenshot."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"report-{name}.png", full_page=True)
