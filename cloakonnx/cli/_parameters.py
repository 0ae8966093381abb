"""What the command line calls the parameters that errors name."""

from __future__ import annotations

_DIFFERENT = {
    "address": "--engine",
    "Recipe.bounds": "--mask-bounds",
    "amount": "--remove",
    "amounts": "--remove",
    "input_name": "--input",
    "output": "-o",
    "round_levels": "--round",
    "select": "--select-data",
    "tap_patterns": "--tap-pattern",
    "taps": "--tap",
}


def option_of(parameter: str) -> str:
    """Return the option of a parameter: ``--eps-step`` of ``eps_step``, and of a few that differ."""
    return _DIFFERENT.get(parameter, f"--{parameter.replace('_', '-')}")
