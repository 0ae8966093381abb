"""``cloakonnx config``: which options are in force, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from cloakonnx.cli import options
from cloakonnx.cli._output import print_json, say, tell
from cloakonnx.cli._settings import SettingsFile, converted, read_settings
from cloakonnx.cli._settings import options as options_of
from cloakonnx.errors import OptionError, nearest


@click.command("config")
@click.argument("verbs", metavar="[VERB]...", nargs=-1)
@click.option("--show", is_flag=True, required=True, help="Print the options in force.")
@options.json_option
@click.pass_context
def command(ctx: click.Context, *, verbs: tuple[str, ...], show: bool, as_json: bool) -> None:
    """Print which options are in force for all verbs, or some, and where each comes from.

    \b
    cloakonnx config --show
    cloakonnx --config ci.toml config --show evaluate

    Options are taken from cloakonnx.toml in the working directory, else from [tool.cloakonnx] of its pyproject.toml;
    flags win over the file. Options that nothing sets are left out; --json lists them too.
    """
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    names = [name for name in group.list_commands(ctx) if name != "config"]
    for verb in verbs:
        if verb not in names:
            raise OptionError(f"no command {verb!r}{nearest(verb, names)}")
    commands = {name: found for name in names if (found := group.get_command(ctx, name)) is not None}
    settings = read_settings(ctx.obj, lambda: commands)
    rows = [
        {"verb": verb, "option": name, "value": value, "from": origin}
        for verb in verbs or names
        for name, value, origin in _in_force(verb, commands[verb], settings)
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
    for name, option in known.items():
        if name in found:
            converted(found[name], option)
            yield name, found[name].value, found[name].origin
            continue
        value = option.to_info_dict()["default"]
        is_set = isinstance(value, (str, int, float, tuple)) and value is not False and value != ()
        yield name, value if is_set else None, "default" if is_set else None
