"""The sample classifier, hardened once, and what listens to a hardening, interrupts it and runs it again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cloakonnx as ck
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.cli.conftest import files
from tests.selection.helpers import training_arrays
from tests.support.classifiers import cpu

EPS = 0.15
STAGES = ["inspect", "learn", "apply", "verify", "evaluate", "attest", "report"]
OPTIONS: dict[str, Any] = {
    "eps": EPS,
    "attack": "fgsm",
    "preset": "quick",
    "select_data": "select.npz",
    "report_data": "test.npz",
    "latency": False,
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with model, data and a finished hardening."""
    folder = tmp_path_factory.mktemp("harden")
    (folder / "m.onnx").write_bytes(DIGITS.read_bytes())
    for name, (x, y), rows in (
        ("train", training_arrays(), slice(600)),
        ("select", training_arrays(), slice(600, 700)),
        ("test", digits_arrays(), slice(30)),
    ):
        np.savez(folder / f"{name}.npz", x=x[rows], y=y[rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ck.harden(cpu("m.onnx"), "train.npz", **OPTIONS)
    return folder


@pytest.fixture
def there(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: a copy of the finished one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fresh(there: Path) -> Path:
    """Return the current folder, with nothing done."""
    shutil.rmtree(there / "m-hardened")
    return there


class Heard:
    """Listens, and interrupts where it is told to."""

    def __init__(self, *, stop_at: str = "", stop_in: str = "", calls: int = 1) -> None:
        self.ran: list[str] = []
        self.cached: list[str] = []
        self.said: list[str] = []
        self._stop_at, self._stop_in, self._calls = stop_at, stop_in, calls

    def stage(self, name: str, number: int, count: int, *, cached: bool) -> None:
        (self.cached if cached else self.ran).append(name)
        if name == self._stop_at:
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, what: str, total: int | None) -> AbstractContextManager[Callable[[float], None]]:
        def advance(done: float) -> None:
            self._calls -= self.ran[-1] == self._stop_in
            if self._calls == 0:
                raise KeyboardInterrupt

        return nullcontext(advance)


def again(*, limit: int | None = None, **changes: Any) -> tuple[ck.records.Hardened, Heard]:
    heard = Heard()
    data = "train.npz" if limit is None else ck.Samples("train.npz", limit=limit)
    return ck.harden(cpu("m.onnx"), data, observer=heard, **{**OPTIONS, **changes}), heard


def shown(folder: Path) -> dict[str, bytes]:
    """Return the outputs, without what lies beside them."""
    return {name: content for name, content in files(folder).items() if not name.startswith(".stages")}
