"""Robust accuracy of a model, attacked itself, alone or beside a baseline, with controls.

What the field asks for (Carlini et al. 2019, arXiv 1902.06705; Tramer et al. 2020, arXiv 2002.08347; Croce and Hein
2020, arXiv 2003.01690): the attacks are made on the model with its masks, several of different kinds, one of them
without gradients; a sample counts as robust only if it withstands all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.presets import check_eps, plan, replaced
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import of_ties
from cloakonnx.classifier.reading import describe_scores, first_gradients, reading, takes_logarithms
from cloakonnx.classifier.relabelled import data_doubt
from cloakonnx.classifier.task import at_chance
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.samples import Dataset, sample_hashes
from cloakonnx.engine.batches import Engine, map_batches
from cloakonnx.engine.choice import default_engine
from cloakonnx.engine.folder import Folder
from cloakonnx.engine.trees import joined
from cloakonnx.errors import MaskError, ModelError, OptionError, TapError
from cloakonnx.evaluation.baseline import carried, check_alike, is_source, recorded
from cloakonnx.evaluation.compared import ComparisonWork, Conditions
from cloakonnx.evaluation.comparison import Comparison
from cloakonnx.evaluation.controls import CONTROL_MASKS, shuffled
from cloakonnx.evaluation.estimate import Estimate
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.outcomes import Found, FoundAtEps, Gain, count
from cloakonnx.evaluation.results import DataRecord, MaskRecord, ModelRecord
from cloakonnx.evaluation.samples import TurnedSamples
from cloakonnx.evaluation.sanity.flags import Sanity
from cloakonnx.evaluation.sanity.sanity import Correct, check
from cloakonnx.files import check_output
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.randomness import random_ops
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.scoring.analysis import Analysis

_NO_RANDOM_MASKS = "no random masks beside the model's own: the type or shape of a masked tensor can't be inferred"


def evaluate(
    classifier: Classifier,
    dataset: Dataset,
    *,
    eps: Sequence[float],
    attack: str = "quick",
    baseline: Classifier | None = None,
    norm: Literal["linf", "l2"] = "linf",
    max_iter: int | str | None = None,
    restarts: int | None = None,
    straight_through: bool = False,
    seed: int = 0,
    batch_size: int = 64,
    analysis: Analysis | None = None,
    sanity: bool = True,
    output: str | Path | None = None,
    samples: str | Path | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
    on_progress: Callable[[float], None] = lambda samples: None,
) -> Evaluation:
    """Attack a model, and its baseline in the same way where there is one; compare them sample by sample.

    A model that carries masks is compared with itself without them; any other is evaluated alone, unless a baseline is
    named.

    Args:
        classifier: The model.
        dataset: Labelled samples, fitted to it.
        eps: Radii of the balls, in pixel space.
        attack: A preset (``quick``) or an attack's name.
        baseline: What to compare with: any model of the same inputs and classes. None takes the masks out of a model
            that carries some, and evaluates any other alone.
        norm: The balls' norm.
        max_iter: Steps of a single attack; ``converged`` for PGD until more change nothing.
        restarts: Random starts of a single attack.
        straight_through: Whether gradients pass rounding and quantisation as if they were not there (BPDA); where a
            model's own are all 0 they do so without being asked.
        seed: Of all random numbers.
        batch_size: Samples at a time.
        analysis: What the masks come from, to tell how many of the samples it has seen.
        sanity: Whether to make the sanity checks, on the first samples that the model classifies correctly.
        output: Where to save the evaluation; until then, finished batches lie in a folder beside it.
        samples: Where to save a few samples that are gained and lost at the first eps, with the inputs that won, as an
            ``.npz`` for the report; that needs a baseline.
        resume: Whether to go on with what an interrupted evaluation with this output has left.
        engine: Where batches are handled; :func:`~cloakonnx.engine.choice.default_engine` chooses where None.
        on_estimate: Called before the attacks with what they take at most, which is measured for it.
        on_progress: Called with the number of samples that are done, and with fractions in between.

    Raises:
        ModelError: a baseline that takes other inputs or has other classes.
        DataError: no labels, or labels that are no classes.
        OptionError: an eps, attack or setting that makes no sense.
        DifferentiationError: an op without a gradient, under an attack that needs one.
        OutputError: the output can't be written, or what is to be resumed was left by other settings.
    """
    if samples is not None:
        check_output(Path(samples), force=True)
    check_eps(eps, norm=norm, bounds=dataset.preprocessing.bounds, shape=dataset.sample_shape)
    made: dict[str, Any] = {"max_iter": max_iter, "restarts": restarts, "straight_through": straight_through}
    plans = [plan(attack, eps=e, norm=norm, seed=seed, **made) for e in eps]
    engine = engine or default_engine(classifier.provider, dataset, batch_size)
    classifier = classifier.shipped().with_threads(engine.threads)
    baseline = None if baseline is None else baseline.shipped().with_threads(engine.threads)
    model = classifier.model
    masks, bare, about_masks = carried(model, None if baseline is None else baseline.model)
    beside = classifier.beside(bare) if baseline is None and bare is not None else baseline
    if samples is not None and beside is None:
        raise OptionError(
            f"samples gained and lost are kept beside a baseline, and {model.name} carries no masks to take out: name "
            "a baseline (--baseline)"
        )
    classifier, beside, notes = _ready(classifier, beside, dataset)
    work = ComparisonWork(
        classifier,
        beside,
        _controls(classifier, bare, masks, seed=seed),
        Conditions(tuple(plans), norm, seed, dataset.fitted_to(beside or classifier)),
        is_stripped=baseline is None and beside is not None,
        keeps_turned=samples is not None,
    )
    comparison = work.comparison()
    folder = None
    if output is not None:
        folder = Folder(Path(output), {**work.record, "batch_size": batch_size}, run="an evaluation")
    parts: list[Found] = []
    correct = Correct()
    met = _Met(analysis)
    with nullcontext() if folder is None else folder.opened(resume=resume):
        if on_estimate is not None:
            seconds = comparison.seconds_per_sample(dataset.sample_shape, batch_size=batch_size) / engine.workers
            on_estimate(Estimate(seconds, dataset.count(), len(plans), len(work.shuffled), sanity))
        missing = f"{dataset.source.name} has no labels; an evaluation needs them (--labels, or y in an .npz)"
        with map_batches(
            work,
            (batch.labelled(missing) for batch in dataset.batches(batch_size)),
            engine=engine,
            folder=folder,
            name=dataset.source.name,
            on_progress=on_progress,
        ) as handled:
            for batch, part in handled:
                parts.append(part)
                correct.add(batch, part.clean)
                met.add(batch)
        found = joined(parts)
        model.check_unchanged()
        if beside is not None:
            beside.model.check_unchanged()
        of_source = beside is not None and is_source(beside.model, model, bare)
        gains = [each.gain for each in found.at if each.gain is not None] if of_source else []
        checked = None
        if sanity:
            checked = _checked(classifier, dataset, correct, found.at, gains, plans=plans, batch_size=batch_size)
    evaluation = Evaluation(
        model=ModelRecord(model.name, model.sha256),
        baseline=None if beside is None else recorded(beside.model, model, is_stripped=baseline is None),
        baseline_is_stripped=baseline is None and beside is not None,
        baseline_is_source=of_source or beside is None,
        masks=tuple(MaskRecord(m.tap, m.weights.size, len(m.removed)) for m in masks),
        data=met.record(dataset.source.name),
        preprocessing=dataset.preprocessing.as_dict(),
        attack=attack,
        norm=norm,
        seed=seed,
        batch_size=batch_size,
        provider=classifier.provider.name,
        threads=classifier.provider.threads,
        classes=classifier.classes,
        control=comparison.control_settings(),
        clean_hardened=count(found.clean),
        clean=found.pairs,
        results=found.results(),
        notes=(
            *about_masks,
            *(() if bare is None or work.shuffled else (_NO_RANDOM_MASKS,)),
            *notes,
            *replaced(plans[0], classes=classifier.classes),
            *comparison.notes(),
            *(() if sanity else _about_gradients(classifier, dataset, plans[0])),
            *_about_scores(classifier, *(() if beside is None else (beside,))),
            *_about_data(dataset, found, classifier, beside),
        ),
        sanity=checked,
    )
    if samples is not None and found.turned is not None:
        TurnedSamples.of(found.turned, dataset, evaluation=evaluation.sha256, eps=eps[0]).save(samples)
    if output is not None:
        evaluation.save(output)
    if folder is not None:
        folder.remove()
    return evaluation


class _Met:
    """What is kept of the samples gone through: their number and digests, and how many the analysis has seen."""

    def __init__(self, analysis: Analysis | None) -> None:
        self._known = None if analysis is None else frozenset(analysis.samples.hashes)
        self._digests = hashlib.sha256(), hashlib.sha256()
        self.count = self._seen = 0

    def add(self, batch: LabelledBatch) -> None:
        """Count a batch."""
        self._digests[0].update(batch.x.tobytes())
        self._digests[1].update(batch.y.tobytes())
        self.count += len(batch.x)
        if self._known:
            self._seen += sum(each in self._known for each in sample_hashes(batch.x))

    def record(self, name: str) -> DataRecord:
        """Return the record of the samples, under their source's name."""
        sha256 = hashlib.sha256(self._digests[0].digest() + self._digests[1].digest()).hexdigest()
        return DataRecord(name, self.count, sha256, seen=None if self._known is None else self._seen)


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


def _about_data(dataset: Dataset, found: Found, model: Classifier, baseline: Classifier | None) -> Iterator[str]:
    """Say in words what makes the labels, or a model's answers, worth less than they look."""
    if dataset.source.has_predicted_labels:
        yield (
            f"the labels of {dataset.source.name} are a model's own predictions, not true ones; accuracy is how often "
            "that class is kept"
        )
    clean = [(model, model.name, found.clean)]
    if baseline is not None and found.clean_baseline is not None:
        clean.append((baseline, "the baseline", found.clean_baseline))
    for (of, who, right), missing, tied, decided in zip(clean, found.unscored, found.tied, found.decided, strict=True):
        yield from (f"{who}: {said}" for said in of_ties(tied))
        if missing:
            yield f"{who} gives scores that are no numbers (NaN) for {missing} clean samples, which count as wrong"
        if at_chance(int(right.sum()), len(right), model.classes):
            yield (
                f"{who} gets {right.sum()} of {len(right)} clean samples right, no more than chance would in "
                f"{model.classes} classes: are preprocessing and labels right?"
            )
        hint = data_doubt(of, dataset, decided, found.labels)
        if hint is not None:
            yield f"{who}: {hint}"


def _about_gradients(classifier: Classifier, dataset: Dataset, attacks: Sequence[Attack]) -> tuple[str, ...]:
    """Say that gradients give attacks no direction, where they take any; a flag tells it where flags are asked for."""
    if not any(each.by_gradient for each in attacks):
        return ()
    passes = any(each.passes_straight for each in attacks)
    return first_gradients(classifier, dataset, straight_through=passes)


def _about_scores(*classifiers: Classifier) -> Iterator[str]:
    """Say what scores were taken for where logarithms of probabilities stand for the logits."""
    yield from dict.fromkeys(f"{each.name}: {describe_scores(each)}" for each in classifiers if takes_logarithms(each))


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


def _checked(
    classifier: Classifier,
    dataset: Dataset,
    correct: Correct,
    found: Sequence[FoundAtEps],
    gains: Sequence[Gain],
    *,
    plans: Sequence[Sequence[Attack]],
    batch_size: int,
) -> Sanity:
    return check(
        Victim(classifier, dataset.sample_shape),
        correct.samples(),
        plans=plans,
        random_ops=random_ops(classifier.model.proto, classifier.output_name),
        gains=gains,
        batch_size=batch_size,
        converged={each.eps: left for each in found if (left := each.hardened.converged)},
    )


def evaluation_seconds(
    classifier: Classifier,
    dataset: Dataset,
    *,
    masks: Sequence[Mask],
    samples: int,
    eps: Sequence[float],
    attack: str = "quick",
    norm: Literal["linf", "l2"] = "linf",
    batch_size: int = 64,
    workers: int = 1,
) -> float:
    """Measure on noise how many seconds an evaluation takes at most, the sanity checks left out.

    Args:
        classifier: The model without masks.
        dataset: What it would be evaluated on; only the shape of a sample is taken.
        masks: Masks at the places where they will be; those of 1 cost what any do.
        samples: How many it would be evaluated on.
        eps: Radii of the balls.
        attack: A preset (``quick``) or an attack's name.
        norm: The balls' norm.
        batch_size: Samples at a time.
        workers: How many batches would be handled at a time.

    Raises:
        OptionError: an attack that makes no sense.
        DifferentiationError: an op without a gradient, under an attack that needs one.
    """
    plans = [plan(attack, eps=each, norm=norm) for each in eps]

    def victim(of: Classifier) -> Victim:
        return Victim(of, dataset.fitted_to(of))

    masked = victim(classifier.beside(hardened(classifier.model, masks)) if masks else classifier)
    comparison = Comparison(masked, victim(classifier), [masked] * CONTROL_MASKS, plans, norm=norm, seed=0)
    return samples * comparison.seconds_per_sample(dataset.sample_shape, batch_size=batch_size) / workers
