"""What an evaluation is made of, ready before any attack; and what it would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Unpack

from cloakonnx.attacks.ball import radii_of
from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.presets import Names, PlanSettings, check_eps, plan
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.given import beside as beside_of
from cloakonnx.classifier.reading import reading
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.loaded import check_labelled
from cloakonnx.data.samples import Dataset, SamplesLike, Wanted
from cloakonnx.engine.batches import Engine
from cloakonnx.engine.choice import default_engine
from cloakonnx.engine.shards.part import engine_or
from cloakonnx.errors import MaskError, ModelError, OptionError, TapError
from cloakonnx.evaluation.adversarial import GivenInputs
from cloakonnx.evaluation.baseline import carried, check_alike
from cloakonnx.evaluation.compared import ComparisonWork, Conditions
from cloakonnx.evaluation.comparison import Comparison
from cloakonnx.evaluation.controls import CONTROL_MASKS, shuffled
from cloakonnx.evaluation.estimate import MOST_TRIED, WORTH_IT, Estimate
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask


@dataclass(frozen=True)
class Prepared:
    """An evaluation that can start.

    Attributes:
        work: The model, its baseline where there is one, the random masks, the attacks.
        dataset: The samples.
        engine: Where batches are handled.
        batch_size: Samples at a time.
        radii: Of the balls.
        source: The model's file.
        bare: The model without its masks; None where it has none or they can't be taken out.
        masks: What it carries.
        about_masks: Notes on these.
        notes: On how the models are run.
    """

    work: ComparisonWork
    dataset: Dataset
    engine: Engine
    batch_size: int
    radii: tuple[float, ...]
    source: Model
    bare: Model | None
    masks: Sequence[Mask]
    about_masks: Sequence[str]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        model: ModelLike,
        samples: SamplesLike,
        *,
        eps: float | Sequence[float],
        attack: Names,
        baseline: ModelLike | None,
        batch_size: int,
        engine: Engine | None,
        adversarial: SamplesLike | None = None,
        keeps_turned: bool = False,
        keeps_won: bool = False,
        **settings: Unpack[PlanSettings],
    ) -> Prepared:
        """Open and check what :func:`cloakonnx.evaluate` takes; raises as it does."""
        classifier = classifier_of(model)
        dataset = Dataset.of(samples, classifier)
        radii = radii_of(eps)
        norm, seed = settings.get("norm", "linf"), settings.get("seed", 0)
        plans = checked_plans(dataset, attack, radii, **settings)
        engine = engine_or(engine, lambda: default_engine(classifier.provider, dataset, batch_size))
        classifier = classifier.shipped().with_threads(engine.threads)
        check_labelled(dataset, missing_labels(dataset))
        named = None if baseline is None else beside_of(classifier, baseline).shipped().with_threads(engine.threads)
        source = classifier.model
        masks, bare, about_masks = carried(source, None if named is None else named.model)
        beside = classifier.beside(bare) if named is None and bare is not None else named
        if keeps_turned and beside is None:
            raise OptionError(
                f"samples gained and lost are kept beside a baseline, and {source.name} carries no masks to take out: "
                "name a baseline ({baseline})",
                parameter="baseline",
            )
        given = None if adversarial is None else GivenInputs.of(adversarial, dataset, classifier)
        classifier, beside, notes = _ready(classifier, beside, dataset)
        work = ComparisonWork(
            classifier,
            beside,
            _controls(classifier, bare, masks, seed=seed),
            Conditions(tuple(plans), norm, seed, dataset.fitted_to(beside or classifier)),
            is_stripped=named is None and beside is not None,
            keeps_turned=keeps_turned,
            keeps_won=keeps_won,
            given=given,
        )
        return cls(work, dataset, engine, batch_size, radii, source, bare, masks, about_masks, notes)

    def batches(self, size: int | None = None, *, wanted: Wanted | None = None) -> Iterator[LabelledBatch]:
        """Yield the samples batch by batch, of another size if asked; raises DataError where they have no labels.

        Those that are not ``wanted`` are as :meth:`Dataset.batches` has them.
        """
        missing = missing_labels(self.dataset)
        return (batch.labelled(missing) for batch in self.dataset.batches(size or self.batch_size, wanted=wanted))

    def estimate(self, *, sanity: bool, always: bool = False) -> Estimate:
        """Measure what the evaluation takes; it changes no result.

        Args:
            sanity: Whether the sanity checks follow.
            always: Whether the short attack is made for a run of seconds as well.

        Raises:
            DataError: no labels, or labels that are no classes.
        """
        work, dataset = self.work, self.dataset
        costs = work.comparison().costs(dataset.sample_shape, batch_size=self.batch_size)
        most = Estimate(
            costs.most(),
            dataset.count(),
            len(self.radii),
            len(work.shuffled),
            sanity,
            models=1 if work.baseline is None else 2,
            batch_size=self.batch_size,
            workers=self.engine.workers,
        )
        if not always and most.seconds is not None and most.seconds < WORTH_IT:
            return most
        first = next(self.batches(MOST_TRIED), None)
        if first is None:
            return most
        work.model.task.check(first.y, work.model.classes)
        return replace(most, tried=costs.tried(first))


def missing_labels(dataset: Dataset) -> str:
    """Return what is said where an evaluation's samples have no labels."""
    return f"{dataset.source.name} has no labels; an evaluation needs them ({{labels}}, or y in an .npz)"


def checked_plans(
    dataset: Dataset, attack: Names, eps: Sequence[float], **settings: Unpack[PlanSettings]
) -> list[tuple[Attack, ...]]:
    """Return the attacks of an evaluation at each eps; raises OptionError for an eps, attack or setting that fails."""
    norm = settings.get("norm", "linf")
    check_eps(eps, norm=norm, bounds=dataset.preprocessing.bounds, shape=dataset.sample_shape)
    return [plan(attack, eps=each, **settings) for each in eps]


def estimate_of_masks(
    classifier: Classifier,
    dataset: Dataset,
    *,
    masks: Sequence[Mask],
    samples: int,
    eps: Sequence[float],
    attack: Names = "quick",
    max_iter: int | str | None = None,
    norm: Literal["linf", "l2"] = "linf",
    batch_size: int = 64,
    workers: int = 1,
) -> Estimate:
    """Measure what an evaluation of masks that are not made yet takes, the sanity checks left out.

    How many samples withstand is measured on masks of 1, that is on the model as it is.

    Args:
        classifier: The model without masks.
        dataset: What it would be evaluated on; the first samples are attacked.
        masks: Masks at the places where they will be; those of 1 cost what any do.
        samples: How many it would be evaluated on.
        eps: Radii of the balls.
        attack: Presets and attacks by name.
        max_iter: Steps of these attacks; see :class:`~cloakonnx.attacks.presets.PlanSettings`.
        norm: The balls' norm.
        batch_size: Samples at a time.
        workers: How many batches would be handled at a time.

    Raises:
        OptionError: an attack that makes no sense.
        DifferentiationError: an op without a gradient, under an attack that needs one.
    """
    plans = [plan(attack, eps=each, norm=norm, max_iter=max_iter) for each in eps]

    def victim(of: Classifier) -> Victim:
        return Victim(of, dataset.fitted_to(of))

    masked = victim(classifier.beside(hardened(classifier.model, masks)) if masks else classifier)
    comparison = Comparison(masked, victim(classifier), [masked] * CONTROL_MASKS, plans, norm=norm, seed=0)
    costs = comparison.costs(dataset.sample_shape, batch_size=batch_size)
    first = next(iter(dataset.batches(MOST_TRIED)), None)
    labelled = None if first is None or first.y is None else LabelledBatch(first.x, first.y, first.indices)
    return Estimate(
        costs.most(),
        samples,
        len(plans),
        CONTROL_MASKS,
        batch_size=batch_size,
        workers=workers,
        tried=None if labelled is None else costs.tried(labelled),
    )


def _controls(
    classifier: Classifier, bare: Model | None, masks: Sequence[Mask], *, seed: int
) -> tuple[Classifier, ...]:
    """Return models whose masks have their weights in random places; none where the masks can't be taken out."""
    if bare is None:
        return ()
    try:
        made = [hardened(bare, shuffled(masks, seed, index)) for index in range(CONTROL_MASKS)]
    except (MaskError, TapError):  # an optimiser's own ops have no types that inference knows
        return ()
    return tuple(classifier.beside(each) for each in made)


def _ready(
    classifier: Classifier, baseline: Classifier | None, dataset: Dataset
) -> tuple[Classifier, Classifier | None, tuple[str, ...]]:
    """Return the classifiers as the samples have to be given to them, and notes on that.

    Raises:
        ModelError: the baseline takes other inputs or has other classes.
    """
    if baseline is not None:
        check_alike(classifier, baseline)
    for each in (classifier, baseline or classifier):
        dataset.fitted_to(each)
    classifier, notes = reading(classifier, dataset)
    if baseline is not None:
        baseline, more = reading(baseline.changed(at_a_time=classifier.at_a_time), dataset)
        notes = (*notes, *more)
    for each in (classifier, baseline or classifier):
        each.prepare(dataset.sample_shape)
        dataset.check_classes(each.classes)
    if baseline is not None and classifier.classes != baseline.classes:
        raise ModelError(
            f"{classifier.name} has {classifier.classes} classes, the baseline {baseline.name} {baseline.classes}; "
            "they can't be compared"
        )
    return classifier, baseline, tuple(notes)
