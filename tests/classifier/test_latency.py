"""Latency ratios: a model beside itself, beside a much larger one, and what it is fed."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.latency import latency_ratios
from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import Model, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.strip import stripped
from cloakonnx.runtime.provider import Provider
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


def quick(model: Model, baseline: Model, sessions: int = 3) -> tuple[float, ...]:
    both = (Classifier(each, provider=CPU) for each in (model, baseline))
    return latency_ratios(*both, sessions=sessions, rounds=3, block_seconds=0.01)


def test_a_larger_model_takes_longer() -> None:
    small, large = chain(2), chain(80)
    assert statistics.median(quick(large, small)) > 3
    assert statistics.median(quick(small, large)) < 1 / 3


def test_a_model_beside_itself() -> None:
    model = Classifier(chain(20), provider=CPU)
    done: list[int] = []
    found = latency_ratios(model, model, sessions=5, rounds=3, block_seconds=0.01, on_progress=done.append)
    assert len(found) == 5 and done == [1, 2, 3, 4, 5]
    assert 0.5 < statistics.median(found) < 2


def test_a_hardened_model_in_memory_beside_its_source() -> None:
    source = load_bytes(mlp().SerializeToString())
    model = hardened(source, [Mask(TAP, np.array([0, 1, 1, 1, 1, 1], np.float32))])
    assert all(ratio > 0 for ratio in quick(model, stripped(model), sessions=2))


@pytest.mark.parametrize(("batch", "dtype"), [(4, TensorProto.FLOAT), ("N", TensorProto.FLOAT16)])
def test_fixed_batches_and_half_precision(batch: int | str, dtype: int) -> None:
    model = chain(2, batch, dtype)
    assert len(quick(model, model, sessions=1)) == 1


def test_the_input_must_be_known() -> None:
    model = Classifier(chain(2), provider=CPU, input_name="y")
    with pytest.raises(ModelError):
        latency_ratios(model, model)
