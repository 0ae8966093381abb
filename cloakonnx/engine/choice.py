"""Which engine handles batches: the one that options name, and without such the one that measurements speak for."""

from __future__ import annotations

from math import prod

from cloakonnx.data.samples import Dataset
from cloakonnx.engine.address import LOCAL, OWN_RAY, checked_address
from cloakonnx.engine.batches import Engine, InProcess
from cloakonnx.engine.cluster.ray import Ray
from cloakonnx.engine.threads import Threads
from cloakonnx.errors import OptionError
from cloakonnx.runtime.machine import cores
from cloakonnx.runtime.provider import Provider

_CORES = 2
_BATCHES = 8
"""With fewer, a thread may well stand idle while the last batches are handled."""
_VALUES = 1 << 14
"""Of a sample: two sessions hold twice the activations."""


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


def engine_of(
    workers: int | None,
    *,
    where: str = LOCAL,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
) -> Engine | None:
    """Return the engine that is asked for; None leaves the choice to whoever runs batches.

    Args:
        workers: How many batches are handled at a time; None for as many as there is room for.
        where: ``local``, ``ray`` for a Ray that starts and ends with the run, ``auto`` for the cluster that runs on
            this machine, or the address of a cluster.
        gpus_per_worker: GPUs of each worker, on Ray; none where None.
        cpus_per_worker: Intra-op threads of each session, and CPUs of each worker on Ray; 1 where None.

    Raises:
        OptionError: a number that is too small, GPUs for the threads of one process, or no such place.
    """
    if checked_address(where) != LOCAL:
        address = None if where == OWN_RAY else where
        return Ray(address, workers, gpus_per_worker=gpus_per_worker or 0, cpus_per_worker=cpus_per_worker or 1)
    if gpus_per_worker:
        raise OptionError(
            "{gpus_per_worker} gives processes of Ray their GPUs: add {engine} ray, or leave it out (one process takes "
            "the GPU of {device_id})",
            parameter=("gpus_per_worker", "engine", "device_id"),
        )
    if cpus_per_worker is not None:
        return Threads(workers or max(1, cores() // cpus_per_worker), cpus_per_worker)
    if workers is None:
        return None
    return InProcess() if workers == 1 else Threads(workers)
