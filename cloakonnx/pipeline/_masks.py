"""From samples to an analysis, by the method that is asked for; and from scores to the mask that the budget allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.methods.pgd import PGD
from cloakonnx.attacks.pairs import AttackedPairs
from cloakonnx.engine.batches import Engine
from cloakonnx.pipeline._hardening import Hardening
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.scoring.analyze import analyze
from cloakonnx.selection.greedy.select import GreedyProgress, select_greedy
from cloakonnx.selection.learn.duration import learning_seconds
from cloakonnx.selection.learn.learn import learn
from cloakonnx.selection.learn.progress import watched
from cloakonnx.selection.learn.recipe import Recipe

_SCORING_STEPS = 10
"""Steps of the PGD that features are scored and selected against."""


def recipe(work: Hardening) -> Recipe:
    """Return what masks are learned with."""
    settings = work.settings
    return Recipe(
        eps=settings.eps[0],
        budget=settings.budget,
        norm=settings.norm,
        granularity=settings.granularity,
        epochs=settings.amount.epochs,
        parts=settings.parts,
        foldable=settings.fold,
        seed=settings.seed,
    )


def attack(work: Hardening) -> Attack:
    """Return what features are scored and selected against: every sample takes all steps, fooled or not."""
    settings = work.settings
    return PGD(
        eps=settings.eps[0],
        norm=settings.norm,
        max_iter=_SCORING_STEPS,
        early_stop=False,
        seed=settings.seed,
    )


def method_record(work: Hardening) -> dict[str, Any]:
    """Return what decides the analysis beside the samples and the budget."""
    threads = work.threads_record(engine(work))
    if work.settings.method != "learn":
        return {"attack": attack(work).record(), "batch_size": work.settings.batch_size, **threads}
    return {"recipe": {key: value for key, value in recipe(work).as_dict().items() if key != "budget"}, **threads}


def engine(work: Hardening) -> Engine | None:
    """Return what handles batches while masks are made; None where learning chooses."""
    return work.engine if work.settings.method == "learn" else work.engine_for(work.parts.learn.data)


def make_analysis(work: Hardening, target: Path, *, resume: bool) -> Analysis:
    """Learn, select or score.

    Args:
        work: What is asked for.
        target: Where the analysis will be.
        resume: Whether to go on from what interrupted learning has left.

    Raises:
        CheckError: no masks within the budget gain robust accuracy.
    """
    if work.settings.method == "learn":
        return _learned(work, target=target, resume=resume)
    return _selected(work) if work.settings.method == "greedy" else _scored(work)


def seconds(work: Hardening) -> float:
    """Measure how long learning takes at most; scoring is a matter of its attack."""
    parts = work.parts
    return learning_seconds(
        work.classifier,
        parts.learn.data,
        recipe(work),
        samples=parts.learn.count,
        select=parts.select.count,
        taps=work.settings.taps,
        layers=work.settings.layers,
    )


def _learned(work: Hardening, *, target: Path, resume: bool) -> Analysis:
    asked = recipe(work)
    with watched(lambda steps: work.observer.progress("learning", steps), work.observer.say) as on_progress:
        return learn(
            work.classifier,
            work.parts.learn.data,
            asked,
            select=work.parts.select.data,
            taps=work.settings.taps,
            layers=work.settings.layers,
            output=target,
            resume=resume,
            engine=engine(work),
            on_progress=on_progress,
        )


def _selected(work: Hardening) -> Analysis:
    def on_progress(now: GreedyProgress) -> None:
        step = now.step
        work.observer.say(f"round {now.round}: {len(step.removed)} removed, clean {step.correct} of {now.count}")

    with work.observer.progress("adversarial inputs", None) as advance:
        return select_greedy(
            work.classifier,
            work.parts.learn.data,
            budget=work.settings.budget,
            attack=attack(work),
            select=work.parts.select.data,
            tap=work.settings.tap,
            seed=work.settings.seed,
            batch_size=work.settings.batch_size,
            engine=engine(work),
            on_progress=on_progress,
            on_samples=advance,
        )


def _scored(work: Hardening) -> Analysis:
    data = work.parts.learn.data
    with work.observer.progress("scoring", work.parts.learn.count) as advance:
        return analyze(
            work.classifier,
            AttackedPairs(data, work.classifier, attack(work)),
            tap=work.settings.tap,
            batch_size=work.settings.batch_size,
            engine=engine(work),
            on_doubt=lambda said: work.observer.say(f"warning: {said}"),
            on_progress=advance,
        )
