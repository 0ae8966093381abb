"""Folding on real models and on every fixture: the Mul version's numbers in ONNX Runtime, the original's nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.fold.fold import folded, folding
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import is_folded
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.graph.subgraphs.inline import inline
from tests.fixtures.models import FIXTURES, Feed, Fixture, manifest, random_feed, write_external
from tests.fixtures.real import WHEEL_DATA
from tests.graph.helpers import weights

from .folding import relative, run

ASSETS = manifest() or {}
ACTIVATIONS = {"Relu", "LeakyRelu", "PRelu", "Clip"}


def activations(model: Model, seed: int = 0) -> list[Mask]:
    """Return a positive mask for the output of each activation."""
    rng = np.random.default_rng(seed)
    masks = []
    for node in model.structure.graph.node:
        if node.op_type in ACTIVATIONS:
            count = find_tap(model, node.output[0]).features
            assert count is not None
            masks.append(Mask(node.output[0], rng.uniform(0.05, 2, count).astype(np.float32)))
    return masks


def values(proto: ModelProto, feed: Feed, name: str, folder: Path | None = None) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run([name], feed)
    assert isinstance(found, np.ndarray)
    return found


def before_softmax(proto: ModelProto) -> tuple[ModelProto, str]:
    """Return the model with its logits as an output, which a saturated Softmax would hide, and their name."""
    name = proto.graph.output[0].name
    producers = {output: node for node in proto.graph.node for output in node.output}
    while producers[name].op_type in {"Softmax", "Identity"}:
        name = producers[name].input[0]
    copy = ModelProto()
    copy.CopyFrom(proto)
    if name not in {output.name for output in copy.graph.output}:
        copy.graph.output.add(name=name)
    return copy, name


def assert_folds(model: Model, masks: list[Mask], feed: Feed, tolerance: float) -> None:
    fates = folding(model, masks).fates
    assert [fate for fate in fates if not fate.folded] == []
    assert all(fate.layers for fate in fates if fate.folded)
    made, reference = inline(folded(model, masks)), inline(hardened(model, masks))
    assert [n.op_type for n in made.graph.node] == [n.op_type for n in model.proto.graph.node]
    assert [n.SerializeToString() for n in made.graph.node if n.op_type != "Constant"] == [
        n.SerializeToString() for n in model.proto.graph.node if n.op_type != "Constant"
    ]
    mine, its, plain = (values(*_fed(proto, feed)) for proto in (made, reference, inline(model)))
    assert relative(mine, its) < tolerance
    assert relative(plain, its) > 100 * tolerance, "the masks do something"


def _fed(proto: ModelProto, feed: Feed) -> tuple[ModelProto, Feed, str]:
    made, name = before_softmax(proto)
    return made, feed, name


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("cifar10_resnet20", 19), ("cifar10_resnet20_dynamo", 19), ("cifar10_resnet20_raw", 19), ("mnist_cnn_raw", 3),
        ("mnist_cntk_ir3", 2), ("text_direction_rapidocr", 33), ("cifar10_resnet56", 55),
    ],
)  # fmt: skip
def test_all_masks_of_the_real_models_fold(name: str, count: int) -> None:
    """text_direction_rapidocr with Mul nodes differs from itself by 2e-4 with and without ONNX Runtime's fusions."""
    if name not in ASSETS:
        pytest.skip("no real models beside the checkout")
    asset = ASSETS[name]
    model = load(asset.path)
    masks = activations(model)
    assert len(masks) == count
    batch = asset.batch or 4
    tolerance = 5e-4 if name == "text_direction_rapidocr" else 5e-6
    assert_folds(model, masks, {asset.input_name: asset.inputs(asset.images(batch))}, tolerance)


@pytest.mark.skipif("cifar10_resnet20" not in ASSETS, reason="no real models beside the checkout")
def test_resnet20_in_float64() -> None:
    """All 19 masks, two images, to float64 rounding."""
    proto = inline(load(ASSETS["cifar10_resnet20"].path))
    for tensor in proto.graph.initializer:
        _widen(tensor)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    proto.graph.input[0].name = "x"
    for node in proto.graph.node:
        node.input[:] = ["x" if each == "image" else each for each in node.input]
    model = load_bytes(proto.SerializeToString())
    masks = activations(model)
    asset = ASSETS["cifar10_resnet20"]
    x = asset.inputs(asset.images(2)).astype(np.float64)
    mine, its = (run(made(model, masks).proto, x)[0] for made in (folded, hardened))
    assert mine.dtype == np.float64
    assert relative(mine, its) < 1e-14


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def with_weights(proto: ModelProto) -> ModelProto:
    """Give a light model, whose weights come out of ConstantOfShape nodes, random ones as initializers."""
    shapes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    variances = {node.input[4] for node in proto.graph.node if node.op_type == "BatchNormalization"}
    rng = np.random.default_rng(0)
    for node in list(proto.graph.node):
        if node.op_type == "ConstantOfShape":
            shape = tuple(shapes[node.input[0]].tolist())
            made = rng.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[1:]))) if len(shape) > 1 else None
            made = rng.standard_normal(shape) * 0.1 if made is None else made
            made = rng.uniform(0.5, 1.5, shape) if node.output[0] in variances else made
            proto.graph.initializer.append(numpy_helper.from_array(made.astype(np.float32), node.output[0]))
            proto.graph.node.remove(node)
            proto.graph.input.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape))
    return proto


@pytest.mark.parametrize(
    ("name", "count"), [("squeezenet", 26), ("shufflenet", 33), ("inception_v1", 57), ("densenet121", 121)]
)
def test_all_masks_of_the_wheels_architectures_fold(name: str, count: int) -> None:
    path = WHEEL_DATA / "light" / f"light_{name}.onnx"
    model = load_bytes(with_weights(onnx.load(path)).SerializeToString())
    masks = activations(model)
    assert len(masks) == count
    assert_folds(model, masks, random_feed(model.proto, batch=1), 5e-6)


def test_weights_that_are_computed_do_not_fold() -> None:
    model = load(WHEEL_DATA / "light" / "light_squeezenet.onnx")
    fates = folding(model, activations(model)).fates
    assert {fate.folded for fate in fates} == {False}
    assert "is computed by ConstantOfShape" in str(fates[0].reason)
    assert not is_folded(folded(model, activations(model)).proto)


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
def test_every_fixture(fixture: Fixture) -> None:
    """Odd models: whether the mask folds or not, the numbers are those of the Mul version."""
    model = load_bytes(fixture.model.SerializeToString())
    positive = np.abs(weights(fixture.features)) + np.float32(0.05)
    for given in (positive, np.where(positive > 0.5, positive, 0).astype(np.float32)):
        mask = Mask(fixture.tap, given, fixture.axis)
        made = folded(model, [mask])
        if not fixture.runs_in_ort:
            continue
        for output in fixture.model.graph.output:
            if output.type.HasField("tensor_type"):
                mine, its = (values(each.proto, fixture.feed, output.name) for each in (made, hardened(model, [mask])))
                assert mine.dtype == its.dtype
                assert relative(mine, its) < (2e-2 if "16" in fixture.name else 1e-5)


def test_external_weights(tmp_path: Path) -> None:
    model = load(write_external(tmp_path))
    mask = Mask("features", np.linspace(0, 2, 6, dtype=np.float32))
    assert folding(model, [mask]).fates[0].folded
    feed = random_feed(model.proto)
    mine, its = (values(made(model, [mask]).proto, feed, "logits", tmp_path) for made in (folded, hardened))
    assert relative(mine, its) < 1e-5
