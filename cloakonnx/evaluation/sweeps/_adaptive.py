"""Adaptive accuracy under several masks from one attack session: the mask is an input of the backward graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.batch import Batch, LabelledBatch
from cloakonnx.data.samples import Pairs
from cloakonnx.engine.folder import Checkpoints
from cloakonnx.evaluation.comparison import Comparison
from cloakonnx.evaluation.controls import CONTROL_MASKS, shuffled
from cloakonnx.evaluation.estimate import Estimate
from cloakonnx.evaluation.keeping import Keeper, model_digests
from cloakonnx.evaluation.outcomes import Found
from cloakonnx.evaluation.results import AtEps
from cloakonnx.evaluation.sweeps._amounts import labelled
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.records import installed_versions
from cloakonnx.statistics import Paired


class AttackedMasks:
    """A model under attack with each of some masks, beside itself without one.

    Args:
        classifier: The classifier without a mask.
        pairs: Clean and adversarial samples.
        masks: Of features, all at one tap.
        plans: The attacks, one plan for each eps.
        norm: Norm of the eps balls.
        seed: Random seed.
        batch_size: Samples at a time.

    Raises:
        DifferentiationError: an op without a gradient, under an attack that needs one.
    """

    def __init__(
        self,
        classifier: Classifier,
        pairs: Pairs,
        masks: Sequence[Mask],
        plans: Sequence[tuple[Attack, ...]],
        *,
        norm: Literal["linf", "l2"],
        seed: int,
        batch_size: int,
    ) -> None:
        self._classifier, self._pairs, self._masks, self._plans = classifier, pairs, masks, plans
        self._seed, self._batch_size = seed, batch_size
        none = Mask(masks[0].tap, np.ones_like(masks[0].weights), masks[0].feature_axis)
        bare = classifier.with_masks([none])
        victim = Victim(bare, pairs.clean.fitted_to(bare))
        self._victim, self.classes = victim, victim.classes
        self._comparisons = [
            Comparison(
                victim.of(bare.with_masks([mask])),
                victim.of(bare.with_masks([none])),
                [victim.of(bare.with_masks(shuffled([mask], seed, i))) for i in range(CONTROL_MASKS)],
                plans,
                norm=norm,
                seed=seed,
            )
            for mask in masks
        ]
        self.control: Mapping[str, Any] = self._comparisons[0].control_settings()
        """Settings of the control attack, but for what depends on eps."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Which attacks are not made, in words."""
        return self._comparisons[0].notes()

    def checkpoints(self, output: Path) -> Checkpoints:
        """Return where finished batches lie until the output is written."""
        record = {
            "model": model_digests(self._classifier.model),
            "masks": [[mask.tap, mask.feature_axis, mask.removed] for mask in self._masks],
            "plans": [[settings.record() for settings in attacks] for attacks in self._plans],
            "control": self.control,
            "control_masks": CONTROL_MASKS,
            "seed": self._seed,
            "batch_size": self._batch_size,
            "input": self._classifier.input_name,
            "output": self._classifier.output_name,
            "preprocessing": asdict(self._pairs.clean.preprocessing),
            "provider": self._classifier.provider.name,
            "versions": installed_versions(),
        }
        return Checkpoints(output, record, run="a sweep")

    def estimate(self) -> Estimate:
        """Measure how long the attacks take at most, for all masks."""
        dataset = self._pairs.clean
        seconds = self._comparisons[0].seconds_per_sample(
            dataset.sample_shape,
            batch_size=self._batch_size,
        )
        return Estimate(seconds * len(self._comparisons), dataset.count(), len(self._plans), CONTROL_MASKS)

    def run(
        self,
        checkpoints: Checkpoints | None,
        *,
        resume: bool,
        on_estimate: Callable[[Estimate], None] | None,
        on_progress: Callable[[float], None],
    ) -> list[tuple[Paired, tuple[AtEps, ...]]]:
        """Attack all samples with every mask; return for each what became of the clean samples, and under attack.

        Args:
            checkpoints: Where to keep finished batches, or None.
            resume: Whether to go on with those that are there.
            on_estimate: Called before the attacks with what they take at most.
            on_progress: Called with the number of samples that are done, all masks together, with fractions in between.

        Raises:
            DataError: a label that is no class of the model, or other samples than those that are resumed.
            OutputError: what is to be resumed was left by other settings.
        """
        dataset = self._pairs.clean
        keeper = Keeper(checkpoints, name=dataset.source.name)
        parts: list[list[Found]] = [[] for _ in self._masks]
        done = 0
        with nullcontext() if checkpoints is None else checkpoints.opened(resume=resume):
            if on_estimate is not None:
                on_estimate(self.estimate())
            for each in labelled(self._pairs, self._batch_size):
                batch = Batch(each.pairs.clean, each.y, each.pairs.start)
                self._victim.check_labels(each.y)
                samples = LabelledBatch(batch.x, each.y, batch.indices)
                for comparison, found in zip(self._comparisons, parts, strict=True):
                    tell = partial(_tell, on_progress, done, len(batch.x))
                    found.append(keeper.found(batch, partial(comparison.on, samples, tell)))
                    done += len(batch.x)
                    on_progress(done)
        radii = [attacks[0].eps for attacks in self._plans]
        joined = map(Found.joined, parts)
        return [(Paired.of(found.clean, found.clean_baseline), found.results(radii)) for found in joined]


def _tell(on_progress: Callable[[float], None], done: int, samples: int, share: float) -> None:
    on_progress(done + share * samples)
