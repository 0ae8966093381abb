"""A hardened model, its baseline and the random masks on one batch: every plan on both, everything tried on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from cloakonnx.attacks import Settings, Victim, most_work
from cloakonnx.errors import DifferentiationError
from cloakonnx.evaluation.estimate import seconds_per_sample
from cloakonnx.evaluation.meter import Meter
from cloakonnx.evaluation.plan import control
from cloakonnx.evaluation.tally import Found, FoundAtEps, FoundOfModel, Outcomes
from cloakonnx.evaluation.trial import Samples, Trial
from cloakonnx.evaluation.turned import Turned
from cloakonnx.gradient import Loss


class Comparison:
    """Two models under the same plans.

    Args:
        model: The hardened model.
        baseline: What it is compared with.
        shuffled: Models whose masks remove as many features at random.
        plans: The attacks, one plan for each eps.
        norm: The balls' norm.
        seed: Of all random numbers.
    """

    def __init__(
        self,
        model: Victim,
        baseline: Victim,
        shuffled: Sequence[Victim],
        plans: Sequence[tuple[Settings, ...]],
        *,
        norm: Literal["linf", "l2"],
        seed: int,
    ) -> None:
        self._model, self._baseline, self._shuffled, self._plans = model, baseline, shuffled, plans
        self._norm, self._seed = norm, seed
        victims = (model, baseline, *shuffled[:1])
        self._has_gradients = all(map(_differentiable, victims))

    def on(
        self,
        batch: Samples,
        on_share: Callable[[float], None] = lambda share: None,
        keep: tuple[int, int] | None = None,
    ) -> Found:
        """Evaluate a batch.

        Args:
            batch: The samples.
            on_share: Called with the share of the batch's work that is done, below 1.
            keep: How many samples to keep at most of those gained and of those lost at the first eps; None for none,
                and not to count them either.
        """
        x, y = batch.x, batch.y
        meter = Meter(self._work(), on_share)
        clean, clean_baseline = (victim.predict(x) == y for victim in (self._model, self._baseline))
        clean_random = tuple(victim.predict(x) == y for victim in self._shuffled)
        at: list[FoundAtEps] = []
        turned = None
        for attacks in self._plans:
            model = Trial(self._model, batch, clean, meter)
            baseline = Trial(self._baseline, batch, clean_baseline, meter)
            static, beside = _attack(attacks, model, baseline)
            fallen = model.fallen, baseline.fallen
            usual = self._control(attacks[0].eps)
            noise = self._noise(attacks[0].eps)
            hardened, bare = (_found(trial, noise, usual) for trial in (model, baseline))
            if keep is not None and not at:
                turned = self._turned(batch, model, baseline, fallen, keep)
            random = tuple(
                Trial(victim, batch, right, meter).controls(usual)[0]
                for victim, right in zip(self._shuffled, clean_random, strict=True)
            )
            at.append(FoundAtEps(static, beside, hardened, bare, random))
        return Found(clean, clean_baseline, clean_random, tuple(at), turned)

    def _turned(
        self, batch: Samples, model: Trial, baseline: Trial, fallen: tuple[Outcomes, Outcomes], keep: tuple[int, int]
    ) -> Turned:
        """Keep samples that fell to the attacks on one model, and on the other to nothing."""
        gained, lost = fallen[1] & model.standing, fallen[0] & baseline.standing
        chosen = [np.flatnonzero(which)[:most] for which, most in zip((gained, lost), keep, strict=True)]
        rows = np.concatenate(chosen)
        won = np.concatenate([trial.won[which] for trial, which in zip((baseline, model), chosen, strict=True)])
        none = np.empty(0, np.int64)
        said = [victim.predict(won) if len(rows) else none for victim in (self._model, self._baseline)]
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

    def control_settings(self) -> dict[str, Any]:
        """Return the settings of the control attack, but for what depends on eps."""
        settings = self._control(self._plans[0][0].eps).as_dict()
        return {key: value for key, value in settings.items() if key not in {"eps", "eps_step"}}

    def seconds_per_sample(self, shape: tuple[int, ...], *, batch_size: int, channel_axis: int) -> float:
        """Measure what a sample of this shape takes at most; what it runs changes no result."""
        return seconds_per_sample(
            (self._model, self._baseline),
            self._plans,
            [self._control(attacks[0].eps) for attacks in self._plans],
            random_masks=len(self._shuffled),
            shape=shape,
            batch_size=batch_size,
            channel_axis=channel_axis,
        )

    def _work(self) -> int:
        """What a sample of a batch asks of all models at most."""
        work = 0
        for attacks in self._plans:
            of_both = (*attacks, self._noise(attacks[0].eps))
            work += 2 * sum(most_work(each, classes=self._model.classes).total for each in of_both)
            usual = most_work(self._control(attacks[0].eps), classes=self._model.classes).total
            work += (2 + len(self._shuffled)) * usual
        return work

    def _noise(self, eps: float) -> Settings:
        return Settings("noise", eps, self._norm, seed=self._seed)

    def _control(self, eps: float) -> Settings:
        return control(eps, norm=self._norm, seed=self._seed, gradients=self._has_gradients)


def _attack(attacks: Sequence[Settings], model: Trial, baseline: Trial) -> tuple[Outcomes, Outcomes]:
    """Attack both models, try each one's inputs on the other; return what the baseline's inputs left of each."""
    for settings in attacks:
        baseline.attack(settings)
    model.replay(baseline.inputs)
    static, beside = model.standing.copy(), baseline.standing.copy()
    for settings in attacks:
        model.attack(settings)
    baseline.replay(model.inputs)
    return static, beside


def _found(trial: Trial, noise: Settings, usual: Settings) -> FoundOfModel:
    noisy, controlled = trial.controls(noise, usual)
    return FoundOfModel(trial.standing, noisy, controlled, tuple(trial.stages))


def _differentiable(victim: Victim) -> bool:
    try:
        victim.prepare(Loss.CE.climbed)
    except DifferentiationError:
        return False
    return True
