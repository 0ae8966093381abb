"""Adversarially learned masks: constant weights at many taps, learned against attacks on the model that has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from os import PathLike
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.given import ModelLike
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.data.loaded import Loaded
from cloakonnx.data.samples import SamplesLike
from cloakonnx.engine.batches import Engine, InProcess, Pool
from cloakonnx.engine.folder import Folder
from cloakonnx.errors import InferenceError, NoGainError
from cloakonnx.files import check_output
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.json_files import installed_versions
from cloakonnx.remote import local
from cloakonnx.scoring.analysis import Analysis, SampleSet
from cloakonnx.selection.learn.adam import Adam, OneCycle
from cloakonnx.selection.learn.choosing import MOST_TRIED, ROBUST_STEPS, Choice, SelectPart
from cloakonnx.selection.learn.objective import Outcome
from cloakonnx.selection.learn.preparation import Prepared
from cloakonnx.selection.learn.progress import Progress
from cloakonnx.selection.learn.recipe import Recipe
from cloakonnx.selection.learn.state import State, Tally, load, save
from cloakonnx.selection.learn.steps import Part, outcome
from cloakonnx.text import eps_text

_SAVE_EVERY = 50
"""Steps between two checkpoints; there is one at the end of each epoch too."""


def learn(
    model: ModelLike,
    samples: SamplesLike,
    recipe: Recipe,
    *,
    select: SamplesLike | None = None,
    taps: Sequence[str] = (),
    tap_patterns: Sequence[str] = (),
    layers: Sequence[str] = (),
    output: str | PathLike[str] | None = None,
    resume: bool = False,
    over_budget: bool = False,
    engine: Engine | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Analysis:
    """Learn masks for a model against attacks that see them; no weight of the model changes.

    Every step attacks a batch under the masks of the moment, takes the gradient of the loss by each mask through the
    backward graph, and moves the masks by Adam. The masks of each epoch are then tried on samples that were not used
    for learning: drawn towards 1 as far as the budget of clean accuracy asks for, the most robust ones are taken.

    Args:
        model: The classifier without masks of its own, or a model or path that stands for one.
        samples: Samples to learn on (:class:`cloakonnx.Samples`); a fifth of each class is held out for choosing where
            ``select`` is None. Where they have no labels, the model's own predictions stand in, and clean accuracy is
            agreement with it.
        recipe: The settings.
        select: Samples for choosing. Samples that the model was trained on understate the clean loss.
        taps: Tensors to mask; without them and patterns, every activation that feeds a linear layer.
        tap_patterns: Globs over the names of taps.
        layers: For masks on weights, globs over the names of weights and of the layers that read them; all where there
            is none.
        output: Where the analysis will go: checkpoints are kept beside it, for :func:`~cloakonnx.engine.folder.forget`
            to remove; None keeps none.
        resume: Whether to go on from them; the budget may be another one.
        over_budget: Whether to return the most robust masks where the budget can't be met.
        engine: Where masks are tried on the select part, and where the parts of a step are handled if the recipe asks
            for several. Batch after batch in this thread where None.
        on_progress: Called after every step.

    Raises:
        DataError: labels of one class, too few samples.
        TapError, ModelError: taps that can't be masked or have no gradient.
        OptionError: settings that make no sense.
        NoGainError: no masks within the budget gain robust accuracy, and ``over_budget`` was not given.
        InferenceError: ONNX Runtime fails, or the loss is not finite.
        OutputError: checkpoints of other settings, or they can't be written.

    Examples:
        >>> import cloakonnx as ck
        >>> recipe = ck.Recipe(eps=1 / 16, budget=0.5, epochs=1, granularity="feature")
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=100)
        >>> learned = ck.learn("samples/digits_cnn.onnx", data, recipe, over_budget=True)
        >>> len(learned.masks) > 0
        True
    """
    target = None if output is None else local(output, writes=True)
    if target is not None:
        check_output(target, force=True)
    engine = engine or InProcess()
    asked = Prepared.of(
        model,
        samples,
        recipe,
        select=select,
        taps=taps,
        tap_patterns=tap_patterns,
        layers=layers,
        threads=engine.threads,
    )
    recipe, train, part = asked.recipe, asked.train, asked.part
    source, notes = asked.masked.model, asked.notes
    folder = None if target is None else Folder(target, _record(asked), run="learning")
    trials = SelectPart(asked.tried, part, recipe, engine)
    learner = _Learner(asked, engine if recipe.parts > 1 else InProcess(), trials, on_progress=on_progress)
    with folder.opened(resume=resume) if folder is not None else nullcontext():
        choice = learner.run(folder)
        notes += (_memorised(trials),) if trials.looks_memorised else ()
    if not choice.within_budget and not over_budget:
        said = "; ".join((_over_budget(learner.part, choice, recipe), *notes))
        raise NoGainError(said, parameter=("budget", "eps"), tried=learner.tried())
    source.check_unchanged()
    return Analysis(
        model_name=source.name,
        model_sha256=source.sha256,
        preprocessing=asked.dataset.preprocessing,
        samples=SampleSet(
            clean=train.name,
            adversarial=None,
            count=len(train) + len(part),
            largest_difference=recipe.eps,
            hashes=train.hashes + part.hashes,
        ),
        provider=asked.masked.provider.name,
        threads=asked.tried.provider.threads,
        notes=notes,
        masks=_masks(choice, asked.masked),
        attack=_inner_attack(recipe),
        learning=_learning(learner, choice, part, recipe, held_out=select is None),
    )


def _record(asked: Prepared) -> dict[str, Any]:
    """Return everything that checkpoints depend on."""
    recipe, masked = asked.recipe, asked.masked
    return {
        "recipe": {k: v for k, v in recipe.as_dict().items() if k not in {"budget", "zero_below"}},  # choosing only
        "taps": [mask.key for mask in masked.masks],
        "model": masked.model.sha256,
        "input": masked.input_name,
        "output": masked.output_name,
        "preprocessing": asdict(asked.dataset.preprocessing),
        "train": asked.train.digest,
        "select": asked.part.digest,
        "versions": installed_versions(),
        **asked.tried.record,
    }


class _Learner:
    """The loop."""

    def __init__(
        self,
        asked: Prepared,
        engine: Engine,
        part: SelectPart,
        *,
        on_progress: Callable[[Progress], None],
    ) -> None:
        work, recipe, train = asked.work, asked.recipe, asked.train
        self.state = State(Adam(work.classifier.weights))
        self._work, self._engine, self._recipe = work, engine, recipe
        self._train, self.part, self._unit = train, part, work.classifier.fixed_batch or 1
        self._augmented, self._tell = asked.augmented, on_progress
        self._size = asked.batch_size
        count = len(train) - len(train) % self._unit
        self._starts = range(0, count, self._size)
        self._count = count
        assert recipe.epochs is not None  # settled
        self.epochs, self.steps = recipe.epochs, recipe.epochs * len(self._starts)
        self._schedule = OneCycle(recipe.learning_rate, self.steps)
        self._began, self._before = monotonic(), 0

    def run(self, folder: Folder | None) -> Choice:
        """Learn from the kept state on, and choose."""
        if folder is not None:
            load(folder, self.state)
        self._began, self._before = monotonic(), self.state.adam.steps
        with self._engine.open(self._work) as pool:  # stays while masks are tried: its sessions are needed again
            while self.state.adam.steps < self.steps:
                epoch, is_due = self._step(pool)
                self._note(folder, self._tried(epoch) if is_due else None)
        tried = iter(range(1, len(self.state.learned) + 1))

        def tell() -> None:
            self._tell(self._progress(self.steps, choosing=next(tried)))

        return self.part.choose(self.state.learned, on_progress=tell)

    def _note(self, folder: Folder | None, record: dict[str, Any] | None = None) -> None:
        """Keep the state where it is time to, and say how far it is."""
        taken = self.state.adam.steps
        if folder is not None and (record is not None or taken % _SAVE_EVERY == 0):
            save(folder, self.state)
        pace = (monotonic() - self._began) / (taken - self._before)
        self._tell(self._progress(taken, seconds_left=pace * (self.steps - taken), epoch=record))

    def tried(self) -> Iterator[str]:
        """Say what became of the select part under the masks of each epoch that was tried."""
        part = self.part
        yield (
            f"without masks: {part.clean_before} of {part.count} clean and {part.robust_before} of {part.attacked} "
            "attacked select samples right"
        )
        for each in self.state.curve:
            yield (
                f"masks on {len(self._work.classifier.masks)} tensors, epoch {each['epoch']} of {self.epochs}, eps "
                f"{eps_text(each['eps'])}: {each['select_clean']} of {part.count} clean and {each['select_robust']} of "
                f"{part.attacked} attacked"
            )

    def _progress(self, step: int, **more: Any) -> Progress:
        return Progress(step, self.steps, self.epochs, self.part.count, self.part.attacked, **more)

    def _step(self, pool: Pool[Part, Outcome]) -> tuple[int, bool]:
        """Take a step; return its epoch, and whether the masks are to be tried after it."""
        recipe, adam, tally = self._recipe, self.state.adam, self.state.tally
        epoch, index = divmod(adam.steps, len(self._starts))
        start = self._starts[index]
        order = shuffled(len(self._train), seed=recipe.seed, epoch=epoch)[: self._count]
        rows = order[start : start + self._size]
        x, y = self._train.pixels(rows), self._train.y[rows]
        if self._augmented is not None:
            x = self._augmented(x, rows, epoch=epoch)
        step = adam.steps
        masks = {key: values.astype(np.float32) for key, values in adam.values.items()}
        whole = Part(x, y, rows, epoch, recipe.eps_at(step, self.steps), masks)
        found = outcome(pool, list(whole.cut(recipe.parts, self._unit)))
        if not math.isfinite(found.loss):
            raise InferenceError(
                f"the loss is not finite at epoch {epoch + 1}: a lower {{learning_rate}} or narrower "
                "{Recipe.bounds} may help",
                parameter=("learning_rate", "Recipe.bounds"),
            )
        rate = self._schedule.rate(step)
        adam.step(found.gradients, rate=rate, beta=self._schedule.beta(step))
        low, high = recipe.range
        for values in adam.values.values():
            if recipe.l1:  # the proximal step of rate * l1 * |m - 1|
                away = values - 1
                values[:] = 1 + np.sign(away) * np.maximum(np.abs(away) - rate * recipe.l1, 0)
            np.clip(values, low, high, out=values)
        tally.loss += found.loss
        tally.start += found.start
        tally.adversarial += found.adversarial
        tally.samples += found.samples
        is_last = index == len(self._starts) - 1
        return epoch, is_last and (self.epochs - 1 - epoch) % math.ceil(self.epochs / MOST_TRIED) == 0

    def _tried(self, epoch: int) -> dict[str, Any]:
        """Try the masks at the end of an epoch on the select part, and keep them."""
        tally, last = self.state.tally, self.state.adam.steps - 1
        masks = {tap: values.astype(np.float32) for tap, values in self.state.adam.values.items()}
        record = {
            "epoch": epoch + 1,
            "eps": self._recipe.eps_at(last, self.steps),
            "loss": tally.loss / tally.samples,
            "start_accuracy": tally.start / tally.samples,
            "adversarial_accuracy": tally.adversarial / tally.samples,
            "select_clean": self.part.clean(masks),
            "select_robust": self.part.robust(masks),
        }
        self.state.tally = Tally()
        self.state.curve.append(record)
        self.state.learned[epoch + 1] = masks
        return record


def _masks(choice: Choice, masked: MaskedClassifier) -> tuple[Mask, ...]:
    """Return the masks that do something."""
    masks = {mask.key: replace(mask, weights=choice.masks[mask.key]) for mask in masked.masks}
    kept = [mask for mask in masks.values() if (mask.weights != 1).any()]
    return tuple(kept or masks.values())


def _inner_attack(recipe: Recipe) -> dict[str, Any]:
    return {
        "attack": "fgsm" if recipe.inner_steps == 1 else "pgd",
        "eps": recipe.eps,
        "norm": recipe.norm,
        "eps_step": recipe.step_size(recipe.eps),
        "max_iter": recipe.inner_steps,
        "random_start": True,
        "seed": recipe.seed,
    }


def _learning(learner: _Learner, choice: Choice, samples: Loaded, recipe: Recipe, *, held_out: bool) -> dict[str, Any]:
    part = learner.part
    return {
        "recipe": recipe.as_dict(),
        "select": {
            "source": samples.name,
            "held_out": held_out,
            "count": part.count,
            "attacked": part.attacked,
            "attack_steps": ROBUST_STEPS,
            "clean_before": part.clean_before,
            "robust_before": part.robust_before,
        },
        "chosen": {
            "epoch": choice.epoch,
            "blend": choice.blend,
            "clean": choice.clean,
            "robust": choice.robust,
            "within_budget": choice.within_budget,
            **({"converged": converged} if (converged := part.converged(choice.masks)) else {}),
        },
        "curve": list(learner.state.curve),
    }


def _memorised(part: SelectPart) -> str:
    return (
        f"the model has {part.clean_before} of {part.count} select samples right, so it may have been trained on them: "
        "then their clean accuracy understates the loss; give others with --select-data"
    )


def _over_budget(part: SelectPart, choice: Choice, recipe: Recipe) -> str:
    lost = part.clean_before - choice.clean
    advice = "raise {budget}" if choice.clean < part.least else "more samples, epochs, or another {eps} may"
    return (
        f"no masks gain robust accuracy within the budget of {100 * recipe.budget:g} points on {part.count} select "
        f"samples; the most robust ones lose {100 * lost / part.count:.1f} points and hold {choice.robust} of "
        f"{part.attacked} attacked samples (before: {part.robust_before}); {advice}"
    )


def shuffled(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch."""
    return np.random.Generator(np.random.PCG64([seed, 1, epoch])).permutation(count)
