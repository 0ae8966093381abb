"""Links inside the checkout lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from .pages import PAGES, ROOT, anchors, links, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page: Path) -> None:
    dead = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


def test_the_index_names_every_page() -> None:
    docs = ROOT / "docs"
    linked = {link.partition("#")[0] for link in links(docs / "index.md")}
    assert {page.name for page in docs.glob("*.md")} - linked == {"index.md"}
