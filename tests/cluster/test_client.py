"""A driver outside the cluster, by Ray's client: the bytes of one process, and the same faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloakonnx.engines import InProcess, Ray
from cloakonnx.errors import DataError, OptionError
from tests.cluster.test_batches import totals
from tests.cluster.test_faults import FULL, kill_a_worker, with_fault
from tests.cluster.test_same_bytes import RUNS, attacked, evaluated
from tests.engine.test_batches import SIZE, Work, batches, run


@pytest.fixture(scope="module")
def client(engine: Ray, client_address: str) -> Iterator[Ray]:
    engine.close()  # one connection a process
    made = Ray(client_address)
    yield made
    made.close()


@pytest.mark.parametrize(
    "run_one",
    [each if each in (attacked, evaluated) else pytest.param(each, marks=FULL) for each in RUNS],
    ids=lambda each: each.__name__,
)
def test_the_bytes_of_one_process(client: Ray, tmp_path: Path, run_one: Any) -> None:
    folders = [tmp_path / "one", tmp_path / "client"]
    for folder in folders:
        folder.mkdir()
    assert run_one(client, folders[1]) == run_one(InProcess(), folders[0])


def test_shares_and_errors(client: Ray) -> None:
    """Workers answer how far they are while they are at a batch."""
    told: list[float] = []
    run(Work(slow=2.5), 3, client, on_progress=told.append)
    assert told[-1] == 3 * SIZE
    assert any(done % SIZE for done in told)
    with pytest.raises(DataError, match="batch 5 is bad"):
        run(Work(), 9, client, batches=batches(9, bad=5))
    assert run(Work(), 9, client) == totals(9)


def test_a_client_that_could_not_be_served_connects_once_more(client: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster's process for a client may end at once, forked while gRPC is at work."""
    import ray

    client.close()
    init, left = ray.init, [1]

    def init_later(*args: Any, **options: Any) -> Any:
        if left:
            left.pop()
            raise ConnectionAbortedError(
                "Initialization failure from server:\nRuntimeError: Starting Ray client server failed. See x.err"
            )
        return init(*args, **options)

    monkeypatch.setattr(ray, "init", init_later)
    assert run(Work(), 9, client) == totals(9)
    assert not left
    client.close()
    monkeypatch.setattr(ray, "init", lambda *_, **__: init_later(left.append(1)))
    with pytest.raises(OptionError, match="Starting Ray client server failed"):
        run(Work(), 9, client)


def test_a_worker_is_killed(client: Ray, cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = attacked(InProcess(), tmp_path / "whole")
    assert with_fault(attacked, client, tmp_path / "fault", lambda: kill_a_worker(cluster)) == whole
