"""Settings for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.fixtures import models
from tests.support.signals import same_handlers


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where the real models and data must be there, say so at once instead of skipping what needs them.

    A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("CLOAKONNX_REQUIRE_ASSETS") == "1" and models.manifest() is None:
        pytest.exit("CLOAKONNX_REQUIRE_ASSETS=1, but $CLOAKONNX_ASSETS or ../shared/assets is not there", 1)


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    """A test that calls the command line in its own process leaves Ctrl-C as it was for those after it."""
    with same_handlers():
        yield
