"""How long attacks on their own take: as on the first samples, and at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.cost import most_work, seconds_per_unit
from cloakonnx.attacks.targets import Targets, TargetsLike
from cloakonnx.attacks.victim import Victim
from cloakonnx.attacks.work import checked_works
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.batch import Batch
from cloakonnx.data.samples import Dataset
from cloakonnx.engine.batches import Engine
from cloakonnx.evaluation.estimate import MOST_TRIED, Estimate, Tried, tried_at_most


def estimate_attacks(
    classifier: Classifier,
    dataset: Dataset,
    attacks: Sequence[Attack],
    *,
    targets: TargetsLike | None,
    round_levels: bool,
    batch_size: int,
    engine: Engine,
) -> Estimate:
    """Make attacks on the first samples, and return what they lead to expect of all, and what all take at most.

    Args:
        classifier: The classifier.
        dataset: The samples.
        attacks: The attacks, one for each eps.
        targets: The classes to reach, as :func:`cloakonnx.attack` takes them.
        round_levels: Whether inputs are rounded to levels of 1/255 before they are judged.
        batch_size: Samples at a time.
        engine: Where batches would be handled.

    Raises:
        DataError, OptionError, DifferentiationError: as :func:`cloakonnx.attack` does.
    """
    aims = Targets.of("labels" if targets is None else targets)
    classifier = classifier.shipped().with_threads(engine.threads)
    works, _ = checked_works(classifier, dataset, attacks, round_levels=round_levels, targets=aims)
    victim = Victim(works[0].classifier, dataset.sample_shape)
    attacks = [each.settings for each in works]
    shape = (min(batch_size, _PROBE), *dataset.sample_shape)
    noise = np.random.default_rng(0).uniform(*victim.bounds, shape).astype(np.float32)
    rates = {each.name: seconds_per_unit(victim, each, noise) for each in attacks}
    units = [most_work(each, victim).total for each in attacks]
    most = sum(count * rates[each.name] for each, count in zip(attacks, units, strict=True))
    found = Estimate(
        most,
        dataset.count(),
        len(attacks),
        0,
        models=1,
        batch_size=batch_size,
        workers=engine.workers,
    )
    first = next(iter(dataset.batches(MOST_TRIED)), None)
    if first is None:
        return found
    count = min(tried_at_most(most), first.size)
    batch = Batch(first.x[:count], None if first.y is None else first.y[:count], first.start)
    shallow, deep, shares, right = 0.0, 0.0, [], 0.0
    for work, each, most_units in zip(works, attacks, units, strict=True):
        made = work.start()(batch, lambda share: None)
        standing = int((made.correct & ~made.success).sum())
        early = max(made.queries + made.gradients - standing * most_units, 0) / count
        shallow += early * rates[each.name]
        deep += standing / count * most_units * rates[each.name]
        shares.append(standing / count)
        right = float(made.correct.mean())
    share = float(np.mean(shares))
    tried = Tried(count, right, share, shallow, deep / share if share else 0.0, "the attack")
    return replace(found, tried=tried)


_PROBE = 16
"""Samples that a few steps of an attack are timed on, at most."""
