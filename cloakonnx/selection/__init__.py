"""From scores, or from gradients, to masks.

What the other packages may use is named here.
"""

from cloakonnx.selection.duration import learning_seconds
from cloakonnx.selection.learning import Progress, is_photographic, learn
from cloakonnx.selection.memory import forget
from cloakonnx.selection.places import places
from cloakonnx.selection.recipe import Recipe
from cloakonnx.selection.rounds import GreedyProgress, select_greedy
from cloakonnx.selection.topk import DEFAULT_AMOUNT, Amount, Count, Share, Threshold, ranking, select
from cloakonnx.selection.within import within_budget

__all__ = [
    "DEFAULT_AMOUNT",
    "Amount",
    "Count",
    "GreedyProgress",
    "Progress",
    "Recipe",
    "Share",
    "Threshold",
    "forget",
    "is_photographic",
    "learn",
    "learning_seconds",
    "places",
    "ranking",
    "select",
    "select_greedy",
    "within_budget",
]
