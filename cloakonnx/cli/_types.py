"""Parameter types: numbers as people write them."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import click

from cloakonnx.text import parse_fraction, parse_number

if TYPE_CHECKING:
    from cloakonnx.selection.topk import Amount

_MOST_AMOUNTS = 1000


class Number(click.ParamType[float]):
    """One number."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number as a float."""
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_number(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a number like 0.03, 8/255 or 5%", param, ctx)


class Steps(click.ParamType["int | str"]):
    """A number of steps, or the word for as many as change anything."""

    name = "integer or converged"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or the word."""
        if value == "converged":
            return "converged"
        try:
            steps = int(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor the word converged", param, ctx)
        if steps < 1:
            self.fail(f"{steps} is not in the range x>=1.", param, ctx)
        return steps


class Names(click.ParamType[str]):
    """Names with commas between them, as one text."""

    name = "names"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text without spaces around the names."""
        return ",".join(part.strip() for part in str(value).split(","))


class EnginePlace(click.ParamType[str]):
    """Where batches are handled: a word, or the address of a cluster."""

    name = "local|ray|auto|ADDRESS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, once it is known to be one of these."""
        from cloakonnx.engine.address import checked_address
        from cloakonnx.errors import OptionError

        try:
            return checked_address(str(value))
        except OptionError as error:
            self.fail(str(error), param, ctx)


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, count: int | None = None, *, example: str = "0.485,0.456,0.406") -> None:
        self._count, self._example = count, example

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers as a tuple of floats."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(parse_number(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like {self._example}", param, ctx)
        if self._count is not None and len(numbers) != self._count:
            self.fail(f"{value!r} has {len(numbers)} numbers, {self._count} are needed", param, ctx)
        return numbers


class ChannelNumbers(Numbers):
    """Numbers with commas between them, or a word for those of a data set."""

    name = "numbers or word"

    def __init__(self, field: Literal["mean", "std"]) -> None:
        super().__init__()
        self._field: Literal["mean", "std"] = field

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers as a tuple of floats."""
        if isinstance(value, tuple) or not str(value).strip()[:1].isalpha():
            return super().convert(value, param, ctx)
        from cloakonnx.errors import nearest
        from cloakonnx.preprocessing import NORMALISATIONS, named

        word = str(value).strip().lower()
        if word not in NORMALISATIONS:
            self.fail(
                f"{value!r} is not a list of numbers like {self._example}, and none of the words "
                f"{', '.join(NORMALISATIONS)}{nearest(word, NORMALISATIONS)}",
                param,
                ctx,
            )
        return named(self._field, word)


class Remove(click.ParamType["Amount"]):
    """How much to remove: a share with a percent sign, or a count."""

    name = "share% or count"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Amount:
        """Return a Share or a Count."""
        from cloakonnx.selection.topk import Count, Share

        if isinstance(value, (Count, Share)):
            return value
        text = str(value).strip()
        try:
            return Share(parse_number(text)) if text.endswith("%") else Count(int(text))
        except ValueError:
            self.fail(f"{value!r} is neither a share like 5% nor a count like 3", param, ctx)


class Amounts(click.ParamType["tuple[Amount, ...]"]):
    """Shares or counts: a list with commas, a range with two dots, or both; a range takes a step after a colon.

    Args:
        none: Whether the word ``none`` stands for no amount at all.
    """

    name = "amounts"

    def __init__(self, *, none: bool = False) -> None:
        self._none = none

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Amount, ...]:
        """Return Shares and Counts, in the order given."""
        if isinstance(value, tuple):
            return value
        text = str(value)
        if self._none and text.strip() == "none":
            return ()
        try:
            return tuple(amount for part in text.split(",") for amount in _amounts(part.strip()))
        except ValueError:
            self.fail(
                f"{text!r} is neither a range like 0%..30% or 0%..30%:5%, nor a list like 5%,10%, nor counts like 0..8",
                param,
                ctx,
            )


def _amounts(part: str) -> list[Amount]:
    """Read ``5%``, ``3``, ``0%..30%``, ``0..8`` or a range with ``:STEP``; raises ValueError for anything else."""
    from cloakonnx.selection.topk import Count, Share

    range_text, colon, step_text = part.partition(":")
    first, dots, last = range_text.partition("..")
    if colon and not dots:
        raise ValueError(part)
    texts = [first, *([last] if dots else []), *([step_text] if colon else [])]
    is_share = texts[0].strip().endswith("%")
    if any(text.strip().endswith("%") != is_share for text in texts):
        raise ValueError(part)
    # Fractions, so that the shares of a range are the same numbers as those of a list.
    numbers = [parse_fraction(text.strip().removesuffix("%")) for text in texts]
    if not is_share and any(number.denominator != 1 for number in numbers):
        raise ValueError(part)
    start, end, step = numbers[0], numbers[1] if dots else numbers[0], numbers[2] if colon else Fraction(1)
    if step <= 0 or end < start or start < 0 or (end - start) / step >= _MOST_AMOUNTS:
        raise ValueError(part)
    steps = range(int((end - start) / step) + 1)
    if is_share:
        return [Share(float((start + i * step) / 100)) for i in steps]
    return [Count(int(start + i * step)) for i in steps]
