"""Greedy selection for ``cloakonnx analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloakonnx.cli import attack_options, options
from cloakonnx.cli.output import progress, say

if TYPE_CHECKING:
    from cloakonnx.data import Dataset
    from cloakonnx.graph import Model
    from cloakonnx.runtime import Provider
    from cloakonnx.scoring import Analysis
    from cloakonnx.selection import GreedyProgress


def select(
    model: Model,
    dataset: Dataset,
    rest: attack_options.AttackAndDataOptions,
    *,
    budget: float,
    twins: Dataset | None,
    select_data: Path | None,
    provider: Provider,
    without_gain: bool,
    **settings: Any,
) -> Analysis:
    """Select features as the options say."""
    from cloakonnx.selection import select_greedy

    attack = None
    if twins is None:
        ((attack, _),) = attack_options.attack_settings(rest, early_stop=False)

    def on_progress(now: GreedyProgress) -> None:
        step = now.step
        say(
            f"round {now.round}: {len(step.removed)} removed, last {step.removed[-1]}; clean {step.correct} of "
            f"{now.count}, objective {step.objective:.4f}"
        )

    with progress("adversarial inputs", None) as advance:
        return select_greedy(
            model,
            dataset,
            budget=budget,
            provider=provider,
            attack=attack,
            twins=twins,
            select=None if select_data is None else options.part(model, select_data, rest, settings["input_name"]),
            seed=rest["seed"],
            without_gain=without_gain,
            on_progress=on_progress,
            on_samples=advance,
            **settings,
        )


def tell(result: Analysis, target: Path) -> None:
    """Say what was selected, and what it is worth on the select part."""
    found = cast("dict[str, Any]", result.selection)
    part, (mask,) = found["select"], result.masks
    best = next(each for each in found["rounds"] if each["round"] == found["chosen_round"])
    say(
        f"{mask.tap}: {len(mask.removed)} of {len(mask.weights)} features removed (round {best['round']} of "
        f"{len(found['rounds'])}, {result.provider}): {', '.join(map(str, best['removed']))}"
    )
    made = "the attack made again" if found["attack_made_again"] else "the same adversarial inputs (static)"
    say(
        f"select part ({part['source']}, {part['count']} samples): clean {best['select_clean']} (before: "
        f"{part['clean_before']}), robust under {made} {best['select_robust']} (before: {part['robust_before']})"
    )
    if best["select_robust"] <= part["robust_before"]:
        say("warning: no more samples hold than without the mask")
    say(f"wrote {target}")
