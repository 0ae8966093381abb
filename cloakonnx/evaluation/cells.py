"""Numbers as people read them in a table: a share with its interval, a paired difference with its p-value."""

from __future__ import annotations

from fractions import Fraction

from cloakonnx.evaluation.accuracies import Accuracy
from cloakonnx.evaluation.intervals import Interval, Paired, mcnemar_exact, newcombe_paired


def share_cell(accuracy: Accuracy) -> str:
    """Return a share with its interval, in points."""
    return f"{accuracy.value:.1%} {_interval(accuracy.interval)}"


def _interval(interval: Interval) -> str:
    return f"[{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def difference_cells(pairs: Paired) -> tuple[str, str]:
    """Return a paired difference with its interval, in points, and its p-value."""
    p = mcnemar_exact(pairs)
    return (
        f"{pairs.difference * 100:+.1f} {_interval(newcombe_paired(pairs))}",
        "<0.001" if p < 0.001 else f"{p:.3f}",
    )


def eps_text(eps: float) -> str:
    """Return an eps as people write it: 0.1 or 8/255 where it is that, else four digits."""
    if float(f"{eps:.4g}") == eps:
        return f"{eps:.4g}"
    levels = Fraction(eps * 255).limit_denominator(4)
    if levels and abs(float(levels) / 255 - eps) < 1e-9:
        return f"{float(levels):g}/255"
    return f"{eps:.4g}"
