"""How much longer one model takes than another, timed in alternation, so that a busy machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.declared import fixed_batch
from cloakonnx.runtime.session import Session

SESSIONS, ROUNDS, BLOCK_SECONDS = 9, 6, 0.05
_WARM_UP, _LEAST_CALLS, _OPEN_SIDE = 3, 3, 64


def latency_ratios(
    classifier: Classifier,
    baseline: Classifier,
    *,
    sessions: int = SESSIONS,
    rounds: int = ROUNDS,
    block_seconds: float = BLOCK_SECONDS,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[float, ...]:
    """Return the latency of a model over a baseline's, one ratio for each pair of new sessions.

    Where a session's memory lies matters too, so sessions are made anew, and each pair gives one ratio: the median over
    rounds in which blocks of calls to one and to the other follow each other. Batches have one sample, random with a
    fixed seed, or as many as the model fixes.

    Args:
        classifier: The classifier.
        baseline: What it is compared with; takes the same input.
        sessions: Pairs of sessions.
        rounds: Rounds with each pair.
        block_seconds: How long calls to one model follow each other.
        on_progress: Called with the number of pairs done.

    Raises:
        InferenceError: ONNX Runtime fails.
        ModelError: the input is ambiguous.
    """
    classifier, baseline = classifier.shipped(), baseline.shipped()
    feeds = [_feed(classifier), _feed(baseline)]
    ratios = []
    for number in range(sessions):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        made: dict[int, Session] = {}
        for index in order:
            each = (classifier, baseline)[index]
            made[index] = Session(each.model.proto, each.provider, folder=each.model.folder)
        found = []
        for turn in range(rounds):
            seconds = {index: _block(made[index], feeds[index], block_seconds) for index in order[:: 1 - turn % 2 * 2]}
            found.append(seconds[0] / seconds[1])
        ratios.append(statistics.median(found))
        on_progress(number + 1)
    return tuple(ratios)


def _feed(classifier: Classifier) -> dict[str, NDArray[Any]]:
    entry = classifier.model.input(classifier.input_name)
    sides = [side or _OPEN_SIDE for side in classifier.input_shape or ()]
    size = fixed_batch(classifier.model, classifier.input_name, classifier.batch_axis) or 1
    dtype = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
    values = np.random.default_rng(0).random((size, *sides), np.float32).astype(dtype)
    return {entry.name: np.moveaxis(values, 0, classifier.batch_axis)}


def _block(session: Session, feed: dict[str, NDArray[Any]], seconds: float) -> float:
    """Return the median time of a call in seconds; the first few are not counted."""
    for _ in range(_WARM_UP):
        session.run(feed)
    calls: list[float] = []
    end = time.perf_counter() + seconds
    while len(calls) < _LEAST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(feed)
        calls.append(time.perf_counter() - start)
    return statistics.median(calls)
