"""The shortest way to a hyperplane inside a box: what FAB takes its steps from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.arithmetic import Norm

_AT_ONCE = 1 << 22
"""Values that are worked on at a time, so that large images do not take gigabytes."""


def to_hyperplane(
    x: NDArray[np.float64],
    w: NDArray[np.float64],
    c: NDArray[np.float64],
    *,
    norm: Norm,
    bounds: tuple[float, float],
) -> NDArray[np.float64]:
    """Return the smallest move from points in a box onto hyperplanes, inside the box.

    Exactly the solution of: minimise ||d|| subject to <w, d> = c and low <= x + d <= high (Croce & Hein 2020, arXiv
    1907.02044: the projection onto a hyperplane with box constraints). Where the hyperplane does not meet
    the box: to the corner that is next to it.

    Every value moves towards the hyperplane until it meets its bound: d_i = sign(c w_i) min(t p_i, room_i), with p_i =
    1 for Linf and |w_i| for L2, by the conditions of Karush, Kuhn and Tucker. So t solves sum |w_i| min(t p_i, room_i)
    = |c|, where the left side is concave and piecewise linear: Newton's method from below ends at the solution, once no
    further value meets its bound.

    Args:
        x: (N, D) points, inside the bounds.
        w: (N, D) normals of the hyperplanes, finite.
        c: (N,) how far away they are, as <w, d>.
        norm: What is smallest.
        bounds: Smallest and largest value of the box.

    Returns:
        (N, D) the moves.
    """
    rows = max(_AT_ONCE // max(x.shape[1], 1), 1)
    parts = [
        _moves(x[i : i + rows], w[i : i + rows], c[i : i + rows], norm, bounds) for i in range(0, max(len(x), 1), rows)
    ]
    return np.concatenate(parts)


def _moves(
    x: NDArray[np.float64], w: NDArray[np.float64], c: NDArray[np.float64], norm: Norm, bounds: tuple[float, float]
) -> NDArray[np.float64]:
    direction = np.sign(w) * np.where(c < 0, -1.0, 1.0)[:, None]
    weight = np.abs(w)
    room = np.where(direction > 0, bounds[1] - x, x - bounds[0])
    pace = weight if norm == "l2" else np.ones_like(weight)
    gain, most = weight * pace, weight * room
    free = weight > 0
    while True:
        rate = (gain * free).sum(axis=1)
        left = np.maximum(np.abs(c) - (most * ~free).sum(axis=1), 0)
        time = np.divide(left, rate, out=np.zeros_like(left), where=rate > 0)[:, None]
        still = free & (time * pace < room)
        if (still == free).all():
            return np.asarray(direction * np.where(free, time * pace, room))
        free = still
