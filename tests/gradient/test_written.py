"""Every decomposition of a neural network's op against ONNX Runtime's kernel and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from . import test_written_learning
from .harness import Array, Case, evaluator, fixed
from .written import FOUND, check_written, one

RNG = np.random.default_rng(0)
STEPS, BATCH, WIDTH, HIDDEN = 4, 2, 3, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
MS = "com.microsoft"


def r(*shape: int) -> Array:
    return RNG.normal(size=shape)


X = r(STEPS, BATCH, WIDTH)
LENGTHS = np.array([4, 2], np.int32)


def recurrent(op: str, *more: Any, ways: int = 1, **attributes: Any) -> Case:
    gates = GATES[op] * HIDDEN
    weights = fixed(r(ways, gates, WIDTH)), fixed(r(ways, gates, HIDDEN)), fixed(r(ways, 2 * gates))
    return one(op, X, *weights, *more, hidden_size=HIDDEN, **attributes)


def start(ways: int = 1) -> Any:
    return fixed(r(ways, BATCH, HIDDEN))


def every_output(op: str) -> Case:
    """All inputs live, all outputs read."""
    gates, states = GATES[op] * HIDDEN, ["h", "c"] if op == "LSTM" else ["h"]
    ends = [f"{state}_end" for state in states]
    nodes = [
        helper.make_node(op, ["x", "w", "r", "b", "", *states], ["all", *ends], hidden_size=HIDDEN),
        helper.make_node("ReduceSum", ["all", "axes"], ["s"], keepdims=0),
        helper.make_node("Mul" if len(ends) > 1 else "Add", ["s", ends[0]], ["m"]),
        helper.make_node("Mul", ["m", ends[-1]], ["y"]),
    ]
    live = {"x": X, "w": r(1, gates, WIDTH), "r": r(1, gates, HIDDEN), "b": r(1, 2 * gates)}
    return Case(nodes, {**live, **{state: r(1, BATCH, HIDDEN) for state in states}}, {"axes": np.array([0])})


RECURRENT = {
    **{f"{op} {way}": recurrent(op, direction=way) for op in GATES for way in ("forward", "reverse")},
    **{f"{op} both ways": recurrent(op, ways=2, direction="bidirectional") for op in GATES},
    **{f"{op} lengths": recurrent(op, LENGTHS, start()) for op in GATES},
    **{f"{op} lengths, both": recurrent(op, LENGTHS, ways=2, direction="bidirectional") for op in GATES},
    **{f"{op} clip": recurrent(op, clip=0.5) for op in GATES},
    **{f"{op} everything": every_output(op) for op in GATES},
    "LSTM peepholes": recurrent("LSTM", None, start(), start(), fixed(r(1, 3 * HIDDEN))),
    "LSTM coupled": recurrent("LSTM", input_forget=1),
    "LSTM functions": recurrent(
        "LSTM", activations=["HardSigmoid", "Tanh", "Softsign"], activation_alpha=[0.3], activation_beta=[0.4]
    ),
    "GRU linear": recurrent("GRU", None, start(), linear_before_reset=1),
    "RNN functions": recurrent("RNN", ways=2, direction="bidirectional", activations=["Relu", "Tanh"]),
}

BATCH_FIRST = {
    op: one(
        op,
        r(BATCH, STEPS, WIDTH),
        *(fixed(r(1, gates * HIDDEN, size)) for size in (WIDTH, HIDDEN)),
        fixed(r(1, 2 * gates * HIDDEN)),
        None,
        fixed(r(BATCH, 1, HIDDEN)),
        hidden_size=HIDDEN,
        layout=1,
    )
    for op, gates in GATES.items()
}
"""ONNX Runtime has no kernel for these."""

PLACES = RNG.uniform(-1.4, 1.4, (2, 3, 2, 2))

SAMPLING = {
    **{
        f"GridSample {mode} {padding} {corners}": one(
            "GridSample",
            r(2, 2, 4, 5),
            fixed(PLACES) if mode == "nearest" else PLACES,  # ONNX Runtime: nearest has no slope
            mode=mode,
            padding_mode=padding,
            align_corners=corners,
            opset=20,
        )
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    },
    "GridSample volume": one(
        "GridSample", r(1, 2, 3, 4, 3), RNG.uniform(-1.2, 1.2, (1, 2, 2, 3, 3)), mode="linear", opset=20
    ),
    "GridSample 16": one("GridSample", r(1, 2, 3, 4), RNG.uniform(-1.2, 1.2, (1, 2, 2, 2)), mode="bilinear", opset=16),
    "AffineGrid": one("AffineGrid", r(2, 2, 3), np.array([2, 3, 4, 5]), opset=20),
    "AffineGrid corners": one("AffineGrid", r(2, 3, 4), np.array([2, 3, 2, 4, 5]), opset=20, align_corners=1),
}

QUERY, KEY, VALUE = r(2, 2, 3, 4), r(2, 2, 5, 4), r(2, 2, 5, 3)

STANDARD = {
    "MeanVarianceNormalization": one("MeanVarianceNormalization", r(2, 3, 2, 2)),
    "MeanVarianceNormalization axes": one("MeanVarianceNormalization", r(2, 3, 2, 2), axes=[1, 2]),
    "Attention": one("Attention", QUERY, KEY, VALUE, opset=23),
    "Attention causal": one(
        "Attention", QUERY, KEY, VALUE, fixed(r(3, 5)), opset=23, is_causal=1, scale=0.3, softcap=2.0
    ),
    "Attention groups": one("Attention", r(2, 3, 8), r(2, 5, 4), r(2, 5, 4), opset=23, q_num_heads=2, kv_num_heads=1),
    "RotaryEmbedding": one(
        "RotaryEmbedding", r(2, 3, 4, 8), fixed(r(10, 4)), fixed(r(10, 4)), np.arange(8).reshape(2, 4), opset=23
    ),
    "RotaryEmbedding interleaved": one(
        "RotaryEmbedding", r(2, 4, 24), fixed(r(2, 4, 4)), fixed(r(2, 4, 4)), opset=23, num_heads=3, interleaved=1
    ),
}

SIGNAL, COMPLEX, CLIP = r(2, 6, 1), r(2, 3, 5, 2), r(2, 11, 1)
WINDOW, STEP = fixed(np.hanning(4)), np.array(3)

SPECTRAL = {
    "DFT": one("DFT", SIGNAL, opset=20),
    "DFT half": one("DFT", SIGNAL, opset=20, onesided=1),
    "DFT longer": one("DFT", SIGNAL, np.array(9), opset=20),
    "DFT shorter": one("DFT", SIGNAL, np.array(4), np.array(1), opset=20, onesided=1),
    "DFT complex": one("DFT", COMPLEX, None, np.array(1), opset=20),
    "DFT inverse": one("DFT", COMPLEX, opset=20, inverse=1),
    "DFT 17": one("DFT", COMPLEX, opset=18, axis=2),
    "DFT 17 plain": one("DFT", COMPLEX, opset=18),
    "STFT": one("STFT", CLIP, STEP, WINDOW, np.array(4)),
    "STFT whole": one("STFT", CLIP, STEP, WINDOW, onesided=0),
    "STFT without a window": one("STFT", CLIP, STEP, None, np.array(5)),
}

IMAGES, KERNELS, LINE = r(2, 3, 5, 5), fixed(r(4, 3, 3, 3)), r(2, 3, 4)
HEADS = {"domain": MS, "num_heads": 2}
BITS = np.random.default_rng(1).integers(0, 256, (3, 2, 8)).astype(np.uint8)
PACKED = {"domain": MS, "K": 20, "N": 3, "bits": 4, "block_size": 16}


def projected(*more: Any, **attributes: Any) -> Case:
    return one("Attention", r(2, 3, 6), fixed(r(6, 12)), fixed(r(12)), *more, **HEADS, **attributes)


def group_query(*, past: list[int] | None = None, packed: bool = False, **attributes: Any) -> Case:
    """Four heads of queries and two of keys, of 16; of each sample's past so many tokens are in a buffer of 4."""
    new, buffer = 1 if past else 3, 4 if past else 0
    before = past or [0, 0]
    data = [r(2, new, 128), None, None] if packed else [r(2, new, 64), r(2, new, 32), r(2, new, 32)]
    turning = attributes.get("do_rotary", 0)
    return one(
        "GroupQueryAttention",
        *data,
        *(fixed(r(2, 2, buffer, 16)) for _ in range(2)),
        np.array([each + new - 1 for each in before], np.int32),
        np.array(max(before) + new, np.int32),
        *((fixed(r(12, 8)), fixed(r(12, 8))) if turning else ()),
        domain=MS,
        num_heads=4,
        kv_num_heads=2,
        **attributes,
    )


def given_back(case: Case, count: int) -> Case:
    """Ask for the present keys and values, without which ONNX Runtime leaves the past out."""
    case.nodes[0].output.extend(f"present{i}" for i in range(count))
    return case


GROUP_QUERY = {
    "rotary": {"do_rotary": 1},
    "window": {"local_window_size": 1},
    "rotary, window": {"do_rotary": 1, "local_window_size": 2, "scale": 0.3, "softcap": 3.0},
}

FUSED = {
    "FusedGemm": one(
        "FusedGemm", r(3, 4), fixed(r(5, 4)), fixed(r(5)), domain=MS, activation="Relu", transB=1, alpha=0.5
    ),
    "FusedGemm slope": one(
        "FusedGemm", r(3, 4), fixed(r(4, 5)), domain=MS, activation="LeakyRelu", activation_alpha=0.3
    ),
    "FusedMatMul": one("FusedMatMul", LINE, r(2, 5, 4), domain=MS, transB=1, alpha=0.3),
    "FusedMatMul left": one("FusedMatMul", r(2, 4, 3), r(2, 4, 5), domain=MS, transA=1),
    "FusedMatMul batches": one("FusedMatMul", r(3, 2, 4), r(2, 4, 5), domain=MS, transBatchA=1),
    "FusedMatMul right batches": one("FusedMatMul", LINE, r(4, 2, 5), domain=MS, transBatchB=1),
    "FastGelu": one("FastGelu", LINE, domain=MS),
    "FastGelu bias": one("FastGelu", LINE, fixed(r(4)), domain=MS),
    "QuickGelu": one("QuickGelu", LINE, domain=MS, alpha=1.5),
    "SkipLayerNormalization": one(
        "SkipLayerNormalization", LINE, r(2, 3, 4), *(fixed(r(4)) for _ in range(3)), domain=MS, epsilon=1e-5
    ),
    "SkipLayerNormalization constant": one(
        "SkipLayerNormalization", LINE, fixed(r(1, 3, 4)), fixed(r(4)), domain=MS, epsilon=1e-5
    ),
    "SkipSimplifiedLayerNormalization": one(
        "SkipSimplifiedLayerNormalization", LINE, r(2, 3, 4), fixed(r(4)), fixed(r(4)), domain=MS, epsilon=1e-5
    ),
    "SimplifiedLayerNormalization": one("SimplifiedLayerNormalization", LINE, fixed(r(4)), axis=-1, epsilon=1e-5),
    "Attention projected": projected(),
    "Attention keys": projected(np.array([[1, 1, 0], [1, 0, 1]], np.int32)),
    "Attention lengths": projected(np.array([2, 3], np.int32)),
    "Attention pairs": projected(np.tril(np.ones((2, 3, 3), np.int32))),
    "Attention one way": projected(unidirectional=1),
    "Attention bias": projected(None, None, r(2, 2, 3, 3)),
    "Attention sizes": one("Attention", r(2, 3, 6), fixed(r(6, 20)), fixed(r(20)), **HEADS, qkv_hidden_sizes=[8, 8, 4]),
    "MultiHeadAttention": one("MultiHeadAttention", r(2, 3, 8), r(2, 4, 8), r(2, 4, 6), **HEADS),
    "MultiHeadAttention bias": one("MultiHeadAttention", r(2, 3, 8), r(2, 4, 8), r(2, 4, 8), fixed(r(24)), **HEADS),
    "MultiHeadAttention mask": one(
        "MultiHeadAttention",
        *(r(2, 3, 8), r(2, 4, 8), r(2, 4, 8), None, np.array([[1, 1, 0, 1], [1, 0, 0, 1]], np.int32)),
        r(1, 2, 3, 4),
        **HEADS,
        scale=0.4,
    ),
    "MultiHeadAttention by head": one("MultiHeadAttention", r(2, 3, 8), r(2, 2, 4, 4), r(2, 2, 4, 4), **HEADS),
    "GroupQueryAttention": one(
        "GroupQueryAttention",
        *(r(2, 3, 32), r(2, 3, 16), r(2, 3, 16), fixed(np.zeros((2, 2, 0, 8))), fixed(np.zeros((2, 2, 0, 8)))),
        *(np.array([2, 2], np.int32), np.array(3, np.int32)),
        domain=MS,
        num_heads=4,
        kv_num_heads=2,
    ),
    **{f"GroupQueryAttention {name}": group_query(**settings) for name, settings in GROUP_QUERY.items()},
    "GroupQueryAttention packed": group_query(packed=True, do_rotary=1),
    "GroupQueryAttention past": given_back(
        group_query(past=[4, 2], do_rotary=1, local_window_size=3, rotary_interleaved=1), 2
    ),
    "MultiHeadAttention past": given_back(
        one(
            "MultiHeadAttention",
            *(r(2, 3, 8), r(2, 3, 8), r(2, 3, 8), None, None, None, fixed(r(2, 2, 2, 4)), fixed(r(2, 2, 2, 4))),
            **HEADS,
        ),
        2,
    ),
    "Attention past": given_back(projected(None, fixed(r(2, 2, 2, 2, 2)), unidirectional=1), 1),
    "RotaryEmbedding part": one(
        "RotaryEmbedding",
        *(r(2, 3, 16), np.array([[0, 1, 2], [1, 2, 3]]), fixed(r(8, 2)), fixed(r(8, 2))),
        domain=MS,
        num_heads=2,
        rotary_embedding_dim=4,
    ),
    "RotaryEmbedding Microsoft": one(
        "RotaryEmbedding", r(2, 3, 16), np.array([[0, 1, 2], [1, 2, 3]]), fixed(r(8, 4)), fixed(r(8, 4)), domain=MS
    ),
    "RotaryEmbedding offset": one(
        "RotaryEmbedding", r(2, 3, 16), np.array([1]), fixed(r(8, 4)), fixed(r(8, 4)), domain=MS, interleaved=1
    ),
    "MatMulNBits": one("MatMulNBits", r(2, 20), BITS, fixed(np.abs(r(6))), **PACKED),
    "MatMulNBits zero points": one(
        "MatMulNBits", r(2, 20), BITS, fixed(np.abs(r(6))), np.array([0x58, 0x31, 0x77], np.uint8), **PACKED
    ),
}

REFERENCE = {
    **{
        f"LpPool {p}": one("LpPool", r(1, 2, 5, 5), kernel_shape=[2, 3], p=p, strides=[2, 1], pads=[1, 0, 0, 1])
        for p in (1, 2, 3)
    },
    "LpPool cut": one("LpPool", r(1, 2, 6, 5), kernel_shape=[3, 2], p=2, strides=[2, 2], ceil_mode=1),
    "LpPool cut, padded": one(
        "LpPool", r(1, 2, 6, 6), kernel_shape=[3, 3], p=3, strides=[2, 2], pads=[1, 0, 0, 0], ceil_mode=1
    ),
    "GlobalLpPool": one("GlobalLpPool", r(1, 2, 5, 5), p=3),
    "FusedConv": one("FusedConv", IMAGES, KERNELS, fixed(r(4)), domain=MS, activation="Relu", pads=[1, 1, 1, 1]),
    "FusedConv sum": one("FusedConv", IMAGES, KERNELS, fixed(r(4)), r(2, 4, 3, 3), domain=MS, activation="Relu"),
    "FusedConv slope": one(
        "FusedConv", IMAGES, KERNELS, domain=MS, activation="LeakyRelu", activation_params=[0.2], strides=[2, 2]
    ),
    "FusedConv clip": one("FusedConv", IMAGES, KERNELS, domain=MS, activation="Clip", activation_params=[-1.0, 1.0]),
    "FusedConv HardSigmoid": one(
        "FusedConv", IMAGES, KERNELS, domain=MS, activation="HardSigmoid", activation_params=[0.2, 0.4]
    ),
    "BiasGelu": one("BiasGelu", LINE, fixed(r(4)), domain=MS),
}
"""ONNX Runtime lacks float64 kernels of what these are made of."""

CASES = {**RECURRENT, **SAMPLING, **STANDARD, **SPECTRAL, **FUSED}


@pytest.mark.parametrize("name", CASES)
def test_formula(name: str) -> None:
    rtol = 1e-3 if name.startswith("MatMulNBits") else 1e-4 if name.startswith("GridSample") else 2e-5
    check_written(CASES[name], rtol=rtol)


@pytest.mark.parametrize("name", REFERENCE)
def test_formula_in_the_reference(name: str) -> None:
    check_written(REFERENCE[name], wide=evaluator)


@pytest.mark.parametrize("op", BATCH_FIRST)
def test_batch_first(op: str) -> None:
    check_written(BATCH_FIRST[op], kernel=False)


def test_center_crop_pad() -> None:
    check_written(one("CenterCropPad", r(3, 5, 4), np.array([4, 2]), axes=[1, 2]), kernel=False)


def test_packed_attention() -> None:
    check_written(one("MultiHeadAttention", r(2, 3, 2, 3, 4), **HEADS), kernel=False)


def test_every_formula_of_real_numbers_has_a_case() -> None:
    cases = (*CASES.values(), *REFERENCE.values(), *test_written_learning.CASES.values())
    tried = {node.op_type for case in cases for node in case.nodes} | {"CenterCropPad"}
    others = {"BiasAdd", "BiasDropout", "BiasSplitGelu", "FusedMatMulActivation", "GemmFastGelu", "GroupNorm"}
    others |= {"NhwcConv", "NhwcFusedConv", "TransposeMatMul", "DequantizeLinear"}  # no kernel on a CPU
    blocked = "com.microsoft.nchwc"  # test_blocked.py
    real = {op for (domain, op), each in FOUND.items() if not each.rounds and domain != blocked}
    assert sorted(real - tried - others) == []
