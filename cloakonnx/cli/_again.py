"""Writes the command line again, as somebody else may use it: without local folders, and without names of outputs."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from cloakonnx.urls import name_of


def command_line(*, silent: Collection[str]) -> str:
    """Return the running verb's command line, with every option that was given or set by a file.

    Args:
        silent: Names of the values that are left out.
    """
    context = click.get_current_context()
    words = ["cloakonnx", str(context.command.name)]
    for parameter in context.command.params:
        value, name = context.params.get(str(parameter.name)), str(parameter.name)
        if name in silent or context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT:
            continue
        if isinstance(parameter, click.Argument):
            words.append(_word(value))
        elif isinstance(parameter, click.Option) and value is not None and value != ():
            words += _option(parameter, value)
    return shlex.join(words)


def _option(option: click.Option, value: Any) -> list[str]:
    flag = next(each for each in option.opts if each.startswith("--"))
    if option.is_flag:
        return [flag] if value else list(option.secondary_opts[:1])
    values = value if option.multiple else [value]
    return [word for each in values for word in (flag, _word(each))]


def _word(value: Any) -> str:
    from cloakonnx.text import eps_exact

    if isinstance(value, Path):
        return name_of(value)
    if isinstance(value, float):
        return eps_exact(value)
    return ",".join(map(_word, value)) if isinstance(value, tuple) else str(value)
