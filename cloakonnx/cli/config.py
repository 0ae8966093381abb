"""``cloakonnx config``: which options are in force, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import click

from cloakonnx.cli._files import Json
from cloakonnx.cli._output import print_json, say, tell
from cloakonnx.cli._settings import SettingsFile, converted, read_settings
from cloakonnx.cli._settings import options as options_of
from cloakonnx.cli._verb import argument, option, verb
from cloakonnx.errors import OptionError, nearest


@verb("config")
def command(
    *,
    verbs: Annotated[tuple[str, ...], argument(metavar="[VERB]...", nargs=-1)],
    show: Annotated[bool, option("--show", is_flag=True, help="Print the options in force, as without it.")],
    as_json: Json,
) -> None:
    """Print the options in force, for all verbs or those named, and where each comes from.

    \b
    cloakonnx config
    cloakonnx --config ci.toml config --show evaluate

    Options are taken from cloakonnx.toml in the working directory, else from [tool.cloakonnx] of its pyproject.toml;
    flags win over the file. Options that nothing sets are left out; --json lists them too.
    """
    del show  # older command lines name it
    ctx = click.get_current_context()
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    names = [name for name in group.list_commands(ctx) if name != "config"]
    for name in verbs:
        if name not in names:
            raise OptionError(f"no command {name!r}{nearest(name, names)}")
    commands = {name: found for name in names if (found := group.get_command(ctx, name)) is not None}
    settings = read_settings(ctx.obj.config, lambda: commands)
    rows = [
        {"verb": each, "option": name, "value": value, "from": origin}
        for each in verbs or names
        for name, value, origin in _in_force(each, commands[each], settings)
    ]
    if as_json:
        print_json({"file": None if settings is None else settings.name, "options": rows})
        return
    say("no cloakonnx.toml here, no [tool.cloakonnx]" if settings is None else f"from {settings.name}")
    for row in rows:
        if row["from"] is not None:
            tell(f"{row['verb']}.{row['option']} = {json.dumps(row['value'])}  # {row['from']}")


def _in_force(
    verb: str, command: click.Command, settings: SettingsFile | None
) -> Iterator[tuple[str, Any, str | None]]:
    """Yield a verb's options, their values and where these come from: the file, ``default``, or None if not set."""
    known = options_of(command)
    found = {} if settings is None else {each.name: each for each in settings.of(verb, command)}
    for name, each in known.items():
        if name in found:
            converted(found[name], each)
            yield name, found[name].value, found[name].origin
            continue
        value = each.to_info_dict()["default"]
        is_set = isinstance(value, (str, int, float, tuple)) and value is not False and value != ()
        yield name, value if is_set else None, "default" if is_set else None
