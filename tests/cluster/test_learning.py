"""Learning in data parallel on a cluster: the bytes of threads in one process."""

from __future__ import annotations

from typing import Any

import pytest

from cloakonnx.engine.threads import Threads
from cloakonnx.engines import Ray
from tests.selection.test_steps import learned


@pytest.mark.parametrize("settings", [{"granularity": "feature", "loss": "trades"}, {"granularity": "weight"}], ids=str)
def test_the_bytes_of_threads(engine: Ray, settings: dict[str, Any]) -> None:
    assert learned(engine, parts=3, **settings).to_json() == learned(Threads(2), parts=3, **settings).to_json()
