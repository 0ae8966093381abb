"""Many masks of one analysis: the curve of clean and static accuracy, and adaptive accuracy beside it.

Static numbers say how the masks fare against inputs that were made without them in sight: DeepCloak's own protocol, and
no claim of robustness. So at least one point is attacked again by default, and every point has random masks beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Unpack

from cloakonnx.attacks.presets import Names, PlanSettings, as_text, replaced
from cloakonnx.classifier.given import ModelLike
from cloakonnx.data.given import Pairs
from cloakonnx.data.samples import FittedPairs
from cloakonnx.engine.batches import Engine, InTurn
from cloakonnx.engine.shards.part import end_of_part
from cloakonnx.evaluation.estimate import Estimate
from cloakonnx.evaluation.results import ModelRecord
from cloakonnx.evaluation.sweeps._amounts import amount_text
from cloakonnx.evaluation.sweeps.preparation import PreparedSweep
from cloakonnx.evaluation.sweeps.record import Adaptive, Attacks, Scored, Sweep
from cloakonnx.files import check_output
from cloakonnx.remote import local
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.topk import Amount


def sweep(
    model: ModelLike,
    analysis: Analysis,
    pairs: Pairs | FittedPairs,
    *,
    amounts: Sequence[Amount | str],
    adaptive_at: Sequence[Amount | str] | None = None,
    eps: float | Sequence[float] = (),
    attack: Names = "quick",
    batch_size: int = 64,
    output: str | PathLike[str] | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
    on_progress: Callable[[float], None] = lambda samples: None,
    **settings: Unpack[PlanSettings],
) -> Sweep:
    """Measure accuracy under the masks of several amounts, in one pass over the images.

    Args:
        model: The classifier without masks of its own, or a model or path that stands for one.
        analysis: Scores of its features.
        pairs: Clean and adversarial samples with labels.
        amounts: How many features to remove: ``"5%"``, ``"3"``, :class:`~cloakonnx.Share` or
            :class:`~cloakonnx.Count`; 0 is the model without a mask.
        adaptive_at: At which of them to attack the hardened model itself; the last where None.
        eps: Radii of the adaptive attacks, in pixel space; the largest difference of the pairs where none is given.
        attack: Presets and attacks by name, as :func:`~cloakonnx.evaluate` takes them.
        batch_size: Samples per batch.
        output: Where to save the sweep; until then, batches whose attacks are done lie in a folder beside it.
        resume: Whether to go on with what an interrupted sweep with this output has left.
        engine: Where batches are handled; :func:`~cloakonnx.engine.choice.default_engine` chooses where None.
        on_estimate: Called before the attacks with what they take at most, which is measured for it.
        on_progress: Called with the number of samples that are done, once for the curve and again for each amount of
            ``adaptive_at``, and with fractions in between.
        settings: Of the attacks, as :func:`~cloakonnx.evaluate` takes them: ``norm``, ``seed``, ``straight_through``,
            ``max_iter``, ``restarts``.

    Raises:
        AnalysisError: it was made for another model, or holds no scores.
        TapError: the class scores do not depend on the tap.
        DataError: no labels, labels that are no classes, or samples that do not fit one another.
        OptionError: an amount, eps, attack or setting that makes no sense.
        DifferentiationError: an op without a gradient, under an attack that needs one.
        InferenceError: ONNX Runtime fails.
        OutputError: the output can't be written, or what is to be resumed was left by other settings.

    Examples:
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=50)
        >>> clf = ck.Classifier("samples/digits_cnn.onnx")
        >>> adversarial = ck.attack(clf, data, "fgsm", eps=1 / 16)
        >>> pairs = ck.Pairs(data, (adversarial.x, adversarial.y))
        >>> found = ck.sweep(clf, ck.analyze(clf, pairs), pairs, amounts=["0%", "5%"], adaptive_at=())
        >>> len(found.points)
        2
    """
    target = None if output is None else local(output, writes=True)
    if target is not None:
        check_output(target, force=True)
    asked = PreparedSweep.of(
        model,
        analysis,
        pairs,
        amounts=amounts,
        adaptive_at=adaptive_at,
        eps=eps,
        attack=attack,
        batch_size=batch_size,
        engine=engine,
        **settings,
    )
    attacked = asked.attacked(asked.radii) if asked.radii and asked.chosen else None
    folder = None if attacked is None or target is None else attacked.folder(target)
    if resume and target is not None and asked.chosen:  # before the long pass, which tells the radius else
        (folder or asked.attacked(asked.radii_of_pairs()).folder(target)).check(resume=True)
    one_pass = asked.curve()
    progress = InTurn(on_progress)
    points = one_pass.run(progress)
    progress.next()
    attacks: Attacks | None = None
    adaptive: tuple[Adaptive, ...] = ()
    if asked.chosen:
        radii = asked.radii or asked.radii_of(one_pass.largest)
        attacked = attacked or asked.attacked(radii)
        folder = folder or (None if target is None else attacked.folder(target))
        results = attacked.run(
            folder,
            resume=resume,
            on_estimate=on_estimate,
            on_progress=progress,
        )
        adaptive = tuple(
            Adaptive(amount_text(amount), len(asked.masks[amount].removed), *found)
            for amount, found in zip(asked.chosen, results, strict=True)
        )
        said = (*replaced(attacked.plan, classes=attacked.classes), *attacked.notes)
        attacks = Attacks(as_text(attack), radii, asked.norm, not asked.radii, attacked.control, said)
    end_of_part(asked.engine)
    source, scores, fitted, provider = asked.source, asked.scores, asked.pairs, asked.classifier.provider
    found = Sweep(
        model=ModelRecord(source.name, source.sha256),
        scores=Scored(scores.tap, scores.feature_axis, len(scores.scores), scores.criterion),
        data=one_pass.data_record(),
        twins=one_pass.twins(),
        preprocessing=fitted.clean.preprocessing.as_dict(),
        seed=asked.seed,
        batch_size=batch_size,
        provider=provider.name,
        points=points,
        attacks=attacks,
        adaptive=adaptive,
        asked=one_pass.asked,
        threads=provider.threads,
        notes=asked.notes,
    )
    asked.classifier.model.check_unchanged()
    if target is not None:
        found.save(target)
    if folder is not None:
        folder.remove()
    return found


def passes(adaptive_at: Sequence[Amount] | None) -> int:
    """Return how often a sweep goes through the samples: once for the curve, and again for each attacked amount."""
    return 1 + (1 if adaptive_at is None else len(adaptive_at))
