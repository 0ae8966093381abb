"""Ops through which no gradient flows.

Zero-gradient ops are piecewise constant in a real argument: a model that has one on its path hides its gradient. The
others make shapes, indices or booleans, where nobody expects one.
"""

from __future__ import annotations

from cloakonnx.gradient.registry import Kind, ends

ends(
    Kind.ZERO,
    {
        "ArgMax": 13,
        "ArgMin": 13,
        "DynamicQuantizeLinear": 11,
        "Hardmax": 13,
        "MatMulInteger": 10,
        "ConvInteger": 10,
        "QLinearConv": 10,
        "QLinearMatMul": 21,
    },
    family="flat",
)
ends(
    Kind.STOP,
    {
        "Shape": 25,
        "Size": 25,
        "Constant": 25,
        "ConstantOfShape": 25,
        "Range": 27,
        "EyeLike": 22,
        "RandomNormal": 22,
        "RandomNormalLike": 22,
        "RandomUniform": 22,
        "RandomUniformLike": 22,
        "Greater": 13,
        "GreaterOrEqual": 16,
        "Less": 13,
        "LessOrEqual": 16,
        "Equal": 19,
        "Not": 1,
        "And": 7,
        "Or": 7,
        "Xor": 7,
        "IsNaN": 20,
        "IsInf": 20,
        "NonZero": 13,
        "OneHot": 11,
        "NonMaxSuppression": 11,
    },
    family="flat",
)
