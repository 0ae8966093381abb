"""Learning in data parallel on a cluster: the bytes of threads in one process, also where a worker dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cloakonnx.engine.threads import Threads
from cloakonnx.engines import Ray
from cloakonnx.selection.learn.progress import Progress
from tests.cluster.test_faults import busy_workers
from tests.selection.test_steps import learned


@pytest.mark.parametrize("settings", [{"granularity": "feature", "loss": "trades"}, {"granularity": "weight"}], ids=str)
def test_the_bytes_of_threads(engine: Ray, settings: dict[str, Any]) -> None:
    assert learned(engine, parts=3, **settings).to_json() == learned(Threads(2), parts=3, **settings).to_json()


def test_a_worker_is_killed_in_the_middle_of_a_step(engine: Ray, cluster: Any) -> None:
    """Long inner attacks, so that workers are busy; the second step's end is the sign."""
    settings: dict[str, Any] = {"parts": 3, "granularity": "weight", "inner_steps": 60}
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + 60
        while not killed and time.monotonic() < end:
            for process in busy_workers(cluster)[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    killer = threading.Thread(target=kill)

    def on_progress(now: Progress) -> None:
        if now.step == 2:
            killer.start()

    found = learned(engine, on_progress=on_progress, **settings).to_json()
    killer.join()
    assert len(killed) == 1
    assert not Path(f"/proc/{killed[0]}").exists()
    assert found == learned(Threads(2), **settings).to_json()
