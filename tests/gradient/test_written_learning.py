"""Every decomposition of a classical model's op (ai.onnx.ml) against ONNX Runtime's kernel and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from .harness import Array, Case
from .written import check_written, one

ML = "ai.onnx.ml"
RNG = np.random.default_rng(0)


def r(*shape: int) -> Array:
    return RNG.normal(size=shape)


TABLE = r(3, 4)


def numbers(rows: int, columns: int) -> list[float]:
    return [float(v) for v in r(rows, columns).ravel()]


def scores(op: str, classes: int, **attributes: Any) -> Case:
    """The second output, negated so that it is not taken for what it is."""
    nodes = [
        helper.make_node(op, ["x"], ["label", "p"], domain=ML, classlabels_ints=list(range(classes)), **attributes),
        helper.make_node("Neg", ["p"], ["y"]),
    ]
    return Case(nodes, {"x": TABLE})


KERNEL = {
    "LINEAR": [0.0, 0.0, 0.0],
    "RBF": [0.3, 0.0, 0.0],
    "POLY": [0.3, 0.5, 2.0],
    "SIGMOID": [0.3, 0.1, 0.0],
}

LEARNING = {
    "Scaler": one("Scaler", TABLE, domain=ML, offset=[0.1, 0.2, 0.3, 0.4], scale=[1.0, 2.0, 3.0, 4.0]),
    "Scaler one": one("Scaler", TABLE, domain=ML, offset=[0.1], scale=[2.0]),
    "Normalizer MAX": one("Normalizer", np.abs(TABLE) + 0.1, domain=ML, norm="MAX"),
    **{f"Normalizer {norm}": one("Normalizer", TABLE, domain=ML, norm=norm) for norm in ("L1", "L2")},
    "Imputer": one(
        "Imputer", TABLE, domain=ML, imputed_value_floats=[1.0, 2.0, 3.0, 4.0], replaced_value_float=float("nan")
    ),
    "FeatureVectorizer": one("FeatureVectorizer", TABLE, r(3, 2), domain=ML, inputdimensions=[4, 2]),
    "ArrayFeatureExtractor": one("ArrayFeatureExtractor", TABLE, np.array([2, 0]), domain=ML),
    **{
        f"LinearRegressor {after}": one(
            "LinearRegressor",
            TABLE,
            domain=ML,
            coefficients=numbers(2, 4),
            intercepts=[0.1, 0.2],
            targets=2,
            post_transform=after,
        )
        for after in ("NONE", "SOFTMAX", "LOGISTIC")
    },
    **{
        f"LinearClassifier {classes} of {rows} {after}": scores(
            "LinearClassifier",
            classes,
            coefficients=numbers(rows, 4),
            intercepts=[0.1, 0.2, 0.3][:rows],
            multi_class=int(rows > 1),
            post_transform=after,
        )
        for classes, rows in ((3, 3), (2, 2), (2, 1))
        for after in ("NONE", "SOFTMAX", "LOGISTIC")
    },
    **{
        f"SVMRegressor {kernel}": one(
            "SVMRegressor",
            TABLE,
            domain=ML,
            n_supports=3,
            support_vectors=numbers(3, 4),
            coefficients=numbers(1, 3),
            rho=[0.2],
            kernel_type=kernel,
            kernel_params=settings,
        )
        for kernel, settings in KERNEL.items()
    },
    **{
        f"SVMClassifier {classes} {kernel}": scores(
            "SVMClassifier",
            classes,
            vectors_per_class=[2, 2, 1][:classes],
            support_vectors=numbers(sum([2, 2, 1][:classes]), 4),
            coefficients=numbers(classes - 1, sum([2, 2, 1][:classes])),
            rho=[0.2, 0.1, 0.3][: classes * (classes - 1) // 2],
            kernel_type=kernel,
            kernel_params=settings,
        )
        for classes in (2, 3)
        for kernel, settings in KERNEL.items()
    },
}

PLATT = scores(
    "SVMClassifier",
    2,
    vectors_per_class=[2, 2],
    support_vectors=numbers(4, 4),
    coefficients=numbers(1, 4),
    rho=[0.2],
    kernel_type="RBF",
    kernel_params=KERNEL["RBF"],
    prob_a=[-1.3],
    prob_b=[0.1],
)

COUPLED = {
    f"SVMClassifier of {classes} probabilities {kernel} {after}": scores(
        "SVMClassifier",
        classes,
        vectors_per_class=[2] * classes,
        support_vectors=numbers(2 * classes, 4),
        coefficients=numbers(classes - 1, 2 * classes),
        rho=numbers(1, classes * (classes - 1) // 2),
        kernel_type=kernel,
        kernel_params=KERNEL[kernel],
        prob_a=[-1.3 - 0.1 * i for i in range(classes * (classes - 1) // 2)],
        prob_b=numbers(1, classes * (classes - 1) // 2),
        post_transform=after,
    )
    for classes, kernel, after in (
        (3, "RBF", "NONE"),
        (4, "LINEAR", "NONE"),
        (6, "POLY", "NONE"),
        (3, "RBF", "SOFTMAX"),
    )
}

CASES = {**LEARNING, **COUPLED}


@pytest.mark.parametrize("name", CASES)
def test_formula(name: str) -> None:
    check_written(CASES[name])


def test_probabilities_of_a_support_vector_machine() -> None:
    check_written(PLATT, rtol=5e-3)  # ONNX Runtime iterates towards them, and stops early
