"""Classical models (ai.onnx.ml): scalers, linear models, support vector machines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.coupling import coupled
from cloakonnx.graph.decompose.registry import LEARNING, Node, Outputs, decomposition


def _floats(s: Node, name: str, default: Sequence[float] = ()) -> NDArray[np.float32]:
    return np.array(s.attr(name) or default, np.float32)


def _given(s: Node) -> Tensor:
    """Return the data as real numbers: integers as float32."""
    return s.x if s.x.dtype.kind == "f" else s.x.cast(TensorProto.FLOAT)


def _row(s: Node, values: NDArray[np.float32]) -> Tensor:
    """Return a constant that broadcasts along the features; of the data's type, for float64 stands in tests."""
    return s.build.constant(values.astype(s.x.dtype if s.x.dtype.kind == "f" else np.float32))


@decomposition("Scaler", domain=LEARNING)
def scaler(s: Node) -> Tensor:
    """(x - offset) * scale."""
    offset, scale = _floats(s, "offset", [0]), _floats(s, "scale", [1])
    return (_given(s) - _row(s, offset)) * _row(s, scale)


@decomposition("Normalizer", domain=LEARNING)
def normalizer(s: Node) -> Tensor:
    """Each row over its largest value, the sum of its absolute values, or its length."""
    x, norm = _given(s), s.attr("norm", "MAX")
    size = x.max(-1) if norm == "MAX" else abs(x).sum(-1) if norm == "L1" else (x * x).sum(-1)
    size = _positive_root(size) if norm == "L2" else size
    return x / size.equals(0).where(1, size)


def _positive_root(square: Tensor) -> Tensor:
    """The root, with a gradient of 0 at 0."""
    return (square > 0).where((square > 0).where(square, 1).sqrt(), 0)


@decomposition("Binarizer", domain=LEARNING, rounds=True)
def binarizer(s: Node) -> Tensor:
    """1 above the threshold, else 0."""
    return (_given(s) > s.number("threshold", 0.0)).cast(_given(s))


@decomposition("Imputer", domain=LEARNING, note="floating point")
def imputer(s: Node) -> Tensor:
    """Fill in what is missing."""
    if s.x.dtype.kind != "f":
        raise s.error("its input is not floating point")
    missing = s.number("replaced_value_float", 0.0)
    found = s.x.op("IsNaN") if math.isnan(missing) else s.x.equals(missing)
    filled = _row(s, _floats(s, "imputed_value_floats"))
    return found.where(filled, s.x)


@decomposition("FeatureVectorizer", domain=LEARNING)
def feature_vectorizer(s: Node) -> Tensor:
    """The inputs side by side."""
    parts = [s.input(i) for i in range(len(s.node.input))]
    first, *rest = [each if each.dtype == np.float32 else each.cast(TensorProto.FLOAT) for each in parts]
    return first.op("Concat", *rest, axis=1) if rest else first


@decomposition("ArrayFeatureExtractor", domain=LEARNING)
def array_feature_extractor(s: Node) -> Tensor:
    """Some columns."""
    return s.x.gather(s.input(1).reshape(-1), len(s.shape(0)) - 1)


@decomposition("LinearRegressor", domain=LEARNING)
def linear_regressor(s: Node) -> Tensor:
    """The values of a linear model."""
    targets = s.attr("targets", 1)
    return _after(s, _linear(s, _given(s), targets))


@decomposition("LinearClassifier", domain=LEARNING)
def linear_classifier(s: Node) -> Outputs:
    """The scores of a linear model; the label is none of them."""
    count = len(s.attr("classlabels_ints") or s.attr("classlabels_strings") or ())
    rows = len(s.attr("intercepts") or ()) or max(count, 1)
    return [None, _classes(s, _linear(s, _given(s), rows), count)]


@decomposition("SVMRegressor", domain=LEARNING)
def svm_regressor(s: Node) -> Tensor:
    """A sum of kernels at the support vectors."""
    if s.attr("one_class", 0):
        raise s.error("a one-class model gives no score")
    count = s.attr("n_supports", 0)
    rho = _floats(s, "rho")
    if not count:
        return _after(s, _products(s, _floats(s, "coefficients").reshape(1, -1)) + float(rho[0]))
    weights = _row(s, _floats(s, "coefficients").reshape(-1, 1))
    return _after(s, _kernels(s, count).op("MatMul", weights) + float(rho[0]))


@decomposition("SVMClassifier", domain=LEARNING)
def svm_classifier(s: Node) -> Outputs:
    """Decision values of pairs of classes; where the model has them, probabilities by Platt's sigmoid."""
    count = len(s.attr("classlabels_ints") or s.attr("classlabels_strings") or ())
    per_class = s.attr("vectors_per_class")
    rho = _floats(s, "rho")
    if not per_class:
        coefficients = _floats(s, "coefficients").reshape(count, -1)
        return [None, _classes(s, _products(s, coefficients) + float(rho[0]), count)]
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    weights = _by_pair(s, pairs, per_class)
    values = _kernels(s, sum(per_class)).op("MatMul", _row(s, weights)) + _row(s, rho[: len(pairs)])
    slopes, offsets = _floats(s, "prob_a"), _floats(s, "prob_b")
    if not slopes.size:
        return [None, _classes(s, values, count) if count == 2 else _after(s, values)]
    first = (-(values * _row(s, slopes) + _row(s, offsets))).op("Sigmoid")
    if count > 2:
        return [None, _after(s, coupled(s, first, pairs, count))]
    return [None, first.op("Concat", 1 - first, axis=1)]


def _by_pair(s: Node, pairs: Sequence[tuple[int, int]], per_class: Sequence[int]) -> NDArray[np.float32]:
    """Return how much each support vector counts for each pair of classes, (vectors, pairs)."""
    ends = np.cumsum(per_class)
    starts, total = ends - per_class, int(ends[-1])
    coefficients = _floats(s, "coefficients").reshape(-1, total)
    weights = np.zeros((total, len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        for own, row in ((i, j - 1), (j, i)):
            rows = slice(starts[own], ends[own])
            weights[rows, column] = coefficients[row, rows]
    return weights


def _products(s: Node, vectors: NDArray[np.float32]) -> Tensor:
    return _given(s).op("MatMul", _row(s, vectors.T.copy()))


def _kernels(s: Node, count: int) -> Tensor:
    """Return the kernel of each sample and support vector, (N, vectors)."""
    vectors = _floats(s, "support_vectors").reshape(count, -1)
    settings: list[float] = s.attr("kernel_params") or []
    gamma, shift, degree, *_ = [*settings, 0.0, 0.0, 3.0]
    kind = s.attr("kernel_type", "LINEAR")
    products = _products(s, vectors)
    if kind == "LINEAR":
        return products
    if kind == "POLY":
        return (products * gamma + shift) ** degree
    if kind == "SIGMOID":
        return (products * gamma + shift).op("Tanh")
    squares = (_given(s) * _given(s)).sum(-1) + _row(s, (vectors * vectors).sum(1))
    return ((squares - 2.0 * products) * -gamma).exp()


def _linear(s: Node, x: Tensor, rows: int) -> Tensor:
    coefficients = _floats(s, "coefficients").reshape(rows, -1)
    y = x.op("MatMul", _row(s, coefficients.T.copy()))
    return y + _row(s, _floats(s, "intercepts")) if s.attr("intercepts") else y


def _classes(s: Node, scores: Tensor, count: int) -> Tensor:
    """Return a score for each class: of two, one score makes both."""
    one = (scores.dims or (None, None))[-1] == 1 or (count == 2 and _rows(s) == 1)
    if not (one and count == 2):
        return _after(s, scores)
    kind = s.attr("post_transform", "NONE")
    if kind == "LOGISTIC":
        p = scores.op("Sigmoid")
        return (1 - p).op("Concat", p, axis=1)
    if s.node.op_type == "LinearClassifier":  # ONNX Runtime leaves any other transformation out
        return (1 - scores).op("Concat", scores, axis=1)
    first = -scores
    return _after(s, first.op("Concat", scores, axis=1))


def _rows(s: Node) -> int:
    """How many rows of scores a binary model computes."""
    if s.node.op_type == "LinearClassifier":
        return len(s.attr("intercepts") or ()) or 2
    return 1 if s.attr("vectors_per_class") else 2


def _after(s: Node, scores: Tensor) -> Tensor:
    kind = s.attr("post_transform", "NONE")
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return scores.op("Sigmoid")
    if kind == "SOFTMAX":
        return scores.op("Softmax", axis=-1)
    raise s.error(f"its post_transform {kind} has no formula")
