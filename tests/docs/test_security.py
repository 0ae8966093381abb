"""Pages that say which test holds what name tests that are there."""

from __future__ import annotations

import re

import pytest

from .pages import ROOT, read


@pytest.mark.parametrize("page", ["trust.md", "security.md"])
def test_tests_that_are_named_exist(page: str) -> None:
    rows = [
        line for line in read(ROOT / "docs" / page).splitlines() if line.startswith("| ") and "| test |" not in line
    ]
    named = [re.findall(r"`(tests/[^`]+\.py)`", row.split("|")[-2]) for row in rows if row.count("|") == 5]
    assert len(named) > 15 and all(named)
    assert [path for paths in named for path in paths if not (ROOT / path).is_file()] == []
