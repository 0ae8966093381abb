"""Many masks of one analysis: the curve of clean and static accuracy, and adaptive accuracy beside it.

Static numbers say how the masks fare against inputs that were made without them in sight: DeepCloak's own protocol, and
no claim of robustness. So at least one point is attacked again by default, and every point has random masks beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from typing import Unpack

from cloakonnx.attacks.ball import radii_of
from cloakonnx.attacks.presets import Names, PlanSettings, as_text, check_eps, plan, replaced
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.reading import first_doubts, reading
from cloakonnx.data.given import Pairs
from cloakonnx.data.samples import FittedPairs
from cloakonnx.engine.batches import Engine, InTurn
from cloakonnx.engine.choice import default_engine
from cloakonnx.engine.folder import Folder
from cloakonnx.engine.shards.part import end_of_part, engine_or
from cloakonnx.errors import OptionError
from cloakonnx.evaluation.compared import Conditions
from cloakonnx.evaluation.estimate import Estimate
from cloakonnx.evaluation.results import ModelRecord
from cloakonnx.evaluation.sweeps._adaptive import AttackedMasks, MaskedWork
from cloakonnx.evaluation.sweeps._amounts import amount_text, attacked_of, masks_of, scores_of
from cloakonnx.evaluation.sweeps._curve import Pass
from cloakonnx.evaluation.sweeps.record import Adaptive, Attacks, Scored, Sweep
from cloakonnx.graph.masks.insert import check_opset
from cloakonnx.remote import local
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.topk import Amount, amount_of


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
    classifier = classifier_of(model)
    classifier.check_unmasked("a sweep")
    source = classifier.model
    check_opset(source)
    pairs = FittedPairs.of(pairs, classifier)
    scores = scores_of(analysis, source)
    masks = masks_of(scores, [amount_of(each) for each in amounts])
    chosen = attacked_of(masks, None if adaptive_at is None else [amount_of(each) for each in adaptive_at])
    norm, seed = settings.get("norm", "linf"), settings.get("seed", 0)
    straight_through = settings.get("straight_through", False)
    asked = radii_of(eps)
    check = partial(check_eps, norm=norm, bounds=pairs.clean.preprocessing.bounds, shape=pairs.clean.sample_shape)
    plan_of = partial(plan, attack, **settings)
    if asked:
        check(asked)
    elif chosen and norm == "l2":
        raise OptionError(
            "{norm} l2 needs {eps}: the largest difference of the adversarial samples is one in linf",
            parameter=("norm", "eps"),
        )
    made = plan_of(eps=1.0)  # unknown attacks are rejected before the long pass
    engine = engine_or(engine, lambda: default_engine(classifier.provider, pairs.clean, batch_size))
    classifier, notes = reading(classifier.with_threads(engine.threads), pairs.clean, inside="a sweep")
    climbs = bool(chosen) and any(each.by_gradient for each in made)
    notes += first_doubts(classifier, pairs.clean, climbs=climbs, straight_through=straight_through)
    one_pass = Pass(
        classifier,
        pairs,
        masks,
        analysis,
        seed=seed,
        batch_size=batch_size,
        engine=engine,
        finds_eps=bool(chosen) and not asked,
    )
    progress = InTurn(on_progress)
    points = one_pass.run(progress)
    progress.next()
    attacks: Attacks | None = None
    adaptive: tuple[Adaptive, ...] = ()
    folder: Folder | None = None
    if chosen:
        radii = asked or (_radius(one_pass.largest, pairs),)
        check(radii)
        plans = tuple(plan_of(eps=each) for each in radii)
        work = MaskedWork.of(
            classifier,
            [masks[each] for each in chosen],
            Conditions(plans, norm, seed, pairs.clean.fitted_to(classifier)),
        )
        attacked = AttackedMasks(work, pairs, engine, batch_size=batch_size)
        folder = None if output is None else attacked.folder(local(output, writes=True))
        results = attacked.run(
            folder,
            resume=resume,
            on_estimate=on_estimate,
            on_progress=progress,
        )
        adaptive = tuple(
            Adaptive(amount_text(amount), len(masks[amount].removed), *found)
            for amount, found in zip(chosen, results, strict=True)
        )
        said = (*replaced(plans[0], classes=work.classifier.classes), *attacked.notes)
        attacks = Attacks(as_text(attack), radii, norm, not asked, attacked.control, said)
    end_of_part(engine)
    found = Sweep(
        model=ModelRecord(source.name, source.sha256),
        scores=Scored(scores.tap, scores.feature_axis, len(scores.scores), scores.criterion),
        data=one_pass.data_record(),
        twins=one_pass.twins(),
        preprocessing=pairs.clean.preprocessing.as_dict(),
        seed=seed,
        batch_size=batch_size,
        provider=classifier.provider.name,
        points=points,
        attacks=attacks,
        adaptive=adaptive,
        asked=one_pass.asked,
        threads=classifier.provider.threads,
        notes=notes,
    )
    classifier.model.check_unchanged()
    if output is not None:
        found.save(output)
    if folder is not None:
        folder.remove()
    return found


def passes(adaptive_at: Sequence[Amount] | None) -> int:
    """Return how often a sweep goes through the samples: once for the curve, and again for each attacked amount."""
    return 1 + (1 if adaptive_at is None else len(adaptive_at))


def _radius(largest: float, pairs: FittedPairs) -> float:
    """Return the radius of the adversarial samples: their largest difference.

    Raises:
        OptionError: there is no difference.
    """
    if not largest > 0:
        raise OptionError(
            f"{pairs.clean.source.name} and {pairs.adversarial.source.name} hold the same samples, which tell no eps "
            "for the adaptive attacks; name it with {eps}",
            parameter="eps",
        )
    return largest
