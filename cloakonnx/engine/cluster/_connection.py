"""The connection to a cluster, or a Ray of one's own: made, measured, and ended again."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cloakonnx.engine.threads import cores
from cloakonnx.errors import MissingDependencyError, OptionError

_SHORT = "/tmp" if os.name == "posix" else None
"""Ray's sockets lie in the folder, and the path of a socket has 107 bytes at most."""


def loaded() -> Any:
    """Return the module ray; raises MissingDependencyError where it is not installed."""
    try:
        import ray  # noqa: PLC0415 - an extra, and slow to load
    except ImportError:
        raise MissingDependencyError("running on Ray needs Ray: pip install 'cloakonnx[ray]'") from None
    return ray


class Connection:
    """What connects this process to Ray; ends with the object, where it did not find a connection that was there.

    Args:
        address: Of the cluster; None for a Ray that is started here.
        workers: How many there will be; None for as many as there is room for.
        cpus: CPUs of each worker.
        gpus: GPUs of each worker.

    Raises:
        MissingDependencyError: Ray is not installed.
        OptionError: nothing answers at the address, or the cluster has no room for one worker.
    """

    def __init__(self, address: str | None, *, workers: int | None, cpus: int, gpus: float) -> None:
        self._ray = loaded()
        self._cpus, self._gpus = cpus, gpus
        if not self._ray.is_initialized():
            if address is None:
                count = workers or max(1, cores() // cpus)
                folder = tempfile.mkdtemp(prefix="cloakonnx-", dir=_SHORT)
                self._start(num_cpus=count * cpus, include_dashboard=False, _temp_dir=folder)
                weakref.finalize(self, _stop, self._ray, folder)
            else:
                self._start(address=address)
                weakref.finalize(self, _stop, self._ray, None)

    @property
    def is_alive(self) -> bool:
        """Whether this process is still connected."""
        return bool(self._ray.is_initialized())

    @property
    def room(self) -> int:
        """How many workers the cluster has CPUs and GPUs for."""
        found = 0
        for node in self._ray.nodes():
            has = node["Resources"] if node["Alive"] else {}
            by_cpu = has.get("CPU", 0) // self._cpus
            found += int(min(by_cpu, has.get("GPU", 0) / self._gpus)) if self._gpus else int(by_cpu)
        if not found:
            asked = f"{self._cpus} CPU(s)" + (f" and {self._gpus:g} GPU(s)" if self._gpus else "")
            raise OptionError(f"no node of the Ray cluster has {asked} for a worker")
        return found

    def _start(self, **options: Any) -> None:
        with _signals_kept():
            self._ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)


def _stop(ray: Any, folder: str | None) -> None:
    ray.shutdown()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handler that Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
