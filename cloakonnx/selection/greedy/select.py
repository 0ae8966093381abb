"""Greedy selection in rounds: select, attack the masked model, select again against all inputs that were made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.pairs import MakePairs
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.reading import first_doubts, reading
from cloakonnx.classifier.task import SingleLabel
from cloakonnx.data.batch import Batch
from cloakonnx.data.loaded import Loaded, split
from cloakonnx.data.samples import Dataset, FittedPairs, SamplesLike, sample_hashes
from cloakonnx.engine.batches import Engine, map_batches
from cloakonnx.engine.choice import default_engine
from cloakonnx.errors import DataError, InferenceError, NoGainError, OptionError
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.insert import check_opset
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import Tap, find_tap
from cloakonnx.scoring.analysis import Analysis, SampleSet
from cloakonnx.scoring.analyze import DEFAULT_BATCH_SIZE
from cloakonnx.selection.greedy.ablation import Ablation, Ablations
from cloakonnx.selection.greedy.path import Part, Step, best_prefix, greedy_path, least_correct, mask_without

_ROUNDS = 3


@dataclass(frozen=True)
class GreedyProgress:
    """A step of a greedy path.

    Attributes:
        round: Which round, counted from 1.
        step: What is removed now; the counts are of the samples that features are selected on.
        count: How many these samples are.
    """

    round: int
    step: Step
    count: int


@dataclass(frozen=True)
class _Candidate:
    """What a round gave: its number, the step with its counts on the select part, and how many samples hold there."""

    round: int
    step: Step
    robust: int


@dataclass(eq=False)
class _Side:
    """The samples to select features on, or those to choose on.

    Attributes:
        samples: The samples.
        adversarial: Their adversarial versions, where they were given.
        clean: The samples at the tap.
        attacked: Their adversarial inputs at the tap, one a round.
        before: How many samples are classified correctly without a mask.
        least: How many must be within the budget.
        task: What logits and labels mean.
    """

    samples: Loaded
    adversarial: Loaded | None
    clean: Ablation
    before: int
    least: int
    task: SingleLabel
    attacked: list[Ablation] = field(default_factory=list)

    @property
    def part(self) -> Part:
        """What greedy selection works on."""
        return Part(self.samples.y, self.clean, tuple(self.attacked), self.task)

    def holds(self, mask: NDArray[np.bool_]) -> int:
        """Return how many samples hold against the last attack under a mask."""
        return Part(self.samples.y, self.attacked[-1], (), self.task).correct(mask)


def select_greedy(
    model: ModelLike,
    samples: SamplesLike,
    *,
    budget: float,
    attack: Attack | None = None,
    adversarial: SamplesLike | None = None,
    select: SamplesLike | None = None,
    tap: str | None = None,
    feature_axis: int | None = None,
    rounds: int | None = None,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH_SIZE,
    without_gain: bool = False,
    engine: Engine | None = None,
    on_progress: Callable[[GreedyProgress], None] = lambda progress: None,
    on_samples: Callable[[int], None] = lambda samples: None,
) -> Analysis:
    """Select the features of one tap whose removal makes the model most robust within a budget of clean accuracy.

    Features are removed one by one (:func:`~cloakonnx.selection.greedy.path.greedy_path`); how many is decided on
    the select part, which features are not selected on. In every further round the model is attacked again under
    the mask that the round before has led to, and features are selected anew against the inputs of all rounds. The
    mask under which most samples of the select part hold against the attack made on it is taken.

    Args:
        model: The classifier without masks of its own, or a model or path that stands for one.
        samples: Labelled samples to select on (:class:`cloakonnx.Samples`); a fifth of each class is held out where
            ``select`` is None.
        budget: Clean accuracy that may be lost, as a share (0.01: 1 point), on both parts.
        attack: The attack; it should take all steps, fooled or not.
        adversarial: Adversarial versions of the samples instead; there is one round then, and no attack made again.
        select: Other labelled samples to choose on, with ``attack`` only.
        tap: The tensor; None for the default one.
        feature_axis: Overrules its feature axis.
        rounds: How often to select at most; 3 with an attack and 1 with adversarial samples where None.
        seed: Of the split.
        batch_size: Samples at a time. Activations at the tap are kept for all samples.
        without_gain: Whether to return the best mask where none makes more samples of the select part hold.
        engine: Where batches are attacked; :func:`~cloakonnx.engine.choice.default_engine` chooses where None.
        on_progress: Called after every removal.
        on_samples: Called after every batch of adversarial inputs with how many there are by now, of all rounds.

    Raises:
        DataError: no labels, labels of one class, too few samples, adversarial samples that do not fit.
        TapError, ModelError: the tap can't be masked, or leads nowhere.
        OptionError: settings that make no sense.
        NoGainError: no mask within the budget gains, and ``without_gain`` was not given.

    Examples:
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=100)
        >>> fgsm = ck.attacks.FGSM(eps=1 / 16)
        >>> settings = {"budget": 0.1, "rounds": 1, "without_gain": True}
        >>> found = ck.select_greedy("samples/digits_cnn.onnx", data, attack=fgsm, **settings)
        >>> found.masks[0].weights.shape
        (64,)
    """
    classifier = classifier_of(model)
    dataset = Dataset.of(samples, classifier)
    moved_to = None if adversarial is None else Dataset.of(adversarial, classifier)
    selecting = None if select is None else Dataset.of(select, classifier)
    if rounds is None:
        rounds = _ROUNDS if adversarial is None else 1
    _check(budget, rounds, attack, adversarial, select)
    classifier.check_unmasked("greedy selection")
    source = classifier.model
    check_opset(source)
    chosen = find_tap(source, tap, axis=feature_axis)
    engine = engine or default_engine(classifier.provider, dataset, batch_size)
    classifier = classifier.with_threads(engine.threads)
    for each in (dataset, moved_to, selecting):
        if each is not None:
            each.fitted_to(classifier)
    classifier, notes = reading(classifier, dataset, inside="greedy selection")
    climbs = attack is not None and attack.by_gradient
    passes = attack is not None and attack.passes_straight
    notes += first_doubts(classifier, dataset, climbs=climbs, straight_through=passes)
    fit = Loaded.read(dataset)
    fit.check_classes()
    pairs = None if moved_to is None else _read_adversarial(dataset, moved_to, fit)
    moved: tuple[Loaded | None, Loaded | None] = (
        (None, None) if pairs is None else split(pairs, strata=classifier.task.strata, seed=seed)
    )
    fit, held = (
        split(fit, strata=classifier.task.strata, seed=seed) if selecting is None else (fit, Loaded.read(selecting))
    )
    held.check_classes()
    search = _Search(
        Ablations(classifier, chosen),
        _Attacker(classifier, chosen, settings=attack, size=batch_size, engine=engine),
        samples=(fit, held),
        adversarial=moved,
        budget=budget,
        tell=(on_progress, on_samples),
    )
    best = search.run(rounds)
    if best is None or (best.robust <= search.robust_before and not without_gain):
        raise NoGainError("; ".join((search.no_gain(best, chosen.name, budget), *notes)), parameter=("budget", "force"))
    source.check_unchanged()
    weights = mask_without(search.features, best.step.removed).astype(np.float32)
    return Analysis(
        model_name=source.name,
        model_sha256=source.sha256,
        preprocessing=dataset.preprocessing,
        samples=SampleSet(
            clean=fit.name,
            adversarial=None if moved_to is None else moved_to.source.name,
            count=len(fit) + len(held),
            largest_difference=search.largest_difference,
            hashes=fit.hashes + held.hashes,
        ),
        provider=classifier.provider.name,
        threads=classifier.provider.threads,
        notes=notes,
        masks=(Mask(chosen.name, weights, chosen.feature_axis),),
        attack=None if attack is None else attack.record(),
        selection=search.record(best, budget=budget, seed=seed, held_out=select is None),
    )


class _Attacker:
    """Makes adversarial inputs for the model as it is masked."""

    def __init__(
        self,
        classifier: Classifier,
        tap: Tap,
        *,
        settings: Attack | None,
        size: int,
        engine: Engine,
    ) -> None:
        self._classifier, self._tap, self._settings, self._engine = classifier, tap, settings, engine
        self.task, self.size = classifier.task, size
        self.is_there = settings is not None

    def under(self, mask: NDArray[np.bool_], samples: Loaded) -> Iterator[NDArray[np.float32]]:
        """Yield the adversarial inputs of some samples batch by batch."""
        assert self._settings is not None
        classifier = self._classifier
        if not mask.all():
            weights = Mask(self._tap.name, mask.astype(np.float32), self._tap.feature_axis)
            classifier = classifier.beside(hardened(classifier.model, [weights]))
        work = MakePairs(classifier, self._settings, samples.x.shape[1:], samples.name)
        batches = (Batch(each.x, each.y, int(each.indices[0])) for each in samples.labelled(self.size))
        with map_batches(work, batches, engine=self._engine) as handled:
            yield from (pairs.adversarial for _, pairs in handled)


class _Search:
    """The loop."""

    def __init__(
        self,
        ablations: Ablations,
        attacker: _Attacker,
        *,
        samples: tuple[Loaded, Loaded],
        adversarial: tuple[Loaded | None, Loaded | None],
        budget: float,
        tell: tuple[Callable[[GreedyProgress], None], Callable[[int], None]],
    ) -> None:
        self._ablations, self._attacker, self._task = ablations, attacker, attacker.task
        self._tell, self._tell_samples = tell
        self._made = 0
        self.features = ablations.features(samples[0].pixels(slice(0, 1)))
        self._fit, self._held = (self._side(*each, budget) for each in zip(samples, adversarial, strict=True))
        self.robust_before = 0
        self.largest_difference = 0.0
        self._rounds: list[_Candidate] = []
        self._paths: list[Step] = []

    def run(self, rounds: int) -> _Candidate | None:
        """Select; return the best mask, None where no removal helps."""
        mask = np.ones(self.features, np.bool_)
        self._attack(self._held, mask)
        self.robust_before = self._held.holds(mask)
        for number in range(1, rounds + 1):
            self._attack(self._fit, mask)
            step = self._select(number)
            if not step.removed or any(set(step.removed) == set(known.step.removed) for known in self._rounds):
                break
            mask = mask_without(self.features, step.removed)
            if self._attacker.is_there:
                self._attack(self._held, mask)
            self._rounds.append(_Candidate(number, step, self._held.holds(mask)))
        return max(self._rounds, key=lambda found: (found.robust, found.step.correct, -found.round), default=None)

    def _select(self, number: int) -> Step:
        fit, held = self._fit, self._held

        def tell(step: Step) -> None:
            self._tell(GreedyProgress(number, step, len(fit.samples)))

        path = greedy_path(fit.part, self.features, least=fit.least, on_step=tell)
        step = best_prefix(path, held.part, self.features, least=held.least)
        self._paths.append(path[len(step.removed)])
        return step

    def _side(self, samples: Loaded, adversarial: Loaded | None, budget: float) -> _Side:
        self._task.check(samples.y, self._ablations.classes, source=samples.name)
        clean = self._ablations.of(samples.batches(self._attacker.size))
        before = Part(samples.y, clean, (), self._task).correct(np.ones(self.features, np.bool_))
        return _Side(samples, adversarial, clean, before, least_correct(before, len(samples), budget), self._task)

    def _attack(self, side: _Side, mask: NDArray[np.bool_]) -> None:
        """Add the inputs of an attack made under a mask, or those given."""
        size = self._attacker.size
        given = side.adversarial is not None
        inputs = (
            side.adversarial.batches(size) if side.adversarial is not None else self._attacker.under(mask, side.samples)
        )
        side.attacked.append(self._ablations.of(self._measured(inputs, side.samples)))
        if not np.isfinite(side.part.objective(np.ones(self.features, np.bool_))):
            kind = "adversarial samples" if given else "attacked samples"
            raise InferenceError(f"{side.samples.name}: the class scores of {kind} are not finite")

    def _measured(self, inputs: Iterator[NDArray[np.float32]], samples: Loaded) -> Iterator[NDArray[np.float32]]:
        for x, clean in zip(inputs, samples.batches(self._attacker.size), strict=True):
            self.largest_difference = max(self.largest_difference, float(np.abs(x - clean).max()))
            self._made += len(x)
            self._tell_samples(self._made)
            yield x

    def record(self, best: _Candidate, *, budget: float, seed: int, held_out: bool) -> dict[str, Any]:
        """Return what the analysis keeps of the search."""
        fit, held = self._fit, self._held
        return {
            "method": "greedy",
            "budget": budget,
            "seed": seed,
            "attack_made_again": self._attacker.is_there,
            "fit": {"source": fit.samples.name, "count": len(fit.samples), "clean_before": fit.before},
            "select": {
                "source": held.samples.name,
                "held_out": held_out,
                "count": len(held.samples),
                "clean_before": held.before,
                "robust_before": self.robust_before,
            },
            "chosen_round": best.round,
            "rounds": [
                {
                    "round": found.round,
                    "removed": list(found.step.removed),
                    "fit_clean": path.correct,
                    "fit_objective": path.objective,
                    "select_clean": found.step.correct,
                    "select_objective": found.step.objective,
                    "select_robust": found.robust,
                }
                for found, path in zip(self._rounds, self._paths, strict=False)
            ],
        }

    def no_gain(self, best: _Candidate | None, tap: str, budget: float) -> str:
        """Return the message where no mask gains."""
        start = f"removing features of {tap!r} within the budget of {100 * budget:g} points"
        count = len(self._held.samples)
        if best is None:
            return (
                f"{start} helps none of the {count} select samples on the whole; raise {{budget}}, choose another tap, "
                "or learn masks at many: cloakonnx learn"
            )
        again = " once the attack is made again" if self._attacker.is_there else ""
        return (
            f"{start} gains nothing{again}: at best {best.robust} of {count} select samples hold (before: "
            f"{self.robust_before}); raise {{budget}}, choose another tap, learn masks at many (cloakonnx learn), or "
            "write the mask as it is with {{force}}"
        )


def _check(
    budget: float, rounds: int, attack: Attack | None, adversarial: SamplesLike | None, select: SamplesLike | None
) -> None:
    if not 0 <= budget < 1:
        raise OptionError(f"{{budget}} {budget:g} must be a share from 0 to 1, such as 1%", parameter="budget")
    if rounds < 1:
        raise OptionError(f"{{rounds}} {rounds} must be at least 1", parameter="rounds")
    if (attack is None) == (adversarial is None):
        raise OptionError("greedy selection needs either an attack or adversarial versions of the samples")
    if adversarial is not None and rounds > 1:
        raise OptionError(
            "with {adversarial} there is one round: only {attack} can be made again on the masked model",
            parameter=("adversarial", "attack"),
        )
    if adversarial is not None and select is not None:
        raise OptionError(
            "{select} goes with {attack}: its samples have no adversarial versions", parameter=("select", "attack")
        )
    if attack is not None and attack.is_targeted:
        raise OptionError("greedy selection takes untargeted attacks")


def _read_adversarial(dataset: Dataset, adversarial: Dataset, clean: Loaded) -> Loaded:
    """Return the adversarial versions, in the order of the clean samples and with their labels."""
    pairs = FittedPairs(dataset, adversarial)
    if pairs.clean is not dataset:
        raise DataError(
            f"{adversarial.source.name} has versions of the first samples of {dataset.source.name}, and {{limit}} "
            "takes the classes evenly; give a file of these samples alone",
            parameter="limit",
        )
    x = np.concatenate([batch.adversarial for batch in pairs.batches(DEFAULT_BATCH_SIZE)])
    return Loaded(adversarial.source.name, x, clean.y, tuple(sample_hashes(x)))
