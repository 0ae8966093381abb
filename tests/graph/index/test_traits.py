"""The table of traits agrees with onnx, with the registry of gradient rules and with itself."""

from __future__ import annotations

import onnx
import pytest

from cloakonnx.gradient.registry import find
from cloakonnx.graph.fold._rules import RULES
from cloakonnx.graph.index.traits import TRAITS, Kind, Scales, Trait, has

SCHEMAS = {schema.name: schema for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
CONTRIBUTED = {
    "Attention", "BiasGelu", "DynamicQuantizeMatMul", "Embedding", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul",
    "MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QuickGelu", "ReorderOutput", "SimplifiedLayerNormalization",
    "SkipLayerNormalization", "com.microsoft.Gelu",
}  # fmt: skip
"""Ops of ONNX Runtime's domain, or of exporters'."""

NEWER = {"Attention", "RMSNormalization", "Swish"}
"""Older onnx, which the lowest versions have, does not know these."""


def test_every_op_is_one_of_onnx_or_of_the_runtime() -> None:
    assert set(TRAITS) - set(SCHEMAS) <= CONTRIBUTED | NEWER


def test_every_row_says_something_and_stands_in_its_place() -> None:
    names = [name.rpartition(".")[2].lower() for name in TRAITS]
    assert names == sorted(names)
    assert all(each.flags or each.scales or each.ends for each in TRAITS.values())


@pytest.mark.parametrize("op", TRAITS)
def test_kinds_are_those_of_the_registry(op: str) -> None:
    entry, ends = find("", op), TRAITS[op].ends
    if ends is not None:
        assert entry is not None and (entry.kind, entry.until, entry.rule) == (*ends, None)
        assert ends[0] is not Kind.RULE
    elif entry is not None:
        assert entry.rule is not None


def test_each_way_of_scales_has_a_rule() -> None:
    assert set(RULES) == set(Scales) == {each.scales for each in TRAITS.values()} - {None}


@pytest.mark.parametrize("op", [op for op in TRAITS if op in SCHEMAS])
def test_types_of_outputs_are_those_of_the_schema(op: str) -> None:
    """What always gives int64 or booleans is marked, where the builder emits it; and what is marked does."""
    types = {kind for schema in [SCHEMAS[op]] for output in schema.outputs[:1] for kind in output.types}
    if has(op, Trait.GIVES_BOOLEANS):
        assert types == {"tensor(bool)"}
    if has(op, Trait.GIVES_INDICES):
        assert types == {"tensor(int64)"}


def test_traits_that_imply_others() -> None:
    for op, each in TRAITS.items():
        if has(op, Trait.VIEWS):
            assert each.flags & Trait.LAYOUT == Trait.LAYOUT, op
        if has(op, Trait.MOVES):
            assert has(op, Trait.LINEAR) and has(op, Trait.CARRIES), op
        if has(op, Trait.SUM | Trait.AFFINE):
            assert has(op, Trait.AFFINE), op
        assert not (has(op, Trait.CHANNELS_FIRST) and has(op, Trait.FEATURES_LAST)), op


def test_an_op_that_is_not_there_has_no_trait() -> None:
    assert not any(has("NoSuchOp", trait) for trait in Trait)
