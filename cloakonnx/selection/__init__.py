"""From scores to masks.

What the other packages may use is named here.
"""

from cloakonnx.selection.topk import DEFAULT_AMOUNT, Amount, Count, Share, Threshold, ranking, select

__all__ = ["DEFAULT_AMOUNT", "Amount", "Count", "Share", "Threshold", "ranking", "select"]
