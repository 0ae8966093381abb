"""Which engine handles batches where none is named: the one that measurements speak for."""

from __future__ import annotations

import os
from math import prod

from cloakonnx.data.samples import Dataset
from cloakonnx.engine.batches import Engine, InProcess
from cloakonnx.engine.threads import Threads
from cloakonnx.runtime.provider import Provider

_CORES = 2
_BATCHES = 8
"""With fewer, a thread may well stand idle while the last batches are handled."""
_VALUES = 1 << 14
"""Of a sample: two sessions hold twice the activations."""


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_engine(provider: Provider, dataset: Dataset, batch_size: int) -> Engine:
    """Return what is fastest where that was measured, and batch after batch elsewhere.

    Two threads on a CPU of two cores, for at least 8 batches of samples of at most 16,384 values (docs/benchmarks.md).
    More cores and larger samples were not measured, and a provider whose threads were chosen keeps them.
    """
    count = dataset.count()
    is_measured = (
        provider.name == "CPUExecutionProvider"
        and provider.threads is None
        and cores() == _CORES
        and count is not None
        and count >= _BATCHES * batch_size
        and prod(dataset.sample_shape) <= _VALUES
    )
    return Threads(_CORES) if is_measured else InProcess()


def engine_of(workers: int | None) -> Engine | None:
    """Return the engine for a number of workers; None leaves the choice to whoever runs batches.

    Raises:
        OptionError: a number below 1.
    """
    if workers is None:
        return None
    return InProcess() if workers == 1 else Threads(workers)
