"""Every rule against central differences in float64, and in float32 against its float64 self."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from .harness import Case, check, fixed, gradients, graph_of, one, ort_run

RNG = np.random.default_rng(7)


def away(*shape: int, low: float = 0.1, high: float = 2.0) -> np.ndarray:
    """Random values of either sign, none near 0, where many functions bend."""
    return RNG.uniform(low, high, shape) * RNG.choice([-1.0, 1.0], shape)


def above(*shape: int, low: float = 0.2, high: float = 2.0) -> np.ndarray:
    return RNG.uniform(low, high, shape)


def distinct(*shape: int) -> np.ndarray:
    """Values that are all at least 0.01 apart: no ties and no maximum that changes under a small step."""
    return RNG.permutation(np.arange(np.prod(shape)) * 0.01 - 0.3).reshape(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = away(2, 3, 4)

UNARY = {
    **{op: one(op, X) for op in ("Neg", "Abs", "Exp", "Erf", "Identity", "Sin", "Cos", "Relu", "Sigmoid", "Tanh")},
    **{op: one(op, above(2, 3)) for op in ("Log", "Sqrt", "Reciprocal")},
    **{op: one(op, X) for op in ("Softplus", "Softsign", "Mish", "Selu", "Elu", "Celu", "LeakyRelu", "HardSwish")},
    "HardSwish wide": one("HardSwish", away(3, 4, low=2.0, high=6.0)),
    "HardSigmoid": one("HardSigmoid", away(3, 4, high=4.0), alpha=0.3, beta=0.4),
    "LeakyRelu alpha": one("LeakyRelu", X, alpha=0.3),
    "Elu alpha": one("Elu", X, alpha=0.7),
    "Celu alpha": one("Celu", X, alpha=0.7),
    "Selu alpha": one("Selu", X, alpha=1.5, gamma=0.9),
    "ThresholdedRelu": one("ThresholdedRelu", away(3, 4, low=1.2), alpha=1.0),
    "Gelu": one("Gelu", X, opset=20),
    "Gelu tanh": one("Gelu", X, opset=20, approximate="tanh"),
    "Clip": one("Clip", X, np.float32(-0.8), np.float32(0.9)),
    "Clip open": one("Clip", X, None, np.float32(0.5)),
    "Dropout": one("Dropout", X),
    "Cast": one("Cast", X, to=1),
    "Softmax": one("Softmax", X),
    "Softmax axis": one("Softmax", X, axis=1),
    "LogSoftmax": one("LogSoftmax", X, axis=-2),
    "Softmax opset 11": one("Softmax", away(2, 6), axis=1, opset=11),
    "GlobalAveragePool": one("GlobalAveragePool", away(2, 3, 4, 5)),
    "GlobalAveragePool open": one("GlobalAveragePool", away(2, 3, 4, 5), open_axes=(0, 2, 3)),
    "GlobalMaxPool": one("GlobalMaxPool", distinct(2, 3, 2, 4)),
}

BROADCAST = {
    "Add": one("Add", away(2, 3, 4), away(3, 1)),
    "Sub": one("Sub", away(4), away(2, 3, 4)),
    "Mul": one("Mul", away(2, 1, 4), away(3, 1)),
    "Div": one("Div", away(2, 3, 4), away(3, 1)),
    "Mul scalar": one("Mul", away(2, 3), np.array(1.7)),
    "Mul open": one("Mul", away(2, 1, 4), away(2, 3, 1), open_axes=(0, 1, 2)),
    "Add open": one("Add", away(3, 4), away(2, 3, 4), open_axes=(0, 1)),
    "Add constant open": one("Add", away(2, 3, 4), fixed(above(3, 1)), open_axes=(0, 2)),
    "Sum": one("Sum", away(2, 3), away(3), away(2, 1)),
    "Mean": one("Mean", away(2, 3), away(3), away(2, 1)),
    "Max": one("Max", distinct(2, 3, 4), distinct(3, 4) + 0.005, fixed(np.full((), 0.002))),
    "Min": one("Min", distinct(2, 3, 4), fixed(np.full(4, -0.105))),
    "Pow 2": one("Pow", X, fixed(np.array(2.0))),
    "Pow 1": one("Pow", X, fixed(np.array(1.0))),
    "Pow 0.5": one("Pow", above(2, 3), fixed(np.array([0.5]))),
    "Pow many": one("Pow", above(2, 3), fixed(np.array([0.5, 0.0, -1.5]))),
    "Pow integers": one("Pow", above(2, 3), np.array([3, 1, 2])),
    "Pow both": one("Pow", above(2, 3), away(3)),
    "Where": one("Where", np.array([[True], [False]]), away(2, 3), away(3)),
    "PRelu": one("PRelu", X, above(3, 1)),
    "Expand": one("Expand", away(3, 1), ints(2, 3, 4)),
    "Expand kept": one("Expand", away(2, 3), ints(1, 3)),
    "Expand open": one("Expand", away(2, 3, 1), ints(2, 1, 4), open_axes=(0, 1)),
}

LINEAR = {
    "Gemm": one("Gemm", away(2, 3), away(3, 4), away(4), alpha=0.7, beta=1.3),
    "Gemm transA": one("Gemm", away(3, 2), away(3, 4), away(2, 1), transA=1),
    "Gemm transB": one("Gemm", away(2, 3), away(4, 3), transB=1, alpha=1.1),
    "Gemm both": one("Gemm", away(3, 2), away(4, 3), transA=1, transB=1),
    "MatMul": one("MatMul", away(2, 3), away(3, 4)),
    "MatMul batch": one("MatMul", away(2, 5, 3), away(3, 4)),
    "MatMul batches": one("MatMul", away(2, 1, 5, 3), away(4, 3, 2)),
    "MatMul ones": one("MatMul", away(1, 5, 3), away(4, 3, 2)),
    "MatMul open": one("MatMul", away(1, 5, 3), away(4, 3, 2), open_axes=(0, 1)),
    "MatMul vector left": one("MatMul", away(3), away(2, 3, 4)),
    "MatMul vector right": one("MatMul", away(2, 4, 3), away(3)),
    "MatMul vectors": Case(
        [helper.make_node("MatMul", ["a", "b"], ["s"]), helper.make_node("Expand", ["s", "two"], ["y"])],
        {"a": away(3), "b": away(3)},
        {"two": ints(2)},
    ),
}

REDUCTION = {
    f"{op} {name}": one(op, x, *axes, **attributes)
    for op, x in {
        "ReduceSum": X,
        "ReduceMean": X,
        "ReduceMax": distinct(2, 3, 4),
        "ReduceMin": distinct(2, 3, 4),
        "ReduceL1": X,
        "ReduceL2": X,
        "ReduceSumSquare": X,
        "ReduceLogSumExp": X,
        "ReduceLogSum": above(2, 3, 4),
        "ReduceProd": X,
    }.items()
    for name, axes, attributes in [
        ("kept", [ints(1)], {"keepdims": 1}),
        ("two axes", [ints(-1, 0)], {"keepdims": 0}),
        ("open", [ints(1, 2)], {"keepdims": 0, "open_axes": (0, 1)}),
        ("no-op", [], {"noop_with_empty_axes": 1}),
        ("opset 11", [], {"axes": [1], "keepdims": 0, "opset": 11}),
    ]
}

NORMALIZATION = {
    "BatchNormalization": one("BatchNormalization", away(2, 3, 4), *(fixed(above(3)) for _ in range(4))),
    "BatchNormalization 2": one("BatchNormalization", away(2, 3), *(fixed(above(3)) for _ in range(4)), epsilon=0.1),
    "InstanceNormalization": one("InstanceNormalization", away(2, 3, 4), fixed(above(3)), fixed(away(3))),
    "BatchNormalization scale": one(
        "BatchNormalization", away(2, 3, 4), above(3), above(3), *(fixed(above(3)) for _ in range(2))
    ),
    "LayerNormalization": one("LayerNormalization", away(2, 3, 4), fixed(above(4)), fixed(away(4))),
    "LayerNormalization scale": one("LayerNormalization", away(2, 3, 4), above(4), away(4)),
    "LayerNormalization axis": one("LayerNormalization", away(2, 3, 4), fixed(above(3, 4)), axis=1, epsilon=0.01),
    "GroupNormalization 21": one(
        "GroupNormalization", away(2, 4, 3), fixed(above(4)), fixed(away(4)), num_groups=2, opset=21
    ),
    "LpNormalization": one("LpNormalization", X, axis=1),
    "LpNormalization 1": one("LpNormalization", X, p=1),
    "LRN": one("LRN", away(2, 6, 2, 2), size=3, alpha=0.5, beta=0.75, bias=1.5),
}

SHAPING = {
    "Flatten": one("Flatten", X, axis=2),
    "Reshape": one("Reshape", X, ints(0, -1)),
    "Reshape open": one("Reshape", X, ints(-1, 6), open_axes=(0, 1)),
    "Squeeze": one("Squeeze", away(2, 1, 3), ints(1)),
    "Unsqueeze": one("Unsqueeze", away(2, 3), ints(0, -1)),
    "Squeeze opset 11": one("Squeeze", away(2, 1, 3), axes=[1], opset=11),
    "Transpose": one("Transpose", X, perm=[2, 0, 1]),
    "Transpose plain": one("Transpose", X),
    "Concat": one("Concat", away(2, 1), away(2, 3), fixed(away(2, 2)), axis=1),
    "Concat one": one("Concat", fixed(away(2, 1)), away(2, 3), axis=-1),
    "Concat open": one("Concat", away(2, 3), away(1, 3), axis=0, open_axes=(0,)),
    "Tile": one("Tile", away(2, 3), ints(2, 3)),
    "Tile open": one("Tile", away(2, 3), ints(1, 2), open_axes=(0, 1)),
    "DepthToSpace": one("DepthToSpace", away(1, 8, 2, 3), blocksize=2),
    "DepthToSpace CRD": one("DepthToSpace", away(1, 8, 2, 3), blocksize=2, mode="CRD"),
    "SpaceToDepth": one("SpaceToDepth", away(1, 2, 4, 6), blocksize=2),
}

SPLIT = {
    "Split": Case(
        [
            helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1),
            helper.make_node("Mul", ["a", "a"], ["aa"]),
            helper.make_node("Concat", ["c", "aa"], ["y"], axis=1),
        ],
        {"x": away(2, 6)},
        {"sizes": ints(1, 2, 3)},
    ),
    "Split equal": Case(
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2),
            helper.make_node("Mul", ["a", "b"], ["y"]),
        ],
        {"x": away(4, 3)},
    ),
    "TopK": Case(
        [helper.make_node("TopK", ["x", "k"], ["y", "places"], axis=1)], {"x": distinct(2, 5)}, {"k": ints(3)}
    ),
    "TopK values": Case([helper.make_node("TopK", ["x", "k"], ["y", ""])], {"x": distinct(2, 5)}, {"k": ints(2)}),
    "used twice": Case([helper.make_node("Mul", ["x", "x"], ["y"])], {"x": away(2, 3)}),
    "used thrice": Case(
        [
            helper.make_node("Exp", ["x"], ["a"]),
            helper.make_node("Mul", ["x", "a"], ["b"]),
            helper.make_node("Add", ["b", "x"], ["y"]),
        ],
        {"x": away(2, 3)},
    ),
}

SELECTION = {
    "Slice": one("Slice", X, ints(1, 0), ints(3, -1), ints(1, 2)),
    "Slice all": one("Slice", X, ints(0), ints(2**62)),
    "Slice step": one("Slice", X, ints(0, 3), ints(3, 0), ints(1, 2), ints(2, -2)),
    "Slice reversed": one("Slice", X, ints(-1), ints(-(2**62)), ints(2), ints(-1)),
    "Slice rows": one("Slice", away(2, 3, 7, 5), ints(0, 1), ints(2**62, 2**62), ints(2, 3), ints(2, 3)),
    "Slice rows, few": one("Slice", away(2, 3, 9, 4), ints(1, 0), ints(4, 4), ints(2, 3), ints(2, 2)),
    "Slice open": one("Slice", X, ints(1, 3), ints(3, 0), ints(1, 2), ints(1, -2), open_axes=(0, 1, 2)),
    "Slice open batch": one("Slice", X, ints(1), ints(3), ints(1), open_axes=(0,)),
    "Gather scalar": one("Gather", X, np.array(-1), axis=1),
    "Gather order": one("Gather", X, ints(2, 0), axis=1),
    "Gather repeated": one("Gather", X, ints(2, 0, 2), axis=1),
    "Gather matrix": one("Gather", X, np.array([[0, 3], [3, -1]]), axis=-1),
    "Gather open": one("Gather", X, ints(1), axis=0, open_axes=(0,)),
    "GatherElements": one("GatherElements", away(2, 3), np.array([[0, 2, 2], [1, 1, 0]]), axis=1),
    "GatherND": one("GatherND", X, np.array([[0, 1], [1, 2], [0, 1]])),
    "Pad": one("Pad", X, ints(0, 1, 2, 0, 3, 0)),
    "Pad axes": one("Pad", X, ints(1, 2), None, ints(-1)),
    "Pad open": one("Pad", X, ints(0, 1, 0, 0, 0, 2), open_axes=(0, 1, 2)),
    "Pad reflect": one("Pad", away(1, 2, 4, 5), ints(0, 0, 2, 1, 0, 0, 1, 3), mode="reflect"),
    "Pad edge": one("Pad", away(1, 2, 4, 5), ints(0, 1, 2, 1, 0, 1, 0, 3), mode="edge"),
    "Pad opset 11": one("Pad", X, ints(0, 1, 2, 0, 3, 0), opset=11),
}

RESIZE = {
    "Resize nearest": one(
        "Resize",
        away(1, 2, 3, 2),
        None,
        np.array([1, 1, 2, 3], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "Resize nearest open": one(
        "Resize",
        away(1, 2, 3, 2),
        None,
        np.array([1, 1, 2, 2], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        open_axes=(0, 2, 3),
    ),
    "Resize nearest down": one("Resize", away(1, 1, 6, 5), None, None, ints(1, 1, 3, 4), mode="nearest"),
    "Resize linear": one("Resize", away(1, 2, 3, 4), None, np.array([1, 1, 2, 2], np.float32), mode="linear"),
    "Resize linear corners": one(
        "Resize",
        away(1, 2, 3, 4),
        None,
        None,
        ints(1, 2, 5, 7),
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    "Resize axes": one("Resize", away(1, 3, 4, 2), None, None, ints(6, 8), mode="linear", axes=[1, 2], opset=18),
}

INNER = RNG.uniform(-0.8, 0.8, (2, 3))

TRIGONOMETRY = {
    **{op: one(op, X) for op in ("Atan", "Sinh", "Cosh", "Asinh")},
    **{op: one(op, INNER) for op in ("Tan", "Asin", "Acos", "Atanh")},
    "Acosh": one("Acosh", above(2, 3, low=1.2, high=3.0)),
    "Mod": one("Mod", away(2, 3, low=1.1, high=1.9), fixed(np.array([0.7, -0.6, 0.8])), fmod=1),
    "Mod both": one("Mod", np.array([[2.3, -1.9, 0.4]]), np.array([[0.7], [-0.5]]), fmod=1),
}

EINSUM = {
    equation: one("Einsum", *operands, equation=equation)
    for equation, operands in {
        "ij,jk->ik": [away(2, 3), away(3, 4)],
        "bhid,bhjd->bhij": [away(2, 1, 3, 4), away(2, 1, 2, 4)],
        "bij,jk": [away(2, 3, 4), away(4, 2)],
        "...ij,...jk->...ik": [away(2, 1, 2, 3), away(1, 2, 3, 4)],
        "...i,ij->...j": [away(2, 3, 4), away(4, 2)],
        "...i,...i->...": [away(2, 3, 4), away(2, 1, 4)],
        "ij->ji": [away(2, 3)],
        "ij->i": [away(2, 3)],
        "ii->i": [away(3, 3)],
        "bii->b": [away(2, 3, 3)],
        "i,j,k->kji": [away(2), away(3), away(4)],
        "b...i->b...": [away(2, 3, 4)],
    }.items()
}
EINSUM["ij,j->"] = Case(
    [
        helper.make_node("Einsum", ["a", "b"], ["s"], equation="ij,j->"),
        helper.make_node("Expand", ["s", "two"], ["y"]),
    ],
    {"a": away(2, 3), "b": away(3)},
    {"two": ints(2)},
)
EINSUM["open"] = one("Einsum", away(2, 3, 4), away(4, 2), equation="bij,jk->bik", open_axes=(0, 1, 2))

WRITING = {
    "ScatterND": one("ScatterND", X, np.array([[0, 1], [1, 2]]), away(2, 4)),
    "ScatterND add": one("ScatterND", X, np.array([[0, 1], [0, 1]]), away(2, 4), reduction="add"),
    "ScatterElements": one("ScatterElements", away(2, 4), np.array([[3, 0], [1, 2]]), away(2, 2), axis=1),
    "ScatterElements add": one(
        "ScatterElements", away(2, 4), np.array([[3, 3], [1, -2]]), away(2, 2), axis=1, reduction="add"
    ),
    "CumSum": one("CumSum", X, np.array(1)),
    "CumSum reversed": one("CumSum", X, np.array(-1), reverse=1, exclusive=1),
    "Trilu": one("Trilu", away(2, 3, 4)),
    "Trilu lower": one("Trilu", away(3, 4), np.array(1), upper=0),
    "ReverseSequence": one("ReverseSequence", away(4, 3), ints(1, 3, 4)),
    "ReverseSequence batch first": one("ReverseSequence", X, ints(3, 2), batch_axis=0, time_axis=1),
    "ReduceProd zeros": one("ReduceProd", np.array([[1.0, 2.0, 3.0], [0.0, 2.0, -1.0], [0.0, 0.0, 3.0]]), ints(1)),
}

CASES = {
    **UNARY,
    **TRIGONOMETRY,
    **EINSUM,
    **WRITING,
    **BROADCAST,
    **LINEAR,
    **REDUCTION,
    **NORMALIZATION,
    **SHAPING,
    **SPLIT,
    **SELECTION,
    **RESIZE,
}


def marks(name: str) -> list[pytest.MarkDecorator]:
    old = name.endswith(" no-op") and ort.__version__.startswith("1.22.")
    return [pytest.mark.skip("onnxruntime 1.22 can't run a reduction without axes itself")] if old else []


@pytest.mark.parametrize("case", [pytest.param(case, id=name, marks=marks(name)) for name, case in CASES.items()])
def test_rule(case: Case) -> None:
    check(case)


def test_group_normalization_18() -> None:
    scale, bias = fixed(above(2)), fixed(away(2))
    check(one("GroupNormalization", away(2, 4, 3), scale, bias, num_groups=2), deprecated=True)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in RESIZE.items()])
def test_resize_is_what_the_runtime_does(case: Case) -> None:
    """The matrices come from onnx.reference, the forward pass from onnxruntime: x . grad(x) must be the linear loss."""
    graph = graph_of(case, double=False)
    x = case.inputs["x0"].astype(np.float32)
    classes = graph.classes
    cotangent = RNG.normal(size=(1, classes)).astype(np.float32)
    names = [o.name for o in graph.proto.graph.output]
    found = dict(zip(names, ort_run(graph.proto)({graph.image: x, graph.cotangent: cotangent}), strict=True))
    np.testing.assert_allclose((x * found[graph.gradient]).sum(), found[graph.loss].sum(), rtol=1e-4, atol=1e-5)


MODES = [
    ("nearest", how, rounding)
    for how in ("half_pixel", "asymmetric", "align_corners")
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
] + [
    (mode, how, "floor")
    for how in ("half_pixel", "pytorch_half_pixel", "align_corners", "half_pixel_symmetric")
    for mode in ("linear", "cubic")
]


@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize(("mode", "how", "rounding"), MODES)
def test_resize_is_what_onnx_runtime_does(mode: str, how: str, rounding: str, by: str) -> None:
    """Its map is linear: the gradient is the transposed Jacobian, which unit vectors give."""
    attributes = {"mode": mode, "coordinate_transformation_mode": how}
    attributes |= {"nearest_mode": rounding} if mode == "nearest" else {}
    for wide, tall in ((0.7, 2.3), (1.7, 0.6), (0.34, 1.5)):
        given = ints(1, 1, int(6 * wide), int(7 * tall)), np.array([1, 1, wide, tall], np.float32)
        more = (None, given[1]) if by == "scales" else (None, None, given[0])
        case = one("Resize", away(1, 1, 6, 7), *more, opset=19, **attributes)
        forward, units = ort_run(case.model()), np.eye(42, dtype=np.float32).reshape(42, 1, 1, 6, 7)
        rows = np.stack([forward({"x0": unit})[0] for unit in units])
        cotangent = RNG.normal(size=rows.shape[1:]).astype(np.float32)
        graph = graph_of(case, double=False)
        (found,) = gradients(graph, ort_run(graph.proto), case, cotangent)
        np.testing.assert_allclose(found.ravel(), (rows * cotangent).reshape(42, -1).sum(1), atol=1e-5)
