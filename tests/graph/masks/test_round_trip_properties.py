"""The round trip over whatever masks on whatever taps, and over models that nobody made by hand."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, helper, numpy_helper

from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import Tap, find_tap, list_taps
from tests.fixtures.models import FIXTURES, Feed, Fixture
from tests.graph.helpers import assert_masked, round_trip, tap_values, write

NAMES = ("mlp", "nchw", "nhwc_tap_last", "transformer", "ir3_initializers_are_inputs", "float16", "if_both_branches")
CHOSEN = [fixture for fixture in FIXTURES if fixture.name in NAMES]
TAPS = {
    fixture.name: [tap for tap in list_taps(load_bytes(fixture.model.SerializeToString())) if tap.features]
    for fixture in CHOSEN
}
FLOATS = st.one_of(
    st.sampled_from([0.0, 1.0, -0.0, 0.5, 2.0]),
    st.floats(-100, 100, width=16),
    st.floats(0, 1, width=32),
)


@st.composite
def masked(draw: st.DrawFn) -> tuple[Fixture, list[Mask]]:
    fixture = draw(st.sampled_from(CHOSEN))
    taps = draw(st.lists(st.sampled_from(TAPS[fixture.name]), min_size=1, max_size=4, unique_by=lambda tap: tap.name))
    return fixture, [Mask(tap.name, draw(_weights(tap))) for tap in taps]


def _weights(tap: Tap) -> st.SearchStrategy[np.ndarray]:
    assert tap.features
    return st.lists(FLOATS, min_size=tap.features, max_size=tap.features).map(lambda v: np.array(v, np.float32))


@settings(max_examples=60, deadline=None)
@given(masked(), st.integers(0, 4))
def test_any_masks_on_any_taps(chosen: tuple[Fixture, list[Mask]], cut: int) -> None:
    """At once, and the first ones before the rest: the same file; the first masked tap has mask * tap exactly."""
    fixture, masks = chosen
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = write(folder, fixture.model)
        model = round_trip(path, masks, folder)
        assert model.path is not None
        source = load(path)
        first = min(masks, key=lambda mask: find_tap(source, mask.tap).node)
        before, after = (tap_values(each, first.tap, fixture.feed) for each in (path, model.path))
        assert_masked(before, after, first, find_tap(source, first.tap).feature_axis)
        if 0 < cut < len(masks):
            harden_file(source, masks[:cut], folder / "part.onnx")
            harden_file(load(folder / "part.onnx"), masks[cut:], folder / "whole.onnx")
            assert (folder / "whole.onnx").read_bytes() == model.path.read_bytes()


UNARY = ("Relu", "Neg", "Abs", "Tanh", "Sigmoid", "Identity", "Flatten", "Dropout")
SIZE = 4


@st.composite
def networks(draw: st.DrawFn) -> tuple[ModelProto, Feed]:
    """Draw a graph of layers, each on any tensors made before it, with names that are easily taken."""
    names = ["x"]
    nodes, weights = [], []
    for index in range(draw(st.integers(2, 8))):
        output = f"{draw(st.sampled_from(['t', 't_mask', 't_unmasked', 't_cloak', 'ü']))}{index or ''}"
        kind = draw(st.sampled_from(["unary", "Add", "Gemm", "MatMul"]))
        first, second = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        name = draw(st.sampled_from(["", "same", output]))
        if kind == "unary":
            node = helper.make_node(draw(st.sampled_from(UNARY)), [first], [output])
        elif kind == "Add":
            node = helper.make_node("Add", [first, second], [output])
        else:
            weight = f"{output}_mask_2" if draw(st.booleans()) else f"w{index}"
            values = np.random.default_rng(index).standard_normal((SIZE, SIZE)).astype(np.float32)
            weights.append(numpy_helper.from_array(values, weight))
            node = helper.make_node(kind, [first, weight], [output])
        if name and name not in {each.name for each in nodes}:
            node.name = name
        nodes.append(node)
        names.append(output)
    graph = GraphProto(name="g", node=nodes, initializer=weights)
    graph.input.append(helper.make_tensor_value_info("x", 1, ["N", SIZE]))
    outputs = {names[-1], *draw(st.lists(st.sampled_from(names[1:]), max_size=2))}
    graph.output.extend(helper.make_tensor_value_info(each, 1, ["N", SIZE]) for each in sorted(outputs))
    ir, opset = draw(st.sampled_from([(3, 7), (3, 8), (8, 13), (10, 21)]))
    if ir == 3:
        graph.input.extend(helper.make_tensor_value_info(each.name, 1, list(each.dims)) for each in weights)
    if opset < 11:  # Gemm's third input was not yet optional
        for node in (each for each in graph.node if each.op_type == "Gemm"):
            node.op_type = "MatMul"
    made = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
    return made, {"x": np.random.default_rng(1).random((3, SIZE), np.float32)}


@settings(max_examples=60, deadline=None)
@given(networks(), st.data())
def test_any_network(network: tuple[ModelProto, Feed], data: st.DataObject) -> None:
    made, feed = network
    taps = list_taps(load_bytes(made.SerializeToString()))
    assert [tap.name for tap in taps] == [node.output[0] for node in made.graph.node]
    tap = data.draw(st.sampled_from(taps))
    assert tap.features == SIZE
    mask = Mask(tap.name, data.draw(_weights(tap)))
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = write(folder, made)
        model = round_trip(path, [mask], folder)
        assert model.path is not None
        before, after = (tap_values(each, tap.name, feed) for each in (path, model.path))
        assert_masked(before, after, mask, 1)
