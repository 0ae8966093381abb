"""A model, its baseline where there is one, and the random masks on one batch: every plan, everything tried on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from cloakonnx.attacks.base import Attack, make
from cloakonnx.attacks.cost import most_work
from cloakonnx.attacks.presets import passing
from cloakonnx.attacks.victim import Gradients, Victim
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.evaluation.adversarial import GIVEN, GivenInputs
from cloakonnx.evaluation.controls import control
from cloakonnx.evaluation.estimate import Costs
from cloakonnx.evaluation.outcomes import Found, FoundAtEps, FoundOfModel, Outcomes, Won
from cloakonnx.evaluation.samples import MOST, Turned
from cloakonnx.evaluation.trial import Meter, Trial


class Comparison:
    """One model, or two, under the same plans.

    Args:
        model: The model.
        baseline: What it is compared with; None where it is evaluated alone.
        shuffled: Models whose masks remove as many features at random.
        plans: The attacks, one plan for each eps.
        norm: The balls' norm.
        seed: Of all random numbers.
    """

    def __init__(
        self,
        model: Victim,
        baseline: Victim | None,
        shuffled: Sequence[Victim],
        plans: Sequence[tuple[Attack, ...]],
        *,
        norm: Literal["linf", "l2"],
        seed: int,
    ) -> None:
        self._model, self._baseline, self._shuffled, self._plans = model, baseline, shuffled, plans
        self._norm, self._seed = norm, seed
        self._victims = (model,) if baseline is None else (model, baseline)
        self._gradients = {victim: Gradients.of(victim) for victim in (*self._victims, *shuffled[:1])}

    def on(
        self,
        batch: LabelledBatch,
        on_share: Callable[[float], None] = lambda share: None,
        *,
        keep_turned: bool = False,
        keep_won: bool = False,
        given: GivenInputs | None = None,
    ) -> Found:
        """Evaluate a batch.

        Args:
            batch: The samples.
            on_share: Called with the share of the batch's work that is done, below 1.
            keep_turned: Whether to count the samples gained and lost at the first eps, and to keep the first of each.
            keep_won: Whether to keep every input that won against the model.
            given: Inputs made elsewhere: those within the ball are tried on each model.
        """
        x, y = batch.x, batch.y
        meter = Meter(self._work(), on_share)
        decisions = [victim.decided(x) for victim in self._victims]
        task = self._model.task
        said, tied = tuple(each for each, _ in decisions), tuple(int(each.sum()) for _, each in decisions)
        clean = tuple(task.agrees(each, y) for each in said)
        unscored = tuple(int(task.undecided(each).sum()) for each in said)
        clean_random = tuple(victim.right(x, y) for victim in self._shuffled)
        at: list[FoundAtEps] = []
        turned = None
        for attacks in self._plans:
            trials = [Trial(v, batch, right, meter) for v, right in zip(self._victims, clean, strict=True)]
            static = self._attack(attacks, trials)
            if given is not None:
                for trial in trials:
                    trial.replay(given.inside(batch, attacks[0].eps, self._norm), name=GIVEN)
            fallen = [trial.fallen for trial in trials]
            usual = self._control(attacks[0].eps)
            noise = self._noise(attacks[0].eps)
            found = [_found(trial, noise, usual) for trial in trials]
            if keep_won:
                found[0] = replace(found[0], won=self._won(batch, trials[0]))
            if keep_turned and not at:
                turned = self._turned(batch, trials, fallen)
            random = tuple(
                Trial(victim, batch, right, meter).controls(usual)[0]
                for victim, right in zip(self._shuffled, clean_random, strict=True)
            )
            beside = found[1] if len(found) > 1 else None
            at.append(FoundAtEps(attacks[0].eps, *static, found[0], beside, random))
        clean_baseline = clean[1] if len(clean) > 1 else None
        return Found(clean[0], clean_baseline, clean_random, tuple(at), unscored, tied, y, said, turned)

    def _attack(self, attacks: Sequence[Attack], trials: Sequence[Trial]) -> tuple[Outcomes | None, Outcomes | None]:
        """Attack the models and try each one's inputs on the other; return what the baseline's inputs left of each."""
        model = trials[0]
        left: tuple[Outcomes | None, Outcomes | None] = (None, None)
        for baseline, victim in zip(trials[1:], self._victims[1:], strict=True):
            for settings in self._made_on(victim, attacks):
                baseline.attack(settings)
            model.replay(baseline.inputs)
            left = model.standing.copy(), baseline.standing.copy()
        for settings in self._made_on(self._model, attacks):
            model.attack(settings)
        for baseline in trials[1:]:
            baseline.replay(model.inputs)
        return left

    def _won(self, batch: LabelledBatch, trial: Trial) -> Won:
        """Return the first input that each sample of the model fell to."""
        rows = np.flatnonzero(trial.fallen)
        x = trial.won[rows]
        predicted = self._model.predict(x) if len(rows) else np.empty(0, np.int64)
        return Won(batch.indices[rows], x, predicted)

    def _turned(self, batch: LabelledBatch, trials: Sequence[Trial], fallen: Sequence[Outcomes]) -> Turned:
        """Keep samples that fell to the attacks on one model, and on the other to nothing."""
        model, baseline = trials
        gained, lost = fallen[1] & model.standing, fallen[0] & baseline.standing
        chosen = [np.flatnonzero(which)[:MOST] for which in (gained, lost)]
        rows = np.concatenate(chosen)
        won = np.concatenate([trial.won[which] for trial, which in zip((baseline, model), chosen, strict=True)])
        none = np.empty(0, np.int64)
        said = [victim.predict(won) if len(rows) else none for victim in self._victims]
        return Turned(
            index=batch.indices[rows],
            x=batch.x[rows],
            adversarial=won,
            y=batch.y[rows],
            hardened=said[0],
            baseline=said[1],
            gained=gained[rows],
            counts=np.array([gained.sum(), lost.sum()], np.int64),
        )

    def notes(self) -> tuple[str, ...]:
        """Say in words which attacks are not made as they stand on which model, for want of a gradient."""
        dead = [victim for victim in self._victims if self._gradients[victim].reason]
        made = {settings.name: None for victim in dead for settings in self._made_on(victim, self._plans[0])}
        missing = {settings.name: None for settings in self._plans[0] if dead and settings.name not in made}
        which = "either model" if len(dead) == 2 else "the model" if self._model in dead else "the baseline"
        if missing:
            why = self._gradients[dead[0]].reason
            replayed = " and replayed inputs" if self._baseline is not None else ""
            return (
                f"{', '.join(missing)} not made on {which}, which gives no gradient: {why}; "
                f"robust accuracy there is an upper bound by black-box attacks only ({', '.join(made)}{replayed})",
            )
        through = [settings.name for settings in self._plans[0] if settings.by_gradient]
        if not dead or not through:
            return ()
        take = "takes" if len(through) == 1 else "take"
        return (
            f"{', '.join(through)} {take} straight-through gradients on {which}, whose own are 0: "
            f"{self._gradients[dead[0]].reason}",
        )

    def _made_on(self, victim: Victim, attacks: Sequence[Attack]) -> Sequence[Attack]:
        """Return a plan as it is made on a model.

        Where every gradient is 0, straight-through ones are taken; where those are 0 as well, or an op has no rule,
        only the attacks that need none are made. A plan of nothing else stays, and ends in the error that names the op.
        """
        gradients = self._gradients[victim]
        if not gradients.reason:
            return attacks
        if gradients.zero and gradients.pass_straight:
            return passing(attacks)
        return [each for each in attacks if not each.by_gradient] or attacks

    def control_settings(self) -> dict[str, Any]:
        """Return the settings of the control attack, except what depends on eps."""
        settings = self._control(self._plans[0][0].eps).record()
        return {key: value for key, value in settings.items() if key not in {"eps", "eps_step"}}

    def costs(self, shape: tuple[int, ...], *, batch_size: int) -> Costs:
        """Measure what samples of this shape cost; what it runs changes no result."""
        return Costs(
            {victim: [self._made_on(victim, attacks) for attacks in self._plans] for victim in self._victims},
            [self._control(attacks[0].eps) for attacks in self._plans],
            random_masks=len(self._shuffled),
            shape=shape,
            batch_size=batch_size,
        )

    def _work(self) -> int:
        """What a sample of a batch asks of all models at most."""
        work = 0
        for attacks in self._plans:
            for victim in self._victims:
                made = (*self._made_on(victim, attacks), self._noise(attacks[0].eps))
                work += sum(most_work(each, victim).total for each in made)
            usual = self._control(attacks[0].eps)
            work += sum(most_work(usual, each).total for each in (*self._victims, *self._shuffled))
        return work

    def _noise(self, eps: float) -> Attack:
        return make("noise", eps=eps, norm=self._norm, seed=self._seed)

    def _control(self, eps: float) -> Attack:
        known, asked = self._gradients.values(), any(each.passes_straight for each in self._plans[0])
        return control(
            eps,
            norm=self._norm,
            seed=self._seed,
            gradients=not any(each.missing for each in known),
            straight_through=asked or any(each.zero for each in known),
        )


def _found(trial: Trial, noise: Attack, usual: Attack) -> FoundOfModel:
    noisy, controlled = trial.controls(noise, usual)
    return FoundOfModel(trial.standing, noisy, controlled, tuple(trial.stages), trial.by)
