"""A whole report page, for the tests of what it says and of what it lets through."""

from __future__ import annotations

import pytest

from cloakonnx.reporting.page import report_html

from . import samples


@pytest.fixture(scope="module")
def whole() -> str:
    return report_html(samples.evaluation(), analysis=samples.scored(), sweep=samples.sweep())
