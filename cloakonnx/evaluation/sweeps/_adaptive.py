"""Adaptive accuracy under several masks from one attack session: the mask is an input of the backward graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cloakonnx.attacks.settings import Settings
from cloakonnx.attacks.victim import Victim
from cloakonnx.data.batch import Batch
from cloakonnx.engine.folder import Checkpoints
from cloakonnx.evaluation.comparison import Comparison
from cloakonnx.evaluation.controls import CONTROL_MASKS, shuffled
from cloakonnx.evaluation.estimate import Estimate
from cloakonnx.evaluation.keeping import Keeper, model_digests
from cloakonnx.evaluation.outcomes import Found
from cloakonnx.evaluation.results import AtEps
from cloakonnx.evaluation.sweeps._amounts import Setup
from cloakonnx.evaluation.trial import Samples
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.records import installed_versions
from cloakonnx.statistics import Paired


class Attacked:
    """A model under attack with each of some masks, beside itself without one.

    Args:
        setup: The model and the samples.
        masks: Of features, all at one tap.
        plans: The attacks, one plan for each eps.
        norm: Of the balls.

    Raises:
        DifferentiationError: an op without a gradient, under an attack that needs one.
    """

    def __init__(
        self,
        setup: Setup,
        masks: Sequence[Mask],
        plans: Sequence[tuple[Settings, ...]],
        *,
        norm: Literal["linf", "l2"],
    ) -> None:
        self._setup, self._masks, self._plans = setup, masks, plans
        dataset = setup.pairs.clean
        none = Mask(masks[0].tap, np.ones_like(masks[0].weights), masks[0].feature_axis)
        victim = Victim(
            setup.model,
            provider=setup.provider,
            input_name=setup.input_name,
            output_name=setup.output_name,
            masks=[none],
            **dataset.feed,
        )
        self._victim, self.classes = victim, victim.classes
        self._comparisons = [
            Comparison(
                victim.masked([mask]),
                victim.masked([none]),
                [victim.masked(shuffled([mask], setup.seed, i)) for i in range(CONTROL_MASKS)],
                plans,
                norm=norm,
                seed=setup.seed,
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
            "model": model_digests(self._setup.model),
            "masks": [[mask.tap, mask.feature_axis, mask.removed] for mask in self._masks],
            "plans": [[settings.as_dict() for settings in attacks] for attacks in self._plans],
            "control": self.control,
            "control_masks": CONTROL_MASKS,
            "seed": self._setup.seed,
            "batch_size": self._setup.batch_size,
            "input": self._victim.input_name,
            "output": self._victim.output_name,
            "preprocessing": asdict(self._setup.pairs.clean.preprocessing),
            "provider": self._setup.provider.name,
            "versions": installed_versions(),
        }
        return Checkpoints(output, record, run="a sweep")

    def estimate(self) -> Estimate:
        """Measure how long the attacks take at most, for all masks."""
        dataset = self._setup.pairs.clean
        seconds = self._comparisons[0].seconds_per_sample(
            dataset.sample_shape,
            batch_size=self._setup.batch_size,
            channel_axis=dataset.arrangement.channel_axis,
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
        dataset = self._setup.pairs.clean
        keeper = Keeper(checkpoints, name=dataset.source.name)
        parts: list[list[Found]] = [[] for _ in self._masks]
        done = 0
        with nullcontext() if checkpoints is None else checkpoints.opened(resume=resume):
            if on_estimate is not None:
                on_estimate(self.estimate())
            for labelled in self._setup.batches():
                batch = Batch(labelled.pairs.clean, labelled.y, labelled.pairs.start)
                self._victim.check_labels(labelled.y)
                indices = np.arange(batch.start, batch.start + len(batch.x))
                samples = Samples(batch.x, labelled.y, indices, dataset.arrangement.channel_axis)
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
