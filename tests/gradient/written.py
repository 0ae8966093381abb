"""Ops that have a decomposition: against ONNX Runtime's own kernel, and their gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import cloakonnx.graph.decompose  # noqa: F401  fills the registry
from cloakonnx.gradient import registry
from cloakonnx.graph.decompose.registry import decompositions, written_out
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.shapes import infer
from tests.support.double import to_double

from . import harness
from .harness import LOOSE, TIGHT, Array, Case, evaluator, gradients, graph_of, ort_run

Runner = Callable[[onnx.ModelProto], Callable[[Mapping[str, Array]], list[Array]]]

FOUND = {(each.domain, each.op): each for each in decompositions()}
DOMAINS = ("com.microsoft", "ai.onnx.ml")


def one(op: str, *inputs: Any, domain: str = "", opset: int = 18, **attributes: Any) -> Case:
    case = harness.one(op, *inputs, opset=opset, **attributes)
    case.nodes[0].domain = domain
    return case


def without_fusions(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """Run a model in ONNX Runtime as its nodes say."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def written(case: Case) -> Case:
    """The case with every node that has a decomposition written out."""
    model = infer(plain(case))
    index = Index(model.graph)
    nodes: list[onnx.NodeProto] = []
    constants = dict(case.constants)
    for number, node in enumerate(case.nodes):
        found = FOUND.get((node.domain, node.op_type))
        if found is None:
            nodes.append(node)
            continue
        graph, names = written_out(found, node, index, opset=case.opset, prefix=f"w{number}/")
        nodes.extend(graph.node)
        for tensor in graph.initializer:
            value = numpy_helper.to_array(tensor)
            constants[tensor.name] = value.astype(np.float64) if value.dtype == np.float32 else value
        nodes += [helper.make_node("Identity", [n], [o]) for n, o in zip(names, node.output, strict=False) if n and o]
    last = case.nodes[-1].output[0]
    if nodes[-1].output[0] != last:  # the harness takes the last node's output for the result
        nodes = [*[n for n in nodes if last not in n.output], *[n for n in nodes if last in n.output]]
    return replace(case, nodes=nodes, constants=constants)


def plain(case: Case) -> onnx.ModelProto:
    """The case in float32 without the row that the harness makes of its result."""
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in case.inputs.items()]
    constants = [
        numpy_helper.from_array(v.astype(np.float32) if v.dtype == np.float64 else v, n)
        for n, v in case.constants.items()
    ]
    output = onnx.ValueInfoProto(name=case.nodes[-1].output[0])
    graph = helper.make_graph(case.nodes, "case", inputs, [output], constants)
    opsets = [
        helper.make_opsetid("", case.opset),
        *(helper.make_opsetid(d, v) for d, v in zip(DOMAINS, (1, 3), strict=True)),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def check_written(case: Case, *, rtol: float = 2e-5, kernel: bool = True, wide: Runner = ort_run) -> None:
    """Hold the formula against the kernel, its gradient in float64 against differences, the op's in float32 against it.

    Args:
        case: The case.
        rtol: How far the formula may be from the kernel, of the largest value.
        kernel: Whether ONNX Runtime has the op.
        wide: What runs float64; ONNX Runtime lacks some kernels.
    """
    narrow = {name: value.astype(np.float32) for name, value in case.inputs.items()}
    spelled = written(case)
    (y,) = without_fusions(plain(spelled), narrow)
    if kernel:
        (wanted,) = without_fusions(plain(case), narrow)
        np.testing.assert_allclose(y, wanted, rtol=0, atol=rtol * max(1.0, float(np.abs(wanted).max())))
    sized, original = replace(spelled, size=int(y.size)), replace(case, size=int(y.size))
    rng = np.random.default_rng(0)
    forward = wide(to_double(sized.model()))
    (row,) = forward(case.inputs)
    cotangent = rng.normal(size=row.shape)
    double = graph_of(sized, double=True)
    exact = gradients(double, wide(double.proto), case, cotangent)
    for _ in range(3):
        directions = {name: rng.normal(size=v.shape) for name, v in case.inputs.items()}
        ends = [
            float((forward({n: v + h * directions[n] for n, v in case.inputs.items()})[0] * cotangent).sum())
            for h in (1e-5, -1e-5)
        ]
        numeric = (ends[0] - ends[1]) / 2e-5
        analytic = sum(float((g * d).sum()) for g, d in zip(exact, directions.values(), strict=True))
        size = sum(np.linalg.norm(g) * np.linalg.norm(d) for g, d in zip(exact, directions.values(), strict=True))
        assert abs(numeric - analytic) <= 10 * TIGHT * max(float(size), 1.0), (numeric, analytic)
    if not kernel:
        return
    single = graph_of(original, double=False)
    found = gradients(single, ort_run(single.proto), case, cotangent.astype(np.float32))
    for grad, reference in zip(found, exact, strict=True):
        assert grad.dtype == np.float32
        assert np.linalg.norm(grad - reference) <= 5 * LOOSE * max(float(np.linalg.norm(reference)), 1.0)


def undone(names: Sequence[str]) -> list[str]:
    """Return the ops of a list that have neither rule nor decomposition."""
    return [name for name in names if registry.find(*name.rpartition(".")[::2]) is None]


__all__ = ["FOUND", "check_written", "evaluator", "one", "undone", "written"]
