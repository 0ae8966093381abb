"""The connection to a cluster, or a Ray of one's own: made, measured, and ended again."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from cloakonnx.engine.cluster._losses import Ends, in_short, remover
from cloakonnx.engine.cluster._shipping import folder_of
from cloakonnx.errors import CloakError, MissingDependencyError, OptionError, WorkerError
from cloakonnx.runtime.machine import cores

_ANSWER = 8.0
"""Seconds that an address has to answer."""
_ASKED, _ASKED_BY_CLIENTS = "/ray.rpc.NodeInfoGcsService/GetClusterId", "/ray.rpc.RayletDriver/ClusterInfo"
"""What a process asks a cluster first."""
_CLEANUP = 10.0
"""Seconds that nodes have to remove the models that were sent to them."""
_TRIES = 3
"""To start a Ray here: its parts wait for each other for 15 to 30 s, whatever the machine is at."""
_NOT_SERVED = "Starting Ray client server failed"
"""Said of a client whose process at the cluster was forked while gRPC was at work, and ended at once."""
_SHORT = "/tmp" if os.name == "posix" else None
"""Where Ray's own folder lies: the path of a socket in it has 107 bytes at most."""
_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that this will be the default
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "180000",  # a busy machine needs longer than the half minute that Ray waits
}
"""Read when Ray is imported or started: lines on stderr are left out, nothing is sent to Ray's makers."""


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
        self._cpus, self._gpus = cpus, gpus
        self.ends = Ends(secrets.token_hex(6))
        with _environment(_SETTINGS):
            self.ray = _loaded()
            is_made_here = not self.ray.is_initialized()
            folder = tempfile.mkdtemp(prefix="cloakonnx-", dir=_SHORT) if is_made_here and address is None else None
            self._end = weakref.finalize(self, _stop, self.ray, self.ends, is_made_here, folder)
            self._end.atexit = False
            atexit.register(self._end)  # before Ray's own, which is registered when it is imported
            if is_made_here:
                self._connect(address, folder, (workers or max(1, cores() // cpus)) * cpus)
        self.room = self._room()

    @property
    def is_alive(self) -> bool:
        """Whether this process is still connected."""
        return bool(self.ray.is_initialized())

    def end(self) -> None:
        """End workers, and the connection where it was made here."""
        self._end()

    def _connect(self, address: str | None, folder: str | None, cpus: int) -> None:
        """Start a Ray in a folder, or connect to one."""
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        with _signals_kept(), _listener_left_out(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says it as well
            try:
                if folder is not None:
                    self._start(folder, num_cpus=cpus, include_dashboard=False, _temp_dir=folder, **options)
                else:
                    self._join(_answering(address or ""), **options)
            except CloakError:
                raise
            except (Exception, SystemExit) as error:  # Ray raises what its parts raise, and exits where it gives up
                said = in_short(str(error))
                if folder is not None:
                    raise WorkerError(f"Ray does not start on this machine: {said}") from None
                raise OptionError(f"{{address}} {address}: {said}", parameter="address") from None

    def _start(self, folder: str, **options: Any) -> None:
        """Start a Ray, again where a busy machine has let it run out of time; of one that fails nothing is left."""
        for left in reversed(range(_TRIES)):
            try:
                self.ray.init("local", **options)
                return
            except Exception as error:  # as Ray raises it
                _end_processes(folder)
                if not left or "timed out" not in str(error):
                    raise

    def _join(self, address: str, **options: Any) -> None:
        """Connect to a cluster; once more where it could not start the process that serves a client."""
        try:
            self.ray.init(address, **options)
        except ConnectionError as error:
            if _NOT_SERVED not in str(error):
                raise
            self.ray.init(address, **options)

    def _room(self) -> int:
        """Return how many workers the cluster has CPUs and GPUs for.

        Raises:
            OptionError: for none.
        """
        found = sum(self._places(node["Resources"]) for node in self._nodes())
        if found:
            return found
        asked, parameter = f"{self._cpus} CPUs", "cpus_per_worker"
        if self._gpus and not any(node["Resources"].get("GPU") for node in self._nodes()):
            asked, parameter = "a GPU", "gpus_per_worker"
        elif self._gpus:
            asked += f" and {self._gpus:g} GPUs"
        raise OptionError(f"no node of the Ray cluster has {asked} for a worker ({{{parameter}}})", parameter=parameter)

    def _nodes(self) -> list[Mapping[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _places(self, resources: Mapping[str, float]) -> int:
        by_cpu = int(resources.get("CPU", 0) / self._cpus)
        return min(by_cpu, int(resources.get("GPU", 0) / self._gpus)) if self._gpus else by_cpu


def _loaded() -> Any:
    """Return the module ray; raises MissingDependencyError where it is not installed."""
    try:
        import ray  # noqa: PLC0415 - an extra, and slow to load
    except ImportError:
        raise MissingDependencyError("running on Ray needs Ray: pip install 'ray[client]'") from None
    return ray


def _answering(address: str) -> str:
    """Return an address once it answers; Ray itself waits for minutes, and writes log lines meanwhile.

    Raises:
        OptionError: nothing does.
    """
    import grpc  # noqa: PLC0415 - of the extra, slow to load
    from ray._private.services import canonicalize_bootstrap_address  # noqa: PLC0415 - the file that "auto" is read from

    given = address
    if "://" not in address:
        try:
            address = canonicalize_bootstrap_address(address) or ""
        except (ValueError, OSError) as error:
            raise OptionError(
                f"{{address}} {given} is none of Ray: give auto, HOST:PORT or ray://HOST:PORT ({error})",
                parameter="address",
            ) from None
        if not address:
            return given  # nothing is written of a cluster here; Ray says so at once
    if os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}:
        return address
    channel = grpc.insecure_channel(address.removeprefix("ray://"))
    try:
        grpc.channel_ready_future(channel).result(timeout=_ANSWER)
        if not _lets_in(channel, grpc, _ASKED_BY_CLIENTS if address.startswith("ray://") else _ASKED):
            raise OptionError(
                f"{{address}} {given}: its cluster asks for another token than there is here: set RAY_AUTH_MODE=token, "
                "and copy the file ~/.ray/auth_token of its head",
                parameter="address",
            )
    except grpc.FutureTimeoutError:
        raise OptionError(
            f"{{address}} {given}: no Ray answers there within {_ANSWER:.0f} s", parameter="address"
        ) from None
    finally:
        channel.close()
    return address


def _end_processes(folder: str) -> None:
    """End the processes of a Ray that was started in a folder, and did not become one that can be shut down."""
    import psutil  # noqa: PLC0415 - Ray brings it

    ours = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(folder in word for word in child.cmdline()):
                ours += [child, *child.children(recursive=True)]  # those of a raylet have names without the folder
    for each in ours:
        with suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(ours, timeout=_CLEANUP)


def _lets_in(channel: Any, grpc: Any, method: str) -> bool:
    """Return whether a cluster takes our token, or asks for none; Ray itself tries for 20 s, with a line each second.

    Args:
        channel: To the cluster.
        grpc: The module.
        method: What is asked; one that is not known lets whoever asks in as well.
    """
    try:
        from ray._private.authentication.grpc_authentication_client_interceptor import (  # noqa: PLC0415 - of the extra
            _get_authentication_metadata_tuple as token,
        )
    except ImportError:  # a version without tokens, or one that has this elsewhere
        return True
    try:
        channel.unary_unary(method)(b"", timeout=_ANSWER, metadata=token())
    except grpc.RpcError as error:
        return bool(error.code() != grpc.StatusCode.UNAUTHENTICATED)
    except Exception:  # Ray itself says what is wrong with a token that can't be read
        return True
    return True


def _stop(ray: Any, ends: Ends, is_made_here: bool, folder: str | None) -> None:
    """End workers, remove what was written for them, and end the connection."""
    if ray.is_initialized():
        for actor in ends.actors:
            ray.kill(actor)
        if ends.nodes:
            _on_each(ray, remover(str(folder_of(ends.run))), ends.nodes)
        if is_made_here:
            ray.shutdown()
    ends.actors.clear()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _on_each(ray: Any, function: Callable[[], None], nodes: Iterable[str]) -> None:
    """Call a function on some nodes, as far as they answer in time."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415 - loads Ray

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    asked = [remote.options(scheduling_strategy=each).remote() for each in strategies]
    ray.wait(asked, num_returns=len(asked), timeout=_CLEANUP)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set yet, and take them out again."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _listener_left_out() -> Iterator[None]:
    """Connect without the thread that prints cluster-wide errors on stdout, where results go; no setting does that."""
    from ray._private import worker  # noqa: PLC0415 - of the extra

    listener = getattr(worker, "listen_error_messages", None)  # private: a version without it prints what it prints
    if listener is None:
        yield
        return
    worker.listen_error_messages = lambda worker, threads_stopped: None
    try:
        yield
    finally:
        worker.listen_error_messages = listener


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
