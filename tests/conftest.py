"""Settings for all tests."""

from __future__ import annotations

import os
import signal

import pytest

from tests.fixtures import models


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where the real models and data must be there, say so at once instead of skipping what needs them.

    A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("CLOAKONNX_REQUIRE_ASSETS") == "1" and models.manifest() is None:
        pytest.exit("CLOAKONNX_REQUIRE_ASSETS=1, but $CLOAKONNX_ASSETS or ../shared/assets is not there", 1)
