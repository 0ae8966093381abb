"""What an analysis records of how masks were learned or selected; for the published schema, which describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from cloakonnx.entries import OMITTED, Positive, Probability, Whole

Above0 = Annotated[float, Meta(gt=0)]
From0 = Annotated[float, Meta(ge=0)]
ShareBelow1 = Annotated[float, Meta(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class RecipeRecord:
    """Every setting of ``learn``.

    Attributes:
        eps: In pixel space.
        budget: A share.
        eps_factor: How much wider the ball is while masks are learned.
        warm_up: A share of the steps.
        shift: Pixels.
        parts: Parts that each batch was cut into.
        bounds: Of the weights.
    """

    eps: Above0
    budget: ShareBelow1
    norm: Literal["linf", "l2"]
    granularity: Literal["feature", "element", "weight-channel", "kernel", "weight", "channel"]
    eps_factor: Annotated[Above0, OMITTED] = 1.0
    inner_steps: Positive
    loss: Literal["soft-ce", "ce", "trades"]
    clean_weight: From0
    epochs: Positive
    learning_rate: Above0
    warm_up: Probability
    batch_size: Positive
    parts: Annotated[Positive, OMITTED] = 1
    flip: bool
    shift: Annotated[Whole, OMITTED] = 0
    bounds: tuple[From0, From0]
    l1: From0
    zero_below: ShareBelow1
    foldable: bool
    seed: Whole


@dataclass(frozen=True)
class SelectRecord:
    """The samples that the masks were chosen on.

    Attributes:
        source: Name of their source.
        held_out: Whether it is a part of the data.
        count: The number of samples.
        attacked: The number of them that were attacked.
        attack_steps: Steps of the PGD that attacked them.
        clean_before: The number that was right without masks.
        robust_before: The number of attacked ones that was right without masks.
    """

    source: str
    held_out: bool
    count: Positive
    attacked: Positive
    attack_steps: Positive
    clean_before: Whole
    robust_before: Whole


@dataclass(frozen=True)
class ChoiceRecord:
    """Which masks were taken.

    Attributes:
        epoch: Of which epoch.
        blend: How far from none (0) to learned (1).
        clean: The number of select samples that are right under them.
        robust: The number of attacked select samples that are right under them.
        within_budget: Whether the loss of clean accuracy is within the budget.
        converged: The number of robust samples for which more steps of the attack change nothing; left out if 0.
    """

    epoch: Positive
    blend: Annotated[float, Meta(gt=0, le=1)]
    clean: Whole
    robust: Whole
    within_budget: bool
    converged: Annotated[Whole, OMITTED] = 0


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """An epoch.

    Attributes:
        epoch: Its number, from 1 on.
        eps: The radius of the attack, in pixel space.
        loss: Mean loss.
        start_accuracy: Accuracy where the attacks start.
        clean_accuracy: In its place in files of version 0.1.0: accuracy on the clean samples.
        adversarial_accuracy: Accuracy where they end.
        select_clean: The number of select samples that are right.
        select_robust: The number of attacked select samples that are right.
    """

    epoch: Positive
    eps: Above0
    loss: float
    start_accuracy: Annotated[Probability, OMITTED] = 0.0
    clean_accuracy: Annotated[Probability, OMITTED] = 0.0
    adversarial_accuracy: Probability
    select_clean: Whole
    select_robust: Whole


@dataclass(frozen=True)
class Learning:
    """How masks were learned.

    Attributes:
        recipe: Every setting.
        select: The samples that the masks were chosen on.
        chosen: Which masks were taken.
        curve: One entry for each epoch.
    """

    recipe: RecipeRecord
    select: SelectRecord
    chosen: ChoiceRecord
    curve: Annotated[tuple[EpochRecord, ...], Meta(min_length=1)]


@dataclass(frozen=True)
class FitRecord:
    """The samples that features are selected on.

    Attributes:
        source: Name of their source.
        count: The number of samples.
        clean_before: The number that was right without a mask.
    """

    source: str
    count: Positive
    clean_before: Whole


@dataclass(frozen=True)
class GreedySelectRecord:
    """The samples that decide how many features go and which round is taken.

    Attributes:
        source: Name of their source.
        held_out: Whether it is a part of the data.
        count: The number of samples.
        clean_before: The number that was right without a mask.
        robust_before: The number that was right under attack without a mask.
    """

    source: str
    held_out: bool
    count: Positive
    clean_before: Whole
    robust_before: Whole


@dataclass(frozen=True)
class RoundRecord:
    """A round; an objective is the mean of sigmoid(margin) on the adversarial inputs of this round and those before it.

    Attributes:
        round: Its number, from 1 on.
        removed: What it removed, in order.
        fit_clean: The number of fit samples that are right.
        fit_objective: Objective on the fit part.
        select_clean: The number of select samples that are right.
        select_objective: Objective on the select part.
        select_robust: The number of select samples that are right under attack.
    """

    round: Positive
    removed: Annotated[tuple[Whole, ...], Meta(min_length=1)]
    fit_clean: Whole
    fit_objective: Probability
    select_clean: Whole
    select_objective: Probability
    select_robust: Whole


@dataclass(frozen=True)
class Selection:
    """How features were selected.

    Attributes:
        method: The search.
        budget: Share of the samples.
        seed: Of the split.
        attack_made_again: Whether select_robust counts inputs that were made on the masked model; else they are the
            given adversarial versions, which were made on another one.
        fit: The samples that features are selected on.
        select: The samples that decide how many features go and which round is taken.
        chosen_round: The round that was taken.
        rounds: What each round removed, and what it gave.
    """

    method: Literal["greedy"]
    budget: ShareBelow1
    seed: Whole
    attack_made_again: bool
    fit: FitRecord
    select: GreedySelectRecord
    chosen_round: Positive
    rounds: Annotated[tuple[RoundRecord, ...], Meta(min_length=1)]
