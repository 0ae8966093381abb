"""Ops through which no gradient flows.

Zero-gradient ops are piecewise constant in a real argument: a model that has one on its path hides its gradient. The
others make shapes, indices or booleans, where nobody expects one.
"""

from __future__ import annotations

from cloakonnx.gradient.registry import ends
from cloakonnx.graph.index.traits import TRAITS

for _op, _traits in TRAITS.items():
    if _traits.ends is not None:
        ends(_op, _traits.ends[0], until=_traits.ends[1], family="flat")
