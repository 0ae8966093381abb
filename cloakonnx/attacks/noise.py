"""Random noise in the ball: the start of iterative attacks, and a control: an attack has to beat it by far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks._run import Adversarial, Run, check_settings
from cloakonnx.attacks.arithmetic import Norm
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.victim import Victim


def inside_ball(
    stream: Stream, x: NDArray[np.float32], *, eps: float, norm: Norm, draw: int = 0
) -> NDArray[np.float32]:
    """Return x plus uniform noise in the cube (Linf), or in the ball (L2: uniform direction, radius u^(1/d) eps)."""
    shape = x.shape[1:]
    if norm == "linf":
        noise = (2 * stream.uniform(shape, draw=draw) - 1) * eps
    else:
        direction = stream.normal(shape, draw=draw).reshape(len(x), -1)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        radius = eps * stream.uniform((1,), draw=draw + 1) ** (1 / direction.shape[1])
        noise = (direction * radius).reshape(x.shape)
    moved: NDArray[np.float32] = (x + noise).astype(np.float32)
    return moved


def on_sphere(stream: Stream, x: NDArray[np.float32], *, eps: float, norm: Norm) -> NDArray[np.float32]:
    """Return x plus noise of full size: uniform scaled until its largest value is eps (Linf), or a direction (L2)."""
    shape = x.shape[1:]
    noise = 2 * stream.uniform(shape) - 1 if norm == "linf" else stream.normal(shape)
    flat = noise.reshape(len(x), -1)
    size = np.abs(flat).max(axis=1) if norm == "linf" else np.linalg.norm(flat, axis=1)
    scaled = flat * (eps / np.maximum(size, 1e-12))[:, None]
    moved: NDArray[np.float32] = (x + scaled.reshape(x.shape)).astype(np.float32)
    return moved


def noise(
    victim: Victim,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    eps: float,
    norm: Norm = "linf",
    restarts: int = 1,
    targeted: bool = False,
    early_stop: bool = True,
    seed: int = 0,
    samples: NDArray[np.int64] | None = None,
) -> Adversarial:
    """Random noise of size eps: signs (Linf) or a direction (L2), clipped to the bounds.

    Args:
        victim: The classifier.
        x: (N, ...) float32 pixels in the model's layout.
        y: (N,) labels; targeted: the classes to reach.
        eps: Size of the noise, in pixel space.
        norm: Of the noise.
        restarts: How many draws; the last one stands where none fools.
        targeted: Whether y are targets.
        early_stop: Whether a sample that is misclassified as it is stays as it is.
        seed: Of the noise.
        samples: (N,) indices of the samples in the whole data; 0 to N - 1 where None.

    Raises:
        OptionError: eps or restarts that make no sense.
    """
    check_settings(victim, x, eps=eps, norm=norm, restarts=restarts)
    victim.check_labels(y)
    indices = np.arange(len(x)) if samples is None else samples
    run = Run.of(victim, x, y, targeted=targeted, early_stop=early_stop)
    for restart in range(restarts):
        rows = run.active
        if not len(rows):
            break
        stream = Stream.of(seed, "noise", restart, indices[rows])
        moved = _noisy(stream, x[rows], eps, norm, victim.bounds)
        done = victim.task.fooled(victim.logits(moved), y[rows], targeted=targeted)
        run.won(done, moved)
        run.ended(moved)
        if early_stop:
            run.drop(done)
    return run.result()


def _noisy(
    stream: Stream, x: NDArray[np.float32], eps: float, norm: Norm, bounds: tuple[float, float]
) -> NDArray[np.float32]:
    if norm == "linf":
        moved = x + stream.signs(x.shape[1:]) * np.float32(eps)
    else:
        moved = on_sphere(stream, x, eps=eps, norm=norm)
    return np.clip(moved, *bounds).astype(np.float32)
