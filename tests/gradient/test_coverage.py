"""The registry and what is written about it."""

from __future__ import annotations

import runpy
from pathlib import Path

import onnx
import pytest

from cloakonnx.gradient.registry import Entry, entries, rule
from cloakonnx.graph.decompose.registry import decompositions
from cloakonnx.graph.index.traits import Kind

from . import test_rules

PAGE = Path(__file__).parents[2] / "docs" / "op-coverage.md"
NEWEST = 28
"""The newest opset that any rule may name; older onnx, which the lowest versions have, does not know all of them."""

PROMISED = """
Add Sub Mul Div Neg Sum Max Min Relu LeakyRelu PRelu Elu Selu Softplus Clip Sigmoid HardSigmoid HardSwish Tanh Gelu Erf
Exp Log Sqrt Pow Reciprocal Abs Where Identity Dropout Cast Softmax LogSoftmax Gemm MatMul Conv ConvTranspose
BatchNormalization InstanceNormalization LayerNormalization LRN MaxPool AveragePool GlobalAveragePool GlobalMaxPool
ReduceMean ReduceSum ReduceMax ReduceL2 Flatten Reshape Squeeze Unsqueeze Transpose Concat Split Slice Gather Expand
Tile Pad DepthToSpace Resize
"""


def test_page_is_what_the_registry_says() -> None:
    made = runpy.run_path(str(PAGE.with_name("generate.py")))
    assert PAGE.read_text() == made["table"](), "run: python docs/generate.py"
    attacks = PAGE.with_name("attacks.md").read_text()
    assert attacks == made["with_attacks"](attacks), "run: python docs/generate.py"


def test_promised_ops_have_rules() -> None:
    ruled = {entry.op for entry in entries() if entry.kind is Kind.RULE and not entry.domain}
    assert sorted(set(PROMISED.split()) - ruled) == []


@pytest.mark.parametrize("entry", [e for e in entries() if not e.domain], ids=lambda e: e.op)
def test_versions_are_real(entry: Entry) -> None:
    versions = {
        s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == entry.op and not s.domain
    }
    if entry.op == "SimplifiedLayerNormalization":
        pytest.skip("ONNX Runtime's own, in the default domain")
    assert entry.until <= NEWEST
    if entry.until > onnx.defs.onnx_opset_version():
        pytest.skip(f"this onnx knows no opset {entry.until}")
    assert entry.until in versions
    assert entry.since <= entry.until


def test_every_rule_has_a_case() -> None:
    elsewhere = {
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "GroupNormalization",
        "CastLike",
        "If",
        "Loop",
        "Scan",
        "DequantizeLinear",
    }
    newer = {"Swish", "RMSNormalization"}  # onnxruntime 1.31 and older onnx lack them or their kernels
    tried = {node.op_type for case in test_rules.CASES.values() for node in case.nodes}
    written = {each.op for each in decompositions()}  # see test_written and test_written_learning
    ruled = {entry.op for entry in entries() if entry.kind is Kind.RULE and not entry.domain} - written
    assert sorted(ruled - tried - elsewhere - newer) == []


def test_an_op_is_registered_once() -> None:
    with pytest.raises(ValueError, match="Relu is registered twice"):
        rule("Relu", until=14)(lambda s: iter(()))
