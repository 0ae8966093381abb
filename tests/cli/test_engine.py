"""``--engine`` and what goes with it, where there is no Ray: what is accepted, where it may come from, what is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.engine.address import checked_address
from cloakonnx.engine.choice import engine_of
from cloakonnx.engines import InProcess, Ray, Threads
from cloakonnx.errors import OptionError
from tests.fixtures.core import TAP

from .conftest import Run

ATTACK = ("attack", "m.onnx", "--data", "clean.npz", "--attack", "pgd", "--eps", "0.1", "--batch-size", "2")
EXTRA = "pip install 'ray[client]'"


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "cluster"), "'cluster' is neither local, ray or auto, nor the address of a Ray cluster"),
        (("--engine", "ray://"), "nor the address"),
        (("--engine", "ray://head"), "such as ray://HOST:10001"),
        (("--engine", "head:0"), "nor the address"),
        (("--engine", "head:65536"), "nor the address"),
        (("--engine", "http://head:8265"), "nor the address"),
        (("--engine", "ray", "--workers", "0"), "'--workers'"),
        (("--workers", "0"), "'--workers'"),
        (("--engine", "ray", "--cpus-per-worker", "0"), "'--cpus-per-worker'"),
        (("--engine", "ray", "--gpus-per-worker", "-1"), "--gpus-per-worker -1 must be"),
        (("--engine", "ray", "--gpus-per-worker", "1.5"), "--gpus-per-worker 1.5 must be"),
        (("--engine", "ray", "--gpus-per-worker", "nan"), "--gpus-per-worker"),
        (("--gpus-per-worker", "1"), "--gpus-per-worker gives processes of Ray their GPUs: add --engine ray"),
        (("--engine", "local", "--gpus-per-worker", "1"), "the GPU of --device-id"),
        (("--engine", "ray"), EXTRA),
        (("--engine", "auto", "--workers", "2"), EXTRA),
        (("--engine", "ray://127.0.0.1:10001"), EXTRA),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("without_ray")
def test_bad_input_in_one_line(run: Run, folder: Path, arguments: tuple[str, ...], said: str) -> None:
    found = run(*ATTACK, "-o", "a.npz", *arguments)
    assert found.code == 2
    assert said in found.err
    assert len([line for line in found.err.splitlines() if line.startswith("cloakonnx:")]) == 1
    assert "Traceback" not in found.err
    assert not (folder / "a.npz").exists() and not (folder / ".a.npz.parts").exists()


@pytest.mark.parametrize(
    "verb",
    [
        ("analyze", "--tap", TAP, "--attack", "fgsm", "--eps", "0.1"),
        ("evaluate", "--eps", "0.1"),
        ("learn", "--eps", "0.1", "--budget", "4%"),
        ("harden", "--eps", "0.1"),
    ],
    ids=lambda verb: verb[0],
)
@pytest.mark.usefixtures("without_ray", "folder")
def test_every_verb_with_batches_has_it(run: Run, verb: tuple[str, ...]) -> None:
    name, *options = verb
    found = run(name, "m.onnx", "--data", "clean.npz", *options, "--engine", "ray", "--workers", "2")
    assert (found.code, EXTRA in found.err) == (2, True), found.err


@pytest.mark.usefixtures("without_ray")
def test_where_it_comes_from(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is found by itself may not choose the machines that get the model; one that is named may."""
    monkeypatch.setenv("CLOAKONNX_ENGINE", "ray")
    assert EXTRA in run(*ATTACK, "-o", "a.npz").err
    assert run(*ATTACK, "-o", "a.npz", "--engine", "local").code == 0
    monkeypatch.delenv("CLOAKONNX_ENGINE")
    (folder / "cloakonnx.toml").write_text("engine = 'ray://far.example:10001'\n")
    found = run(*ATTACK, "-o", "b.npz")
    assert found.code == 2
    assert "engine decides which machines get the model and the samples" in found.err
    named = ("--config", "cloakonnx.toml")
    assert EXTRA in run(*named, *ATTACK, "-o", "b.npz").err
    assert "ray://far.example:10001" in run(*named, "config", "--show", "attack").out
    (folder / "cloakonnx.toml").write_text("engine = 'far'\n")
    assert "'far' is neither local" in run(*named, *ATTACK, "-o", "b.npz").err


def test_threads_of_workers_in_this_process(run: Run, folder: Path) -> None:
    found = run(*ATTACK, "-o", "a.npz", "--workers", "3", "--cpus-per-worker", "2")
    assert "3 batches at a time, each in sessions of 2 intra-op thread(s)" in found.err
    assert json.loads(str(np.load(folder / "a.npz")["settings"]))["threads"] == 2


def test_engines_by_their_options() -> None:
    assert engine_of(None) is None
    assert isinstance(engine_of(1), InProcess)
    assert engine_of(3) == Threads(3)
    assert engine_of(1, cpus_per_worker=2) == Threads(1, 2)
    for where, address in (("ray", None), ("auto", "auto"), ("head:6379", "head:6379")):
        found = engine_of(4, where=where, gpus_per_worker=0.5, cpus_per_worker=2)
        assert isinstance(found, Ray)
        assert (found.address, found.workers, found.threads, found.gpus_per_worker) == (address, 4, 2, 0.5)
    assert checked_address("ray://[::1]:10001") == "ray://[::1]:10001"
    for wrong in ("ray", "local", "head"):
        with pytest.raises(OptionError, match="address of a Ray cluster"):
            Ray(wrong)
