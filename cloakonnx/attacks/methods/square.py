"""Square: black-box random search on scores, no gradients (Andriushchenko et al. 2020, arXiv 1912.00049)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.base import Attack, attack, setting
from cloakonnx.attacks.counts import Counts
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.run import Run

P_INIT = 0.8
"""Share of pixels that the first squares change, as in AutoAttack."""

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which the share of changed pixels is halved (section 5, "initialisation and schedule")."""

_DRAWS = 8
"""Draws that are reserved for a query."""


@attack("square")
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search over squares that lowers the margin; samples leave once they are fooled.

    With ``early_stop`` a sample that is misclassified as it is stays as it is; a fooled one always leaves.

    Attributes:
        max_iter: Queries per restart.
        restarts: Random starts.
        targeted: Whether the labels are the classes to reach.
        p_init: Share of pixels that the first squares change.

    Source: Andriushchenko et al. 2020, arXiv 1912.00049.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.attacks.Square(eps=2 / 255, max_iter=500).name
        'square'
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    max_iter: int = setting(5000, "Steps per restart.", least=1)
    restarts: int = setting(1, "Random starts.", least=1)
    targeted: bool = setting(False, "Whether the labels are the classes to reach.")
    p_init: float = setting(P_INIT, "Share of pixels that the first squares change.", fixed=True)

    def cost(self, classes: int) -> Counts:
        """Return a query of the clean input and one for each proposal."""
        return Counts(queries=1 + self.restarts * self.max_iter)

    def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None:
        """Search once."""
        canvas = _Canvas(run.clean.shape[1:], channels_last=run.victim.classifier.channel_axis == 3)
        stream = run.stream(self.seed, f"square-{self.norm}", number)
        _Search(run, canvas, stream, eps=self.eps, norm=self.norm).go(self.max_iter, self.p_init)


def _margin(run: Run, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N,) the label's logit less the largest other (targeted: the reverse); the attack has won below 0.

    A tie counts as won where the label is not the first of the largest: what prediction by argmax does.
    """
    logits = run.victim.logits(x)
    margin = run.victim.task.margin(logits, run.y[run.active])
    won = run.fooled(logits)
    signed = -margin if run.targeted else margin
    margin = np.where(won, np.fmin(signed, -np.finfo(np.float32).tiny), np.fmax(signed, 0))
    return np.asarray(margin, np.float32)


class _Canvas:
    """Shows samples of any layout as (N, C, H, W), without copying."""

    def __init__(self, shape: tuple[int, ...], *, channels_last: bool) -> None:
        self._channels_last = len(shape) == 3 and channels_last
        self._shape = shape
        if len(shape) == 3:
            self.c, self.h, self.w = (shape[2], *shape[:2]) if self._channels_last else shape
        else:
            self.c, self.h, self.w = 1, 1, int(np.prod(shape))

    def view(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a batch as (N, C, H, W)."""
        return x.transpose(0, 3, 1, 2) if self._channels_last else x.reshape(len(x), self.c, self.h, self.w)

    def back(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, C, H, W) in the model's layout."""
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if self._channels_last else x.reshape(len(x), *self._shape))

    def side(self, share: float, *, least: int = 1) -> tuple[int, int]:
        """Return height and width of the window that covers a share of the pixels; vectors get an interval."""
        if self.h == 1:
            return 1, min(max(round(share * self.w), least), max(self.w - 1, 1))
        side = max(round(math.sqrt(share * self.h * self.w)), least)
        return min(side, max(self.h - 1, 1)), min(side, max(self.w - 1, 1))


class _Search:
    """One restart."""

    def __init__(self, run: Run, canvas: _Canvas, stream: Stream, *, eps: float, norm: str) -> None:
        self.run, self.canvas, self.stream, self.eps, self.norm = run, canvas, stream, eps, norm
        self.x = canvas.view(run.clean[run.active]).copy()
        self.best = self.x
        self.margin = np.zeros(len(self.x), np.float32)

    def go(self, max_iter: int, p_init: float) -> None:
        """Run the random search for `max_iter` queries."""
        for query in range(max_iter):
            if query == 0:
                proposal = self._stripes() if self.norm == "linf" else self._grid()
            else:
                share = p_init / 2 ** sum(query / max_iter * 10_000 > h for h in _HALVINGS)
                proposal = self._square(share, query) if self.norm == "linf" else self._windows(share, query)
            image = self.canvas.back(proposal)
            margin = _margin(self.run, image)
            better = (margin < self.margin) | (query == 0)
            self.best = np.where(better[:, None, None, None], proposal, self.best)
            self.margin = np.where(better, margin, self.margin)
            done = margin < 0
            if done.any():
                self.run.won(done, image)
                self._keep(self.run.drop(done))
            if not len(self.x):
                return
        self.run.ended(self.canvas.back(self.best))

    def _keep(self, stay: NDArray[np.int64]) -> None:
        self.x, self.best, self.margin = self.x[stay], self.best[stay], self.margin[stay]
        self.stream = self.stream.take(stay)

    def _clipped(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.asarray(np.clip(x, *self.run.victim.bounds), np.float32)

    def _stripes(self) -> NDArray[np.float32]:
        """Vertical stripes of +-eps, one pixel wide (section 5, Linf)."""
        signs = self.stream.signs((self.canvas.c, 1, self.canvas.w))
        return self._clipped(self.x + np.float32(self.eps) * signs)

    def _square(self, share: float, query: int) -> NDArray[np.float32]:
        """A window at random moved by +-2 eps in each channel, and back into the ball (algorithm 2)."""
        height, width = self.canvas.side(share)
        window = self._window(height, width, query * _DRAWS)
        signs = self.stream.signs((self.canvas.c, 1, 1), draw=query * _DRAWS + 2)
        moved = self.best + window * (np.float32(2 * self.eps) * signs)
        return self._clipped(np.clip(moved, self.x - np.float32(self.eps), self.x + np.float32(self.eps)))

    def _corner(self, height: int, width: int, draw: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return (
            self.stream.integers(self.canvas.h - height + 1, draw=draw),
            self.stream.integers(self.canvas.w - width + 1, draw=draw + 1),
        )

    def _window(self, height: int, width: int, draw: int) -> NDArray[np.bool_]:
        """Return (N, 1, H, W): whether a pixel is in each sample's own window."""
        top, left = self._corner(height, width, draw)
        rows, columns = np.arange(self.canvas.h)[None], np.arange(self.canvas.w)[None]
        in_rows = (rows >= top[:, None]) & (rows < top[:, None] + height)
        in_columns = (columns >= left[:, None]) & (columns < left[:, None] + width)
        return in_rows[:, None, :, None] & in_columns[:, None, None, :]

    def _grid(self) -> NDArray[np.float32]:
        """A grid of squares with the shape of eta in random signs, scaled to the ball (section 5, L2)."""
        height, width = max(self.canvas.h // 5, 1), max(self.canvas.w // 5, 1)
        down, across = self.canvas.h // height, self.canvas.w // width
        signs = self.stream.signs((self.canvas.c, down, across))
        tiled = np.einsum("ncij,hw->ncihjw", signs, _eta(height, width)).reshape(
            len(self.x), self.canvas.c, down * height, across * width
        )
        delta = np.zeros(self.x.shape)
        top, left = (self.canvas.h - down * height) // 2, (self.canvas.w - across * width) // 2
        delta[:, :, top : top + down * height, left : left + across * width] = tiled
        return self._on_ball(delta)

    def _windows(self, share: float, query: int) -> NDArray[np.float32]:
        """Move the norm of one window into another, shaped by eta (algorithm 3)."""
        height, width = self.canvas.side(share, least=3)
        draw = query * _DRAWS
        delta = (self.best - self.x).astype(np.float64)
        rows, columns = self._patch(height, width, draw)
        new, old = delta[rows[0], rows[1], rows[2], columns], self._window(height, width, draw + 2)
        both = self._window(height, width, draw) | old
        flip = self.stream.uniform((), draw=draw + 4)[:, None, None, None] < 0.5
        eta = _eta(height, width)
        shapes = np.where(flip & (height == width), eta.T if height == width else eta, eta)
        signs = self.stream.signs((self.canvas.c, 1, 1), draw=draw + 5)
        change = shapes * signs + new / (1e-12 + _length(new, (2, 3)))
        whole = _length(delta, (1, 2, 3)) ** 2
        budget = np.maximum(self.eps**2 - whole, 0) / self.canvas.c + _length(delta * both, (2, 3)) ** 2
        change *= np.sqrt(budget) / (1e-12 + _length(change, (2, 3)))
        delta[np.broadcast_to(old, delta.shape)] = 0
        delta[rows[0], rows[1], rows[2], columns] = change
        return self._on_ball(delta)

    def _patch(
        self, height: int, width: int, draw: int
    ) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
        """Return indices (N, C, height, width) of each sample's window, the same as :meth:`_window`'s."""
        top, left = self._corner(height, width, draw)
        sample = np.arange(len(self.x))[:, None, None, None]
        channel = np.arange(self.canvas.c)[None, :, None, None]
        row = top[:, None, None, None] + np.arange(height)[None, None, :, None]
        column = left[:, None, None, None] + np.arange(width)[None, None, None, :]
        return (sample, channel, row), column

    def _on_ball(self, delta: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scale to the sphere, and clip to the bounds, which only moves towards x."""
        return self._clipped(self.x + delta * (self.eps / (1e-12 + _length(delta, (1, 2, 3)))))


def _length(x: NDArray[np.floating], axes: tuple[int, ...]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((np.asarray(x, np.float64) ** 2).sum(axis=axes, keepdims=True)))


def _eta(height: int, width: int) -> NDArray[np.float64]:
    """Return the shape of an update: two bumps of opposite sign, one above the other, of length 1 (eq. 2)."""
    if height == 1:
        eta = np.concatenate([_bump(1, width // 2), -_bump(1, width - width // 2)], axis=1)
    else:
        eta = np.concatenate([_bump(height // 2, width), -_bump(height - height // 2, width)])
    return np.asarray(eta / np.sqrt((eta**2).sum()))


def _bump(height: int, width: int) -> NDArray[np.float64]:
    """Sum over k of 1 / (k + 1)^2 on centred rectangles that grow by k on each side."""
    if not height or not width:
        return np.zeros((height, width))
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    distance = np.maximum(np.abs(rows - height // 2), np.abs(columns - width // 2))
    layers = np.arange(max(height, width) // 2 + 1)
    bump = (1.0 / (layers + 1.0) ** 2)[:, None, None] * (distance[None] <= layers[:, None, None])
    total = np.asarray(bump.sum(axis=0))
    return np.asarray(total / np.sqrt((total**2).sum()))
