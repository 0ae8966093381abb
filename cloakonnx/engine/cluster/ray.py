"""Several batches at a time on a Ray cluster, or on a Ray that is started for the run on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloakonnx.engine.address import LOCAL, OWN_RAY, checked_address
from cloakonnx.engine.batches import B, Pool, R, Work
from cloakonnx.engine.cluster._connection import Connection
from cloakonnx.engine.cluster._crew import Crew
from cloakonnx.engine.cluster._pool import RayPool
from cloakonnx.errors import OptionError


class Ray:
    """Handles batches in worker processes of Ray, on one machine or many.

    The connection is made when it is first needed. It ends with this object, with :meth:`close` or with Python, and so
    do the workers, which stay from one call to the next, and a Ray that was started for them. A Ray that the Python
    process has connected to already is used, and left as it is.

    Args:
        address: ``HOST:6379`` or ``ray://HOST:10001`` of a cluster, ``auto`` for the one that runs on this machine;
            None starts a Ray on this machine.
        workers: How many batches are handled at a time; as many as there are CPUs or GPUs for where None.
        gpus_per_worker: GPUs that Ray gives to each worker; workers share one where this is below 1.
        cpus_per_worker: CPUs that Ray gives to each worker, and intra-op threads of each session.

    Raises:
        OptionError: a number that is too small, or no such address.

    Examples:
        >>> import cloakonnx as ck
        >>> print(ck.engines.Ray("auto", workers=16, cpus_per_worker=2))
        16 batches at a time on Ray (auto), each in sessions of 2 intra-op thread(s)
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        gpus_per_worker: float = 0,
        cpus_per_worker: int = 1,
    ) -> None:
        if address is not None and checked_address(address) in (LOCAL, OWN_RAY):
            raise OptionError(f"{address!r} is no address of a Ray cluster; None starts a Ray on this machine")
        for name, value in (("workers", workers), ("cpus_per_worker", cpus_per_worker)):
            if value is not None and value < 1:
                raise OptionError(f"{{{name}}} {value} must be at least 1", parameter=name)
        if not gpus_per_worker >= 0 or (gpus_per_worker > 1 and gpus_per_worker % 1):
            raise OptionError(
                f"{{gpus_per_worker}} {gpus_per_worker:g} must be 0, a share below 1, or a whole number",
                parameter="gpus_per_worker",
            )
        self.address = address
        self.gpus_per_worker = gpus_per_worker
        self.cpus_per_worker = cpus_per_worker
        self._asked = workers
        self._connection: Connection | None = None
        self._crew: Crew | None = None

    @property
    def threads(self) -> int:
        """Intra-op threads of each session."""
        return self.cpus_per_worker

    @property
    def workers(self) -> int:
        """How many batches are handled at a time; connects where no number was given.

        Raises:
            MissingDependencyError: Ray is not installed.
            OptionError: nothing answers at the address, or the cluster has no room for one worker.
        """
        return self._asked or self._connected().room

    @property
    def alive(self) -> int:
        """How many workers run."""
        return 0 if self._crew is None else self._crew.alive

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return (
            f"Ray(address={self.address!r}, workers={self._asked!r}, gpus_per_worker={self.gpus_per_worker!r}, "
            f"cpus_per_worker={self.cpus_per_worker!r})"
        )

    def __str__(self) -> str:
        """Return the engine in words."""
        where = "Ray" if self.address is None else f"Ray ({self.address})"
        count = "as many batches as there is room for" if self._asked is None else f"{self._asked} batches"
        gpus = f", {self.gpus_per_worker:g} GPU(s)" if self.gpus_per_worker else ""
        return f"{count} at a time on {where}, each in sessions of {self.threads} intra-op thread(s){gpus}"

    @contextmanager
    def open(self, work: Work[B, R]) -> Iterator[Pool[B, R]]:
        """Give the workers, which start with the first batches; callbacks stay in the calling thread.

        Raises:
            MissingDependencyError: Ray is not installed.
            OptionError: nothing answers at the address, or the cluster has no room for one worker.
        """
        provider = work.record.get("provider")
        if self.gpus_per_worker and provider == "CPUExecutionProvider":
            raise OptionError(
                f"{{gpus_per_worker}} {self.gpus_per_worker:g} asks for GPUs, and the model runs on {provider}: name "
                "another {provider}, on a machine where it loads",
                parameter=("gpus_per_worker", "provider"),
            )
        crew = self._workers_of(self._connected())
        job = crew.open(work)
        try:
            yield RayPool(crew, job, self.workers)
        finally:
            crew.close(job)

    def connect(self) -> None:
        """Connect now, so that what stands against it is known before any work; raises as :meth:`open` does."""
        self._connected()

    def close(self) -> None:
        """End the workers and the connection; whoever uses the engine again connects anew."""
        if self._connection is not None:
            self._connection.end()
        self._connection = self._crew = None

    def _connected(self) -> Connection:
        if self._connection is None or not self._connection.is_alive:
            self._crew = None
            self._connection = Connection(
                self.address, workers=self._asked, cpus=self.cpus_per_worker, gpus=self.gpus_per_worker
            )
        return self._connection

    def _workers_of(self, connection: Connection) -> Crew:
        if self._crew is None:
            self._crew = Crew(connection, self.workers, cpus=self.cpus_per_worker, gpus=self.gpus_per_worker)
        return self._crew
