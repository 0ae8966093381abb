"""What a sweep is made of, ready before its pass over the images; and what it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, Unpack

import numpy as np

from cloakonnx.attacks.ball import radii_of
from cloakonnx.attacks.cost import seconds_of
from cloakonnx.attacks.presets import Names, PlanSettings, check_eps, plan
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.reading import first_doubts, reading
from cloakonnx.data.given import Pairs
from cloakonnx.data.samples import FittedPairs
from cloakonnx.engine.batches import Engine
from cloakonnx.engine.choice import default_engine
from cloakonnx.engine.shards.part import engine_or
from cloakonnx.errors import OptionError
from cloakonnx.evaluation.compared import Conditions
from cloakonnx.evaluation.estimate import MOST_TRIED, Estimate
from cloakonnx.evaluation.sweeps._adaptive import AttackedMasks, MaskedWork
from cloakonnx.evaluation.sweeps._amounts import attacked_of, labelled, masks_of, scores_of
from cloakonnx.evaluation.sweeps._curve import Pass, rounded
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.insert import check_opset
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.scoring.analysis import Analysis, TapScores
from cloakonnx.selection.topk import Amount, amount_of


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that can start.

    Attributes:
        classifier: The classifier without masks.
        source: Its file.
        pairs: Clean and adversarial samples with labels.
        analysis: Where the scores come from.
        scores: The scores.
        masks: The mask of each amount.
        chosen: The amounts that are attacked.
        radii: Of the balls; empty where the pairs tell it.
        attack: A preset or an attack's name, or several.
        settings: Of the attacks.
        batch_size: Samples at a time.
        engine: Where batches are handled.
        notes: On how the model is run.
    """

    classifier: Classifier
    source: Model
    pairs: FittedPairs
    analysis: Analysis
    scores: TapScores
    masks: Mapping[Amount, Mask]
    chosen: Sequence[Amount]
    radii: tuple[float, ...]
    attack: Names
    settings: PlanSettings
    batch_size: int
    engine: Engine
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        model: ModelLike,
        analysis: Analysis,
        pairs: Pairs | FittedPairs,
        *,
        amounts: Sequence[Amount | str],
        adaptive_at: Sequence[Amount | str] | None = None,
        eps: float | Sequence[float] = (),
        attack: Names = "quick",
        batch_size: int = 64,
        engine: Engine | None = None,
        **settings: Unpack[PlanSettings],
    ) -> PreparedSweep:
        """Open and check what :func:`cloakonnx.sweep` takes; raises as it does."""
        classifier = classifier_of(model)
        classifier.check_unmasked("a sweep")
        source = classifier.model
        check_opset(source)
        pairs = FittedPairs.of(pairs, classifier)
        scores = scores_of(analysis, source)
        masks = masks_of(scores, [amount_of(each) for each in amounts])
        chosen = attacked_of(masks, None if adaptive_at is None else [amount_of(each) for each in adaptive_at])
        radii = radii_of(eps)
        if radii:
            _check_radii(radii, pairs, settings)
        elif chosen and settings.get("norm", "linf") == "l2":
            raise OptionError(
                "{norm} l2 needs {eps}: the largest difference of the adversarial samples is one in linf",
                parameter=("norm", "eps"),
            )
        made = plan(attack, eps=1.0, **settings)  # unknown attacks are rejected before the long pass
        next(labelled(pairs, 1), None)  # and so are samples without labels
        engine = engine_or(engine, lambda: default_engine(classifier.provider, pairs.clean, batch_size))
        classifier, notes = reading(classifier.with_threads(engine.threads), pairs.clean, inside="a sweep")
        climbs = bool(chosen) and any(each.by_gradient for each in made)
        straight_through = settings.get("straight_through", False)
        notes += first_doubts(classifier, pairs.clean, climbs=climbs, straight_through=straight_through)
        return cls(
            classifier, source, pairs, analysis, scores, masks, chosen, radii, attack, settings, batch_size, engine,
            notes,
        )  # fmt: skip

    @property
    def norm(self) -> Literal["linf", "l2"]:
        """The balls' norm."""
        return self.settings.get("norm", "linf")

    @property
    def seed(self) -> int:
        """Seed of all random numbers."""
        return self.settings.get("seed", 0)

    def curve(self) -> Pass:
        """Return the pass over the images."""
        return Pass(
            self.classifier,
            self.pairs,
            self.masks,
            self.analysis,
            seed=self.seed,
            batch_size=self.batch_size,
            engine=self.engine,
            finds_eps=bool(self.chosen) and not self.radii,
        )

    def attacked(self, radii: tuple[float, ...]) -> AttackedMasks:
        """Return the attacks on the chosen amounts.

        Raises:
            OptionError: a radius that is wider than pixel space.
            DifferentiationError: an op without a gradient, under an attack that needs one.
        """
        _check_radii(radii, self.pairs, self.settings)
        plans = tuple(plan(self.attack, eps=each, **self.settings) for each in radii)
        conditions = Conditions(plans, self.norm, self.seed, self.pairs.clean.fitted_to(self.classifier))
        work = MaskedWork.of(self.classifier, [self.masks[each] for each in self.chosen], conditions)
        return AttackedMasks(work, self.pairs, self.engine, batch_size=self.batch_size)

    def radii_of(self, largest: float) -> tuple[float, ...]:
        """Return the radius that the largest difference of the pairs tells.

        Raises:
            OptionError: there is no difference.
        """
        if not largest > 0:
            raise OptionError(
                f"{self.pairs.clean.source.name} and {self.pairs.adversarial.source.name} hold the same samples, which "
                "tell no eps for the adaptive attacks; name it with {eps}",
                parameter="eps",
            )
        return (largest,)

    def radii_of_pairs(self, batches: int | None = None) -> tuple[float, ...]:
        """Read the pairs, or some batches of them, for the radius that they tell; raises as :meth:`radii_of`."""
        read = islice(labelled(self.pairs, self.batch_size), batches)
        largest = max((float(np.abs(each.adversarial - each.clean.x).max(initial=0)) for each in read), default=0.0)
        return self.radii_of(rounded(largest))

    def estimate(self) -> Estimate:
        """Measure what the sweep takes; it changes no result.

        Where the pairs tell the radius, that of their first batch is taken.

        Raises:
            DataError: labels that are no classes.
            InferenceError: the model can't be run in parts.
        """
        curve = self._curve_seconds()
        count, amounts = self.pairs.clean.count(), len(self.masks)
        if not self.chosen:
            return Estimate(
                curve, count, 0, 0, models=1, batch_size=self.batch_size, workers=self.engine.workers, curve=amounts
            )
        found = self.attacked(self.radii or self.radii_of_pairs(1)).estimate(always=True)
        share = curve / found.rounds  # of the pass, which is made once for all amounts
        assert found.tried is not None  # always
        return replace(
            found,
            seconds_per_sample=found.seconds_per_sample + share,
            tried=replace(found.tried, shallow=found.tried.shallow + share),
            curve=amounts,
        )

    def _curve_seconds(self) -> float:
        """Measure the pass over an image and its adversarial version."""
        first = next(labelled(self.pairs, min(self.batch_size, MOST_TRIED)))
        handle = self.curve().work().start()
        return seconds_of(lambda: handle(first, lambda share: None)) / first.size


def _check_radii(radii: Sequence[float], pairs: FittedPairs, settings: Mapping[str, Any]) -> None:
    clean = pairs.clean
    norm = settings.get("norm", "linf")
    check_eps(radii, norm=norm, bounds=clean.preprocessing.bounds, shape=clean.sample_shape)
