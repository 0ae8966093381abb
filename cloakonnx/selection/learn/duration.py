"""How long learning takes at most: a step and a gradient, measured, times how many there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from cloakonnx.attacks.random import Stream
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.data.samples import Dataset
from cloakonnx.gradient.losses import Loss
from cloakonnx.selection.learn.choosing import MOST_ATTACKED, MOST_TRIED, ROBUST_STEPS
from cloakonnx.selection.learn.objective import Objective
from cloakonnx.selection.learn.places import first_masks
from cloakonnx.selection.learn.recipe import Recipe
from cloakonnx.selection.learn.settled import placed, settled

_PROBE = 50
"""Samples of a probe."""

_TRIALS = 2
"""How often each epoch's masks are tried on the select part: when it ends, and in the end."""


def learning_seconds(
    classifier: Classifier,
    dataset: Dataset,
    recipe: Recipe,
    *,
    samples: int,
    select: int,
    taps: Sequence[str] = (),
    layers: Sequence[str] = (),
) -> float:
    """Measure on noise how many seconds learning takes at most.

    Args:
        classifier: The classifier.
        dataset: What it would learn on; only the shape of a sample is taken.
        recipe: The settings.
        samples: How many it would learn on.
        select: How many it would choose on.
        taps: Tensors to mask, as learning takes them.
        layers: And globs over layers.

    Raises:
        TapError, ModelError, DifferentiationError: as learning does.
    """
    recipe = settled(recipe, dataset, count=samples)
    assert recipe.epochs is not None  # settled
    granularity = placed(recipe.granularity, at_taps=bool(taps))
    masked = MaskedClassifier(classifier, first_masks(classifier.model, granularity, taps=taps, layers=layers))
    masked.prepare(dataset.fitted_to(masked))
    count = masked.fixed_batch or min(_PROBE, recipe.batch_size)
    low, high = dataset.preprocessing.bounds
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, (count, *dataset.sample_shape)).astype(np.float32)
    y = np.zeros(count, np.int64)
    objective = Objective(masked, classifier, recipe, dataset.sample_shape)
    stream = Stream.of(recipe.seed, "estimate", 0, np.arange(count))

    def learning_step() -> None:
        """Change the masks first: where they are on weights, the session is made anew."""
        masked.weights = {key: weights * rng.uniform(0.9, 1.1) for key, weights in masked.weights.items()}
        objective(x, y, eps=recipe.eps, stream=stream)

    step = _timed(learning_step) / count
    gradient = _timed(lambda: masked.answer(x, y, loss=Loss.CE.climbed)) / count
    forward = _timed(lambda: masked.logits(x)) / count
    trial = select * forward + min(select, MOST_ATTACKED) * ROBUST_STEPS * gradient
    return recipe.epochs * samples * step + min(recipe.epochs, MOST_TRIED) * _TRIALS * trial


def _timed(run: Callable[[], object]) -> float:
    run()  # the first run is slow
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
