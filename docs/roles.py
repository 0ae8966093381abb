"""A hook of MkDocs: names in docstrings stand as :class:`~package.Name`, and a page shows them as Name."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([\w.]+)</code>")
_PLAIN = re.compile(r"``([^`<]+)``")


def on_page_content(html: str, **_: Any) -> str:
    """Return a page's content with the roles of Sphinx as plain code."""
    return _ROLE.sub(lambda found: f"<code>{found[1].rpartition('.')[2]}</code>", _PLAIN.sub(r"<code>\1</code>", html))
