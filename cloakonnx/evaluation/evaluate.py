"""Robust accuracy of a model, attacked itself, alone or beside a baseline, with controls.

What the field asks for (Carlini et al. 2019, arXiv 1902.06705; Tramer et al. 2020, arXiv 2002.08347; Croce and Hein
2020, arXiv 2003.01690): the attacks are made on the model with its masks, several of different kinds, one of them
without gradients; a sample counts as robust only if it withstands all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import Norm
from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.presets import Names, PlanSettings, as_text, replaced
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.given import ModelLike
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.samples import Dataset, SamplesLike, sample_hashes
from cloakonnx.engine.batches import Engine, map_batches
from cloakonnx.engine.folder import Folder
from cloakonnx.engine.shards.part import end_of_part, own_batches
from cloakonnx.engine.trees import joined
from cloakonnx.evaluation._notes import about_data, about_gradients, about_scores
from cloakonnx.evaluation.adversarial import GivenInputs, save_won
from cloakonnx.evaluation.baseline import is_source, recorded
from cloakonnx.evaluation.estimate import Estimate
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.outcomes import Found, FoundAtEps, Gain, count
from cloakonnx.evaluation.per_sample import PerSample
from cloakonnx.evaluation.preparation import Prepared
from cloakonnx.evaluation.results import DataRecord, MaskRecord, ModelRecord
from cloakonnx.evaluation.samples import TurnedSamples
from cloakonnx.evaluation.sanity.flags import Sanity
from cloakonnx.evaluation.sanity.sanity import Correct, check
from cloakonnx.files import check_output
from cloakonnx.graph.index.randomness import random_ops
from cloakonnx.remote import local
from cloakonnx.scoring.analysis import Analysis

_NO_RANDOM_MASKS = "no random masks beside the model's own: the type or shape of a masked tensor can't be inferred"


def evaluate(
    model: ModelLike,
    samples: SamplesLike,
    *,
    eps: float | Sequence[float],
    attack: Names = "quick",
    baseline: ModelLike | None = None,
    batch_size: int = 64,
    analysis: Analysis | None = None,
    sanity: bool = True,
    output: str | PathLike[str] | None = None,
    save_adversarial: str | PathLike[str] | None = None,
    adversarial: SamplesLike | None = None,
    keep: str | PathLike[str] | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
    on_progress: Callable[[float], None] = lambda samples: None,
    **settings: Unpack[PlanSettings],
) -> Evaluation:
    """Attack a model, and its baseline in the same way where there is one; compare them sample by sample.

    A model that carries masks is compared with itself without them; any other is evaluated alone, unless a baseline is
    named.

    Args:
        model: The classifier, or a model or path that stands for one.
        samples: Labelled samples (:class:`cloakonnx.Samples`).
        eps: Radius of the ball in pixel space, or several.
        attack: A preset (``quick``, ``standard``) or an attack's name, or several: ``["pgd", "square"]`` or
            ``"pgd,square"``. Each is made on the samples that those before have left.
        baseline: What to compare with: any model of the same inputs and classes. None takes the masks out of a model
            that carries some, and evaluates any other alone.
        batch_size: Samples per batch.
        analysis: What the masks come from, to tell how many of the samples it has seen.
        sanity: Whether to make the sanity checks, on the first samples that the model classifies correctly.
        output: Where to save the evaluation; until then, finished batches lie in a folder beside it.
        save_adversarial: Where to save every input that won against the model, as an ``.npz`` with x, y, index, attack,
            eps, norm, predicted and adversarial_predicted.
        adversarial: Inputs made elsewhere, in the order of the samples, or an ``.npz`` with an array ``index``: those
            within the ball are tried on each model and join the worst case.
        keep: Where to save a few samples that are gained and lost at the first eps, with the inputs that won, as an
            ``.npz`` for the report; that needs a baseline.
        resume: Whether to go on with what an interrupted evaluation with this output has left.
        engine: Where batches are handled; :func:`~cloakonnx.engine.choice.default_engine` chooses where None.
        on_estimate: Called before the attacks with what they take at most, which is measured for it.
        on_progress: Called with the number of samples that are done, and with fractions in between.
        settings: Of the attacks: ``norm`` (``linf`` or ``l2``), ``seed``, ``straight_through`` (gradients pass rounding
            and quantisation as identity, BPDA; where a model's own are all 0 they do so without being asked), and of a
            single attack, or of those by gradients in a list, ``max_iter`` (for PGD also ``converged``) and
            ``restarts``; a preset's attacks by gradients take ``max_iter``.

    Returns:
        The evaluation; ``evaluation.verdict.sentence`` says in words what it shows.

    Raises:
        ModelError: a baseline that takes other inputs or has other classes.
        DataError: no labels, or labels that are no classes.
        OptionError: an eps, attack or setting that makes no sense.
        DifferentiationError: an op without a gradient, under an attack that needs one.
        OutputError: the output can't be written, or what is to be resumed was left by other settings.

    Examples:
        >>> import cloakonnx as ck
        >>> clf = ck.Classifier("samples/digits_cnn.onnx")
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=50)
        >>> masked = clf.with_masks(ck.select(ck.analyze(clf, data, attack="fgsm", eps=1 / 16), "5%"))
        >>> found = ck.evaluate(masked, data, eps=1 / 16, attack="fgsm", baseline=clf, sanity=False)
        >>> found.results[0].hardened.robust.count
        50
    """
    keep, save_adversarial, output = map(_local, (keep, save_adversarial, output))
    for path in (keep, save_adversarial, output):
        if path is not None:
            check_output(path, force=True)
    asked = Prepared.of(
        model,
        samples,
        eps=eps,
        attack=attack,
        baseline=baseline,
        batch_size=batch_size,
        engine=engine,
        adversarial=adversarial,
        keeps_turned=keep is not None,
        keeps_won=save_adversarial is not None,
        **settings,
    )
    work, dataset, source, radii = asked.work, asked.dataset, asked.source, asked.radii
    classifier, beside, plans = work.model, work.baseline, work.conditions.plans
    norm, seed = work.conditions.norm, work.conditions.seed
    comparison = work.comparison()
    record = {**work.record, "batch_size": batch_size}
    folder = None if output is None else Folder(output, record, run="an evaluation")
    met = _Met(analysis, work.given, norm)
    with nullcontext() if folder is None else folder.opened(resume=resume):
        if on_estimate is not None:
            on_estimate(asked.estimate(sanity=sanity))
        with map_batches(
            work,
            asked.batches(wanted=own_batches(asked.engine)),
            engine=asked.engine,
            folder=folder,
            name=dataset.source.name,
            on_progress=on_progress,
        ) as handled:
            for batch, part in handled:
                met.add(batch, part)
        source.check_unchanged()
        if beside is not None:
            beside.model.check_unchanged()
        end_of_part(asked.engine)
        found = joined(met.parts)
        of_source = beside is not None and is_source(beside.model, source, asked.bare)
        gains = [each.gain for each in found.at if each.gain is not None] if of_source else []
        checked = None
        if sanity:
            checked = _checked(classifier, dataset, met.correct, found.at, gains, plans=plans, batch_size=batch_size)
    per_sample = PerSample.of(found, dataset)
    evaluation = Evaluation(
        model=ModelRecord.of(source),
        baseline=None if beside is None else recorded(beside.model, source, is_stripped=work.is_stripped),
        baseline_is_stripped=work.is_stripped,
        baseline_is_source=of_source or beside is None,
        masks=tuple(MaskRecord(m.tap, m.weights.size, len(m.removed)) for m in asked.masks),
        data=met.record(dataset.source.name),
        preprocessing=dataset.preprocessing.as_dict(),
        attack=as_text(attack),
        norm=norm,
        seed=seed,
        batch_size=batch_size,
        provider=classifier.provider.name,
        threads=classifier.provider.threads,
        classes=classifier.classes,
        control=comparison.control_settings(),
        clean_hardened=count(found.clean),
        clean=found.pairs,
        results=found.results(radii),
        notes=(
            *asked.about_masks,
            *(() if asked.bare is None or work.shuffled else (_NO_RANDOM_MASKS,)),
            *asked.notes,
            *replaced(plans[0], classes=classifier.classes),
            *comparison.notes(),
            *(() if sanity else about_gradients(classifier, dataset, plans[0])),
            *about_scores(classifier, *(() if beside is None else (beside,))),
            *about_data(dataset, found, classifier, beside),
            *met.about_given(radii),
        ),
        samples=per_sample,
        sanity=checked,
    )
    if save_adversarial is not None:
        save_won(save_adversarial, found, dataset, per_sample, norm=norm)
    if keep is not None and found.turned is not None:
        TurnedSamples.of(found.turned, dataset, evaluation=evaluation.sha256, eps=radii[0]).save(keep)
    if output is not None:
        evaluation.save(output)
    if folder is not None:
        folder.remove()
    return evaluation


def _local(output: str | PathLike[str] | None) -> Path | None:
    return None if output is None else local(output, writes=True)


class _Met:
    """What is kept of the samples: results, digests, the number that the analysis has seen, the first correct ones."""

    def __init__(self, analysis: Analysis | None, given: GivenInputs | None, norm: Norm) -> None:
        self.parts: list[Found] = []
        self.correct = Correct()
        self._given, self._norm = given, norm
        self._sizes: list[NDArray[np.float64]] = []
        self._known = None if analysis is None else frozenset(analysis.samples.hashes)
        self._digests = hashlib.sha256(), hashlib.sha256()
        self.count = self._seen = 0

    def add(self, batch: LabelledBatch, part: Found) -> None:
        """Take a batch and what was found on it."""
        self.parts.append(part)
        self.correct.add(batch, part.clean)
        if self._given is not None:
            self._sizes.append(self._given.sizes(batch, self._norm))
        self._digests[0].update(batch.x.tobytes())
        self._digests[1].update(batch.y.tobytes())
        self.count += len(batch.x)
        if self._known:
            self._seen += sum(each in self._known for each in sample_hashes(batch.x))

    def about_given(self, eps: Sequence[float]) -> Iterator[str]:
        """Say how many of the inputs made elsewhere were tried."""
        if self._given is not None:
            yield self._given.note(np.concatenate(self._sizes), eps)

    def record(self, name: str) -> DataRecord:
        """Return the record of the samples, under their source's name."""
        sha256 = hashlib.sha256(self._digests[0].digest() + self._digests[1].digest()).hexdigest()
        return DataRecord(name, self.count, sha256, seen=None if self._known is None else self._seen)


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
