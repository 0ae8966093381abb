"""Latency ratios: a model beside itself, beside a much larger one, and what it is fed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.classifier import latency
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.latency import Latency, measured_latency
from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import Model, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.strip import stripped
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Session
from tests.fixtures.models import TAP, mlp

CPU = Provider("CPUExecutionProvider")


def chain(layers: int, batch: int | str = "N", dtype: int = TensorProto.FLOAT) -> Model:
    """A model of so many square matrix products."""
    numpy_dtype = helper.tensor_dtype_to_np_dtype(dtype)
    weights = [numpy_helper.from_array(np.eye(256, dtype=numpy_dtype), f"w{i}") for i in range(layers)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(layers)]
    inputs = [helper.make_tensor_value_info("x0", dtype, [batch, 256])]
    outputs = [helper.make_tensor_value_info(f"x{layers}", dtype, [batch, 256])]
    graph = helper.make_graph(nodes, "chain", inputs, outputs, weights)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return load_bytes(made.SerializeToString())


def quick(model: Model, baseline: Model, sessions: int = 3) -> Latency:
    both = (Classifier(each, provider=CPU) for each in (model, baseline))
    return measured_latency(*both, sessions=sessions, rounds=3, block_seconds=0.01)


def test_a_larger_model_takes_longer() -> None:
    small, large = chain(2), chain(80)
    found = quick(large, small)
    assert found.ratio > 3 and found.seconds > 3 * found.baseline_seconds
    assert quick(small, large).ratio < 1 / 3


def test_a_model_beside_itself() -> None:
    model = Classifier(chain(20), provider=CPU)
    done: list[int] = []
    found = measured_latency(model, model, sessions=5, rounds=3, block_seconds=0.01, on_progress=done.append)
    assert len(found.ratios) == 5 and done == [1, 2, 3, 4, 5]
    assert 0.5 < found.ratio < 2
    assert found.ratio == statistics.median(found.ratios)
    assert not math.isfinite(found.interval.low), "5 ratios say nothing at 95%"
    assert found.as_dict()["interval"] == [None, None]
    assert (found.batch, found.provider, found.threads) == (1, "CPUExecutionProvider", None)
    assert found.cores >= 1 and found.processor and not found.shortened


def test_a_hardened_model_in_memory_beside_its_source() -> None:
    source = load_bytes(mlp().SerializeToString())
    model = hardened(source, [Mask(TAP, np.array([0, 1, 1, 1, 1, 1], np.float32))])
    assert all(ratio > 0 for ratio in quick(model, stripped(model), sessions=2).ratios)


@pytest.mark.parametrize(("batch", "dtype"), [(4, TensorProto.FLOAT), ("N", TensorProto.FLOAT16)])
def test_fixed_batches_and_half_precision(batch: int | str, dtype: int) -> None:
    model = chain(2, batch, dtype)
    found = quick(model, model, sessions=1)
    assert (len(found.ratios), found.batch) == (1, batch if isinstance(batch, int) else 1)


def test_the_input_must_be_known() -> None:
    model = Classifier(chain(2), provider=CPU, input_name="y")
    with pytest.raises(ModelError):
        measured_latency(model, model)


class Clock:
    """A clock that moves only when a session runs, by what a call of it takes."""

    def __init__(self, seconds: float) -> None:
        self.now, self.calls, self._seconds = 0.0, 0, seconds

    def perf_counter(self) -> float:
        return self.now

    def run(self, feed: object) -> None:
        self.now += self._seconds
        self.calls += 1


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Clock]:
    """Return what makes every call take some seconds of a clock."""

    def make(seconds: float) -> Clock:
        clock = Clock(seconds)
        monkeypatch.setattr(latency, "time", clock)
        monkeypatch.setattr(Session, "run", clock.run)
        return clock

    return make


@pytest.mark.parametrize(
    ("seconds", "pairs", "shortened"),
    [(0.001, 9, False), (0.1, 9, True), (1.0, 9, True), (2.0, 6, True), (5.0, 2, True), (60.0, 1, True)],
)
def test_slow_models_are_timed_less(
    clocked: Callable[[float], Clock], seconds: float, pairs: int, shortened: bool
) -> None:
    clock, model = clocked(seconds), Classifier(chain(2), provider=CPU)
    found = measured_latency(model, model, most_seconds=60.0)
    assert (len(found.ratios), found.shortened) == (pairs, shortened)
    assert found.seconds == pytest.approx(seconds) and found.ratios == pytest.approx([1] * pairs)
    assert clock.now <= 60 or pairs == 1


def test_a_gate_takes_the_time_it_needs(clocked: Callable[[float], Clock]) -> None:
    clock, model = clocked(1.0), Classifier(chain(2), provider=CPU)
    found = measured_latency(model, model)
    assert (len(found.ratios), found.shortened) == (9, False)
    assert clock.calls == 9 * 6 * 2 * 6
