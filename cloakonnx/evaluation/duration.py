"""How long an evaluation would take, before there is a hardened model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cloakonnx.attacks import Victim
from cloakonnx.data import Dataset
from cloakonnx.evaluation.comparison import Comparison
from cloakonnx.evaluation.plan import CONTROL_MASKS, plan
from cloakonnx.graph import Mask, Model, Tap, hardened
from cloakonnx.runtime import Provider


def evaluation_seconds(
    model: Model,
    dataset: Dataset,
    *,
    taps: Sequence[Tap],
    samples: int,
    eps: Sequence[float],
    attack: str = "quick",
    norm: Literal["linf", "l2"] = "linf",
    provider: Provider,
    batch_size: int = 64,
    input_name: str | None = None,
    output_name: str | None = None,
) -> float:
    """Measure on noise how many seconds an evaluation takes at most, the sanity checks left out.

    Args:
        model: The model without masks.
        dataset: What it would be evaluated on; only the shape of a sample is taken.
        taps: Where masks will be; those of 1, which it measures with, cost what any do.
        samples: How many it would be evaluated on.
        eps: Radii of the balls.
        attack: A preset (``quick``) or an attack's name.
        norm: The balls' norm.
        provider: Where it runs.
        batch_size: Samples at a time.
        input_name: The data input, where there are several.
        output_name: The class scores, where there are several outputs.

    Raises:
        OptionError: an attack that makes no sense.
        DifferentiationError: an op without a gradient, under an attack that needs one.
    """
    plans = [plan(attack, eps=each, norm=norm) for each in eps]
    ones = [Mask(tap.name, np.ones(tap.features, np.float32), tap.feature_axis) for tap in taps if tap.features]

    def victim(of: Model) -> Victim:
        return Victim(of, provider=provider, input_name=input_name, output_name=output_name, **dataset.feed)

    masked = victim(hardened(model, ones) if ones else model)
    comparison = Comparison(masked, victim(model), [masked] * CONTROL_MASKS, plans, norm=norm, seed=0)
    axis = dataset.arrangement.channel_axis
    return samples * comparison.seconds_per_sample(dataset.sample_shape, batch_size=batch_size, channel_axis=axis)
