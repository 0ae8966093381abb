"""The steps to the canonical form: what each one promises to those after it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.errors import DifferentiationError
from cloakonnx.gradient import _canonical as steps
from cloakonnx.gradient._canonical import Job, canonical
from cloakonnx.gradient._opset import opset_of
from cloakonnx.gradient.differentiate import differentiate

from .classifiers import classifier
from .harness import ort_run
from .test_differentiate import normalised

NOTHING = Job()


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def inputs(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]


def test_inlined_has_no_functions_and_an_ir_version_that_every_runtime_reads() -> None:
    model = classifier(helper.make_node("Twice", ["features"], ["more"], domain="mine"))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.ir_version = 11
    made = steps.inlined(model, NOTHING)
    assert not made.functions
    assert "Twice" not in ops(made) and "Add" in ops(made)
    assert made.ir_version == steps.IR_VERSION


def test_checked_refuses_a_tensor_that_nothing_makes() -> None:
    assert steps.checked(classifier(), NOTHING).graph.node
    model = classifier(helper.make_node("Relu", ["nowhere"], ["more"], name="lost"))
    with pytest.raises(DifferentiationError, match=r"Relu \(node 'lost'\) reads 'nowhere', which nothing"):
        steps.checked(model, NOTHING)


def test_cleared_claims_nothing_of_the_inside_and_has_no_initializer_among_the_inputs() -> None:
    model = classifier(helper.make_node("Other", ["features"], ["more"], domain="mine"))
    for name in ("features", "more"):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [9, 9]))
    model.graph.input.append(helper.make_tensor_value_info("w2", TensorProto.FLOAT, [4, 5]))
    made = steps.cleared(model, NOTHING)
    assert inputs(made) == ["x"]
    assert [value.name for value in made.graph.value_info] == ["more"]  # inference knows no op of another domain
    assert not made.graph.output[0].type.tensor_type.HasField("shape")


def test_sized_fixes_what_is_given_and_names_the_rest() -> None:
    model = classifier(batch="N")
    model.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    made = steps.sized(model, Job(shapes={"x": [None, None, None, 8]}))
    dims = made.graph.input[0].type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[1].dim_value, dims[2].dim_param, dims[3].dim_value) == ("N", 3, "x_dim2", 8)
    with pytest.raises(DifferentiationError, match="input 'x' has 4 dimensions, not 2"):
        steps.sized(classifier(), Job(shapes={"x": [1, 3]}))


@pytest.mark.parametrize("opset", [9, 18])
def test_initialised_and_converted_have_no_constant_nodes(opset: int) -> None:
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones((), np.float32)))
    model = classifier(constant, helper.make_node("Mul", ["features", "k"], ["more"]), opset=opset)
    made = steps.constants(model, NOTHING)
    assert "Constant" not in ops(made)
    assert "k" in {tensor.name for tensor in made.graph.initializer}
    newer = steps.converted(made, NOTHING)
    assert opset_of(newer) == 18
    assert "Constant" not in ops(newer)


def test_unshared_keeps_the_signs_of_rows_of_length_one() -> None:
    """ONNX Runtime's Normalizer by L2 gives absolute values where it writes over its input: shapes are known."""
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Normalizer", ["t"], ["y"], domain="ai.onnx.ml", norm="L2"),
        helper.make_node("Reshape", ["y", "flat"], ["z"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xz"]
    flat = numpy_helper.from_array(np.array([-1, 4]), "flat")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [flat])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    made = canonical(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    x = np.array([[0.3, -0.4, 1.2, 0.0], [-1, -2, 0.5, -0.1], [0, 0, 0, 0]], np.float32)
    (found,) = ort_run(made)({"x": x})
    lengths = np.linalg.norm(np.tanh(x), axis=1, keepdims=True)
    np.testing.assert_allclose(found, np.tanh(x) / np.where(lengths == 0, 1, lengths), rtol=1e-6)


def test_converted_leaves_newer_opsets() -> None:
    model = classifier(opset=21)
    before = model.SerializeToString()
    assert steps.converted(model, NOTHING) is model
    assert model.SerializeToString() == before


def test_pruned_has_what_an_output_or_a_kept_tensor_needs() -> None:
    extra = [helper.make_node(op, ["features"], [op]) for op in ("Exp", "Neg", "Identity")]
    model = classifier(*extra, helper.make_node("Relu", ["features"], ["more"]), constants={"idle": np.ones(2)})
    made = steps.pruned(model, Job(keep=["Neg"]))
    assert {"Exp", "Identity"}.isdisjoint(ops(made)) and "Neg" in ops(made)
    assert "idle" not in {tensor.name for tensor in made.graph.initializer}


def test_folded_has_no_small_constant_work_left_and_knows_shapes() -> None:
    extra = [
        helper.make_node("Shape", ["features"], ["whole"]),
        helper.make_node("Slice", ["whole", "one", "four"], ["spatial"]),
        helper.make_node("Concat", ["zero", "spatial"], ["target"], axis=0),
        helper.make_node("Reshape", ["features", "target"], ["more"]),
    ]
    constants = {"one": np.array([1]), "four": np.array([4]), "zero": np.array([0])}
    made = steps.computed(classifier(*extra, constants=constants, batch=2), NOTHING)
    assert {"Shape", "Slice", "Concat"}.isdisjoint(ops(made))
    known = {value.name: value.type.tensor_type.shape.dim for value in made.graph.value_info}
    assert [d.dim_value for d in known["more"]] == [2, 4, 3, 3]


def test_folded_leaves_random_numbers_and_bodies() -> None:
    body = helper.make_graph([], "b", [], [helper.make_tensor_value_info("k", TensorProto.FLOAT, [])])
    extra = [
        helper.make_node("RandomUniformLike", ["k"], ["r"]),
        helper.make_node("If", ["yes"], ["i"], then_branch=body, else_branch=body),
        helper.make_node("Sum", ["features", "r", "i"], ["more"]),
    ]
    constants = {"k": np.ones((), np.float32), "yes": np.array(True)}
    made = steps.computed(classifier(*extra, constants=constants), NOTHING)
    assert {"RandomUniformLike", "If"} <= set(ops(made))


def test_fused_has_no_normalisation_behind_a_convolution_that_nothing_else_reads() -> None:
    made = steps.fused(steps.computed(normalised(False), NOTHING), NOTHING)
    assert "BatchNormalization" not in ops(made)
    kept = steps.fused(steps.computed(normalised(False), NOTHING), Job(keep=["conv"]))
    assert "BatchNormalization" in ops(kept)


def test_weights_are_out_while_the_light_steps_run_and_back_after() -> None:
    large = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    extra = [
        helper.make_node("MatMul", ["large", "large"], ["square"]),
        helper.make_node("ReduceSum", ["square"], ["s"], keepdims=0),
        helper.make_node("Add", ["features", "s"], ["more"]),
    ]
    model = classifier(*extra, constants={"large": large, "idle": large + 1})
    seen: list[onnx.ModelProto] = []

    def look(work: onnx.ModelProto, job: Job) -> onnx.ModelProto:
        seen.append(onnx.ModelProto())
        seen[0].CopyFrom(work)
        assert set(job.weights) == {"large", "idle"}
        return work

    made = canonical(model, then=[look])
    (during,) = seen
    assert inputs(during) == ["x", "large", "idle"]
    assert {"large", "idle"}.isdisjoint(tensor.name for tensor in during.graph.initializer)
    assert inputs(made) == ["x"]
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    np.testing.assert_array_equal(found["large"], large)
    assert "idle" not in found  # nothing reads it


def test_the_model_itself_is_not_changed() -> None:
    for model in (classifier(opset=9), normalised(True)):
        before = model.SerializeToString()
        canonical(model, shapes={"x": [2, 3, 6, 6]})
        assert model.SerializeToString() == before


def test_shapes_that_depend_on_the_block_before() -> None:
    """Each block reshapes by the shape of its input and slices by that of its result, the batch open, as Swin does."""
    blocks = 12
    nodes, before = [], "x"
    for i in range(blocks):
        sizes = []
        for axis in range(3):
            nodes += [
                helper.make_node("Shape", [before], [f"s{i}{axis}"]),
                helper.make_node("Gather", [f"s{i}{axis}", f"axis{axis}"], [f"g{i}{axis}"], axis=0),
                helper.make_node("Unsqueeze", [f"g{i}{axis}", "zero"], [f"u{i}{axis}"]),
            ]
            sizes.append(f"u{i}{axis}")
        nodes += [
            helper.make_node("Concat", sizes, [f"to{i}"], axis=0),
            helper.make_node("Relu", [before], [f"r{i}"]),
            helper.make_node("Reshape", [f"r{i}", f"to{i}"], [f"b{i}"]),
            helper.make_node("Shape", [f"b{i}"], [f"e{i}"]),
            helper.make_node("Gather", [f"e{i}", "axis1"], [f"f{i}"], axis=0),
            helper.make_node("Unsqueeze", [f"f{i}", "zero"], [f"end{i}"]),
            helper.make_node("Slice", [f"b{i}", "zero", f"end{i}", "one"], [f"y{i}"]),
        ]
        before = f"y{i}"
    nodes.append(helper.make_node("ReduceMean", [before], ["z"], axes=[1], keepdims=0))
    constants = [numpy_helper.from_array(np.array(axis), f"axis{axis}") for axis in range(3)]
    constants += [numpy_helper.from_array(np.array([value]), name) for name, value in (("zero", 0), ("one", 1))]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 3])
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "g", [entry], [output], constants)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    made = differentiate(model, loss="margin")
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    session = ort.InferenceSession(made.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (gradient,) = session.run([made.gradient], {made.image: x, made.labels or "": np.array([0, 1])})
    assert (np.abs(gradient).sum(2) > 0).any()
    assert not gradient[x < 0].any()


@pytest.mark.parametrize("keep", [(), ("w",)])
def test_what_reads_a_kept_weight_is_not_computed(keep: tuple[str, ...]) -> None:
    """A position's embedding is a layer over constants; masks on its weights need the layer."""
    nodes = [
        helper.make_node("MatMul", ["places", "w"], ["embedding"]),
        helper.make_node("Add", ["x", "embedding"], ["z"]),
    ]
    constants = [
        numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (("places", (1, 2)), ("w", (2, 3)))
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "z")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    assert ops(canonical(model, keep=keep)) == (["MatMul", "Add"] if keep else ["Add"])
