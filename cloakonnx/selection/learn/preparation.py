"""What learning starts from, checked and read: for the run itself, and for what says how long it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cloakonnx.attacks.ball import ball
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import PASSES
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.classifier.reading import first_doubts, reading
from cloakonnx.data.loaded import Loaded, read_parts
from cloakonnx.data.samples import Dataset, SamplesLike
from cloakonnx.errors import DataError, DifferentiationError
from cloakonnx.graph.masks.insert import check_opset
from cloakonnx.selection.learn.augment import Augmentation
from cloakonnx.selection.learn.objective import Objective
from cloakonnx.selection.learn.places import first_masks
from cloakonnx.selection.learn.recipe import Recipe
from cloakonnx.selection.learn.settled import placed, settled
from cloakonnx.selection.learn.steps import StepWork


@dataclass(frozen=True, eq=False)
class Prepared:
    """Learning that can start.

    Attributes:
        dataset: The samples.
        train: Those to learn on, in memory.
        part: Those to choose on.
        recipe: The settings, none of them open.
        batch_size: Samples of a step.
        augmented: What changes samples at random; None where nothing does.
        masked: The classifier with the masks that learning begins with, all 1.
        tried: The same in sessions of the engine's threads, in which masks are tried.
        work: What is done with each part of a step.
        notes: How the model is run, and what makes its numbers doubtful, in words.
    """

    dataset: Dataset
    train: Loaded
    part: Loaded
    recipe: Recipe
    batch_size: int
    augmented: Augmentation | None
    masked: MaskedClassifier
    tried: MaskedClassifier
    work: StepWork
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        model: ModelLike,
        samples: SamplesLike,
        recipe: Recipe,
        *,
        select: SamplesLike | None,
        taps: Sequence[str],
        tap_patterns: Sequence[str],
        layers: Sequence[str],
        threads: int | None,
    ) -> Prepared:
        """Open, check and read what :func:`cloakonnx.learn` takes; raises as it does before its first step.

        ``threads`` are the intra-op threads of each session where masks are tried, and of steps in parts.
        """
        classifier = classifier_of(model)
        dataset = Dataset.of(samples, classifier)
        selecting = None if select is None else Dataset.of(select, classifier)
        classifier.check_unmasked("learning")
        check_opset(classifier.model)
        ball(recipe.norm, recipe.eps).check(dataset.preprocessing.bounds, math.prod(dataset.sample_shape))
        granularity = placed(recipe.granularity, at_taps=bool(taps or tap_patterns))
        masks = first_masks(classifier.model, granularity, taps=taps, tap_patterns=tap_patterns, layers=layers)
        for each in (dataset, selecting):
            if each is not None:
                each.fitted_to(classifier)
        classifier, notes = reading(classifier, dataset, inside="learning")
        notes += first_doubts(classifier, dataset)
        train, part = read_parts(
            dataset, selecting, predict=classifier.predict, strata=classifier.task.strata, seed=recipe.seed
        )
        notes += tuple(_unlabelled(each) for each in dict.fromkeys((train, part)) if not each.has_labels)
        recipe = replace(settled(recipe, dataset, count=len(train)), granularity=granularity)
        augmented = Augmentation.of(recipe, dataset)
        masked = MaskedClassifier(classifier, masks)
        masked.prepare(dataset.fitted_to(masked))
        for loaded in (train, part):
            masked.task.check(loaded.y, masked.classes)
        size = _batch_size(recipe.batch_size, len(train), masked.fixed_batch, train.name)
        threaded = classifier.with_threads(threads)
        tried = masked if threaded is classifier else MaskedClassifier(threaded, masks)
        tried.prepare(dataset.sample_shape)
        with _by_gradients():
            Objective(masked, classifier, recipe, dataset.sample_shape)
        tried.passes_straight = masked.passes_straight
        notes += (PASSES,) if masked.passes_straight else ()
        stepping: tuple[MaskedClassifier, Classifier]
        stepping = (tried, threaded) if recipe.parts > 1 else (masked, classifier)
        work = StepWork(*stepping, recipe, dataset.sample_shape)
        return cls(dataset, train, part, recipe, size, augmented, masked, tried, work, notes)


def _batch_size(wanted: int, count: int, fixed: int | None, name: str) -> int:
    if fixed is None:
        return min(wanted, count)
    if count < fixed:
        raise DataError(f"{name}: {count} samples to learn on are fewer than the model's fixed batch of {fixed}")
    return min(max(fixed, wanted - wanted % fixed), count - count % fixed)


def _unlabelled(samples: Loaded) -> str:
    return (
        f"{samples.name} has no labels: the model's own predictions stand in, so clean accuracy there is agreement "
        "with the model"
    )


@contextmanager
def _by_gradients() -> Iterator[None]:
    """Where there are no gradients, name what needs none instead of attacks, which learning does not choose."""
    try:
        yield
    except DifferentiationError as error:
        raise type(error)(
            f"{error.args[0].partition(';')[0]}; masks are learned by gradients: choose features by scores instead "
            "('cloakonnx analyze' with --adversarial, then 'cloakonnx apply')",
            parameter=error.parameters,
        ) from None
