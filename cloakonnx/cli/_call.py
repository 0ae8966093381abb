"""What is read of a call before its verb is: options that may stand on either side of the verb."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

from cloakonnx.cli._settings import SettingsFile
from cloakonnx.remote import local


@dataclass
class Call:
    """One call of the command line.

    Attributes:
        arguments: Those of the verb.
        config: The settings file that was named.
        quiet: Whether only warnings and errors are printed on stderr.
        verbose: Whether more is printed.
        as_json: Whether the verb prints JSON.
        settings: The settings file that is in force.
    """

    arguments: list[str] = field(default_factory=list)
    config: Path | None = None
    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    settings: SettingsFile | None = None

    def take(self, arguments: list[str]) -> None:
        """Take what is behind the verb, without the options that stand there and are no verb's."""
        waiting = iter(arguments)
        for argument in waiting:
            if argument == "--":
                self.arguments += [argument, *waiting]
                return
            if argument == "--config":
                value = next(waiting, None)
                if value is None:
                    raise click.UsageError("--config needs a file")
                self.config = local(value)
            elif argument.startswith("--config="):
                self.config = local(argument.removeprefix("--config="))
            elif argument in {"-q", "--quiet"}:
                self.quiet = True
            elif argument in {"-v", "--verbose"}:
                self.verbose = True
            else:
                self.as_json = self.as_json or argument == "--json"
                self.arguments.append(argument)
