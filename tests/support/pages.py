"""What a report page says."""

from __future__ import annotations

import re


def without_spans(page: str) -> str:
    """Return a page without the spans around the words of its command, so that options stand beside their values."""
    return re.sub("</?span>", "", page)
