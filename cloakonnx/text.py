"""Numbers as people write them."""

from __future__ import annotations

import math
from fractions import Fraction


def parse_number(text: str) -> float:
    """Read ``0.03``, ``8/255`` or ``5%``; raises ValueError for anything else."""
    cleaned = text.strip()
    percent = cleaned.endswith("%")
    above, slash, below = cleaned.removesuffix("%").partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except ZeroDivisionError:
        raise ValueError(text) from None
    if not math.isfinite(value):
        raise ValueError(text)
    # Through a fraction, so that 5% is the double nearest to 0.05.
    return float(Fraction(above) / 100) if percent and not slash else value / 100 if percent else value
