"""What a report page says."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}&amp;"
"""A name that would be markup, script and a template, wherever it is not escaped."""


def without_spans(page: str) -> str:
    """Return a page without the spans around the words of its command, so that options stand beside their values."""
    return re.sub("</?span>", "", page)


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
