"""Models on their way to workers: by path where the file is there, else once a node as bytes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloakonnx.attacks.attack import attack
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.batch import Batch
from cloakonnx.engine.cluster import _crew
from cloakonnx.engine.cluster._losses import why
from cloakonnx.engines import InProcess, Ray
from cloakonnx.errors import WorkerError
from cloakonnx.graph.file.model import load, load_bytes
from tests.attacks.helpers import DIGITS
from tests.engine.test_batches import SIZE, Work, run
from tests.engine.test_workers import ONE, PGD, dataset


def placed() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("cloakonnx-*/*.lock"))


def attacked(model: Any, engine: Any) -> Any:
    return attack(Classifier(model, provider=ONE), dataset(), PGD, batch_size=7, engine=engine).x


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch, cluster: Any) -> list[int]:
    """Sizes of the arrays that are put into Ray's store."""
    import ray

    found: list[int] = []
    put = ray.put

    def counted(value: Any, **options: Any) -> Any:
        found.append(value.nbytes if isinstance(value, np.ndarray) else 0)
        return put(value, **options)

    monkeypatch.setattr(ray, "put", counted)
    return found


def test_a_file_that_nodes_do_not_see_is_put_once(
    engine: Ray, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, puts: list[int]
) -> None:
    """The path leads through this process's own folder, where workers are not."""
    shutil.copy(DIGITS, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    there = Path("/proc/self/cwd/model.onnx")
    before = placed()
    own = Ray(cluster.address)  # workers of its own: their files go with them
    engine.close()
    np.testing.assert_array_equal(attacked(load(there), own), attacked(load(DIGITS), InProcess()))
    size = DIGITS.stat().st_size
    assert [each for each in puts if each] == [size]
    written = [each for each in placed() if each not in before]
    assert len(written) == 1  # all nodes of the tests are one machine
    assert (written[0].with_suffix("") / "model.onnx").read_bytes() == DIGITS.read_bytes()
    own.close()
    assert placed() == before


def test_a_file_that_nodes_see_is_not_put(engine: Ray, puts: list[int]) -> None:
    attacked(load(DIGITS), engine)
    assert puts == [0]  # the work itself


def test_a_model_in_memory_goes_with_the_work(engine: Ray, puts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    packed = _crew.packed

    def measured(*given: Any) -> Any:
        made = packed(*given)
        sizes.append(len(made.content))
        return made

    monkeypatch.setattr(_crew, "packed", measured)
    content = DIGITS.read_bytes()
    found = attacked(load_bytes(content), engine)
    np.testing.assert_array_equal(found, attacked(load(DIGITS), InProcess()))
    assert len(content) < sizes[0] < 1.5 * len(content)
    assert len(puts) == 1


def test_no_room_for_what_is_sent(engine: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def full(value: Any, **options: Any) -> Any:
        raise ray.exceptions.OutOfDiskError("Local disk is full")

    assert engine.workers == 3
    monkeypatch.setattr(ray, "put", full)
    with pytest.raises(WorkerError, match=r"^no room on this machine for what is sent to workers: [^\n]+\)$"):
        attacked(load(DIGITS), engine)
    assert why(ray.exceptions.OutOfDiskError("full"), ray) == "the disk of its node is full"


def test_batches_larger_than_the_store(engine: Ray) -> None:
    """A node has a store of 100 MiB; what does not fit goes by its disk."""
    x = np.zeros((2, 30 << 20), np.float32)
    x[1] = 1
    found = run(Work(), 2, engine, batches=[Batch(each[None], None, place * SIZE) for place, each in enumerate(x)])
    assert found == [0, 30 << 20]
