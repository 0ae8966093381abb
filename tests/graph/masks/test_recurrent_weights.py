"""Masks on the weights of LSTM, GRU and RNN: gradients, both forms of the file, the way back, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.errors import TapError
from cloakonnx.evaluation.verification.verify import verify
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.fold.fold import fold_file, refolded
from cloakonnx.graph.masks.granularity import granularity
from cloakonnx.graph.masks.harden import harden_file, strip_file
from cloakonnx.graph.masks.mask import INPUT_CHANNEL, OUTPUT_CHANNEL, WEIGHT, Mask
from cloakonnx.graph.masks.weights import find_weight, list_weights
from cloakonnx.selection.learn.places import first_masks
from tests.support.classifiers import cpu

STEPS, INPUTS, HIDDEN, CLASSES = 4, 3, 5, 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
CASES = [("LSTM", "bidirectional"), ("LSTM", "forward"), ("GRU", "reverse"), ("RNN", "bidirectional")]


def values(op: str, direction: str) -> dict[str, NDArray[np.float32]]:
    rng, count, gates = np.random.default_rng(0), DIRECTIONS[direction], GATES[op] * HIDDEN
    shapes = {"W": (count, gates, INPUTS), "R": (count, gates, HIDDEN), "B": (count, 2 * gates)}
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**made, "fc": rng.normal(size=(count * HIDDEN, CLASSES)).astype(np.float32)}


def proto(op: str, direction: str, weights: dict[str, NDArray[np.float32]] | None = None) -> onnx.ModelProto:
    """x (N, steps, inputs), the layer, a mean over time, a MatMul."""
    count, rnn = DIRECTIONS[direction], {"hidden_size": HIDDEN, "direction": direction}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(op, ["t", "W", "R", "B"], ["Y"], name="layer", **rnn),
        helper.make_node("Transpose", ["Y"], ["Yt"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["Yt", "flat"], ["f"]),
        helper.make_node("ReduceMean", ["f"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "fc"], ["y"]),
    ]
    held = [numpy_helper.from_array(each, name) for name, each in (weights or values(op, direction)).items()]
    held.append(numpy_helper.from_array(np.array([0, STEPS, count * HIDDEN]), "flat"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", STEPS, INPUTS])],
        [helper.make_tensor_value_info("y", 1, ["n", CLASSES])],
        held,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def written(folder: Path, op: str, direction: str) -> Model:
    path = folder / "m.onnx"
    path.write_bytes(proto(op, direction).SerializeToString())
    return load(path)


def masks_on(model: Model, kind: str) -> list[Mask]:
    rng, found = np.random.default_rng(1), []
    for place in list_weights(model, biases=True):
        units = (WEIGHT,) if kind == "weight" or place.input_axis is None else (OUTPUT_CHANNEL, INPUT_CHANNEL)
        for unit in units:
            found.append(Mask(place.name, rng.uniform(0.3, 1.7, granularity(unit).shape(place)), granularity=unit))
    return found


def run(path: Path | bytes) -> NDArray[np.float32]:
    x = np.random.default_rng(2).random((6, STEPS, INPUTS), np.float32)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("kind", ["weight", "weight-channel"])
@pytest.mark.parametrize(("op", "direction"), CASES)
def test_files(op: str, direction: str, kind: str, tmp_path: Path) -> None:
    """As Mul nodes and folded both are the model of the products; strip and verify know both."""
    model = written(tmp_path, op, direction)
    masks = masks_on(model, kind)
    assert {mask.tap for mask in masks} == {"W", "R", "B", "fc"}
    products = values(op, direction)
    for mask in masks:
        products[mask.tap] = products[mask.tap] * mask.weights
    wanted = run(proto(op, direction, products).SerializeToString())
    assert np.abs(wanted - run(tmp_path / "m.onnx")).max() > 0.01
    harden_file(model, masks, tmp_path / "mul.onnx")
    assert all(fate.folded for fate in fold_file(model, masks, tmp_path / "folded.onnx"))
    for name in ("mul.onnx", "folded.onnx"):
        np.testing.assert_allclose(run(tmp_path / name), wanted, atol=1e-5)
        assert verify(cpu(load(tmp_path / name)), source=model).passed
    assert refolded(load(tmp_path / "folded.onnx"), model).sha256 == load(tmp_path / "folded.onnx").sha256
    strip_file(load(tmp_path / "mul.onnx"), tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()


@pytest.mark.parametrize("kind", ["weight", "weight-channel"])
@pytest.mark.parametrize(("op", "direction"), CASES)
def test_gradients_by_finite_differences(op: str, direction: str, kind: str, tmp_path: Path) -> None:
    """Along random directions of each mask; float32, as ONNX Runtime has these ops."""
    model = written(tmp_path, op, direction)
    under = MaskedClassifier(cpu(model), masks_on(model, kind))
    rng = np.random.default_rng(3)
    x, y = rng.random((6, STEPS, INPUTS), np.float32), rng.integers(0, CLASSES, 6)
    start = under.weights
    found = under.mask_gradients(x, y, loss=Loss.CE).gradients

    def loss(weights: dict[str, NDArray[np.float32]]) -> float:
        under.weights = weights
        return float(under.mask_gradients(x, y, loss=Loss.CE).loss.sum(dtype=np.float64))

    step = 0.01
    for key, mask in start.items():
        way = rng.choice([-1.0, 1.0], mask.shape).astype(np.float32)
        numeric = (loss({**start, key: mask + step * way}) - loss({**start, key: mask - step * way})) / (2 * step)
        assert float((found[key] * way).sum()) == pytest.approx(numeric, rel=2e-2, abs=2e-3)
        assert np.abs(found[key]).max() > 1e-3


def test_a_direction_has_channels_of_its_own() -> None:
    model = load_bytes(proto("GRU", "bidirectional").SerializeToString())
    shapes = {mask.key: mask.weights.shape for mask in first_masks(model, "weight-channel")}
    assert shapes["W (output-channel)"] == shapes["R (output-channel)"] == (2, 3 * HIDDEN, 1)
    assert shapes["W (input-channel)"] == (2, 1, INPUTS)
    assert shapes["R (input-channel)"] == (2, 1, HIDDEN)
    assert shapes["B"] == (2, 6 * HIDDEN)
    assert {mask.key: mask.weights.shape for mask in first_masks(model, "kernel")}["W"] == (2, 3 * HIDDEN, INPUTS)


def test_layers_find_it_by_name() -> None:
    model = load_bytes(proto("LSTM", "forward").SerializeToString())
    assert [mask.tap for mask in first_masks(model, "weight", layers=["layer"])] == ["W", "R"]


def test_what_is_refused() -> None:
    """An initial state is no weight; weights that depend on the data are none either."""
    made = proto("RNN", "forward")
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1, HIDDEN), np.float32), "h0"))
    layer = next(node for node in made.graph.node if node.op_type == "RNN")
    layer.input.extend(["", "h0"])
    with pytest.raises(TapError, match=r"'h0' is read by RNN \(node 'layer'\), where it is no weight of a layer"):
        find_weight(load_bytes(made.SerializeToString()), "h0")
