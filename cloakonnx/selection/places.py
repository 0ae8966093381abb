"""Where masks are learned: taps that were named, that a pattern finds, or the activations that linear layers read."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from cloakonnx.errors import TapError, nearest
from cloakonnx.graph import Model, Tap, activation_taps, find_tap, list_taps, masks_of


def places(model: Model, *, names: Sequence[str] = (), patterns: Sequence[str] = ()) -> list[Tap]:
    """Return the taps to learn masks at, in graph order.

    Args:
        model: The model.
        names: Tensors.
        patterns: Globs (``*``, ``?``, ``[...]``) over the names of all taps. Without names and patterns the taps are
            those of :func:`~cloakonnx.graph.activation_taps`.

    Raises:
        TapError: no such tensor, one that can't carry a mask, a pattern that finds nothing, or no activation at all.
    """
    if not names and not patterns:
        found = activation_taps(model)
        if not found:
            if masks_of(model.proto):
                raise TapError(
                    f"{model.name} is hardened already, and no activation is without a mask; 'cloakonnx strip' gives "
                    "its source"
                )
            raise TapError(
                f"{model.name} has no activation that feeds a Conv, Gemm or MatMul with constant weights; name taps "
                "with --tap or --tap-pattern ('cloakonnx inspect' lists them)"
            )
        return found
    chosen = {name: find_tap(model, name) for name in names}
    taps = {tap.name: tap for tap in list_taps(model)} if patterns else {}
    for pattern in patterns:
        matching = {name: tap for name, tap in taps.items() if fnmatchcase(name, pattern)}
        if not matching:
            raise TapError(f"--tap-pattern {pattern} finds no tap of {model.name}{nearest(pattern, taps)}")
        chosen |= matching
    return sorted(chosen.values(), key=lambda tap: tap.node)
