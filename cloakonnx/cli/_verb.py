"""A verb is a function whose annotations say what the command line takes::

    @verb("strip")
    def command(model: ModelFile, output: Output, as_json: Json) -> None: ...

A parameter is one option or argument, ``Annotated[type, option("--tap")]``, or a group: a frozen dataclass whose fields
are options and whose methods give what the options describe. Options are shown in the order of the parameters and of
the fields; ``place`` moves single ones. A group's subclass may replace a field by another option at the same place, or
by a plain default, which is no option then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    get_args,
    get_origin,
    runtime_checkable,
)

import click

Place = Literal["here", "before runs", "last"]
"""Where an option is shown: where it stands, before the options of how a model is run, or at the end."""

_DECLARED, _PLACE = "declared", "place"


class _Text(click.types.StringParamType):
    """A text that is not empty: an empty one, as of an unset variable, is not taken for an option that is left out."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        if value == "":
            self.fail("is empty; give a value, or leave the option out", param, ctx)
        return str(super().convert(value, param, ctx))


TEXT = _Text()


@runtime_checkable
class Checked(Protocol):
    """A type whose value is looked at once all options are known, before the verb runs."""

    def check(self, param: click.Parameter, values: Mapping[str, Any]) -> None:
        """Raise UsageError for a value that is wrong beside the others."""


class Placed(NamedTuple):
    """An option or argument of click, and where it is shown."""

    parameter: click.Parameter
    place: Place = "here"


def option(*flags: str, place: Place = "here", **attributes: Any) -> Any:
    """Declare an option: as the default of a group's field, or in the ``Annotated`` type of a verb's parameter.

    Args:
        flags: As click takes them; the field or parameter names the value.
        place: Where it is shown.
        attributes: Of :class:`click.Option`.
    """
    empty = () if attributes.get("multiple") else False if attributes.get("is_flag") else None
    default = MISSING if attributes.get("required") else attributes.get("default", empty)

    if not attributes.get("is_flag") and not any("/" in flag for flag in flags):
        attributes.setdefault("type", TEXT)

    def declared(name: str) -> click.Parameter:
        return click.Option([*flags, name], **attributes)

    return field(default=default, metadata={_DECLARED: declared, _PLACE: place})


def argument(**attributes: Any) -> Any:
    """Declare an argument; takes the attributes of :class:`click.Argument`."""

    def declared(name: str) -> click.Parameter:
        return click.Argument([name], **attributes)

    return field(metadata={_DECLARED: declared, _PLACE: "here"})


@dataclass(frozen=True, kw_only=True)
class Group:
    """Options that belong together, with what they describe as methods."""

    runs: ClassVar[bool] = False
    """Whether options placed "before runs" are shown before these."""

    @classmethod
    def options(cls) -> Iterator[Placed]:
        """Yield the options of the fields."""
        return (placed for each in fields(cls) if (placed := _placed(each, each.name)) is not None)

    @classmethod
    def made(cls, values: Mapping[str, Any]) -> Self:
        """Return the group with the values that click parsed."""
        return cls(**{each.name: values[each.name] for each in fields(cls) if _DECLARED in each.metadata})


def verb(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function the command of a verb; its docstring is the help."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        taken = [_taken(each) for each in inspect.signature(function, eval_str=True).parameters.values()]

        def run(**values: Any) -> Any:
            for each in click.get_current_context().command.params:
                if isinstance(each.type, Checked):
                    each.type.check(each, values)
            return function(**{each.name: each.read(values) for each in taken})

        return click.Command(name, params=list(_ordered(taken)), callback=run, help=function.__doc__)

    return decorate


class _Taken(NamedTuple):
    """A parameter of a verb's function: its options, and what makes its value of theirs."""

    name: str
    options: tuple[Placed, ...]
    read: Callable[[Mapping[str, Any]], Any]
    runs: bool = False


def _taken(parameter: inspect.Parameter) -> _Taken:
    name, annotation = parameter.name, parameter.annotation
    if isinstance(annotation, type) and issubclass(annotation, Group):
        return _Taken(name, tuple(annotation.options()), annotation.made, annotation.runs)
    for each in get_args(annotation) if get_origin(annotation) is Annotated else ():
        if isinstance(each, Field) and (placed := _placed(each, name)) is not None:
            return _Taken(name, (placed,), lambda values: values[name])
    raise TypeError(f"parameter {name} has neither a group nor an option as its type")


def _placed(declared: Field[Any], name: str) -> Placed | None:
    make = declared.metadata.get(_DECLARED)
    return None if make is None else Placed(make(name), declared.metadata[_PLACE])


def _ordered(taken: Iterable[_Taken]) -> Iterator[click.Parameter]:
    """Yield the options in the order of the help."""
    waiting: list[click.Parameter] = []
    last: list[click.Parameter] = []
    for each in taken:
        by_place = {"before runs": waiting, "last": last}
        here = [p.parameter for p in each.options if p.place not in by_place]
        if each.runs:
            yield from waiting
            waiting = []
        yield from here
        for parameter, place in each.options:
            if place == "before runs":
                waiting.append(parameter)
            elif place == "last":
                last.append(parameter)
    yield from (*waiting, *last)
