"""The command line that a report says: every option that decides the result, also where its value is 0 or off."""

from __future__ import annotations

import click
import pytest

from cloakonnx.cli._again import command_line
from cloakonnx.cli._types import Number


@click.command("verb")
@click.argument("model")
@click.option("--budget", type=Number(), default=0.04)
@click.option("--shift", type=int)
@click.option("--flip/--no-flip", default=None)
@click.option("--fold", is_flag=True)
@click.option("--tap", multiple=True)
@click.option("--output")
def _verb(**values: object) -> None:
    click.echo(command_line(silent=("output",)))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("--budget 0 --shift 0", "--budget 0.0 --shift 0"),
        ("--no-flip --output x", "--no-flip"),
        ("--flip --fold --tap a --tap b", "--flip --fold --tap a --tap b"),
        ("", ""),
    ],
)
def test_values_of_0_and_what_is_off(given: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    _verb.main(["m.onnx", *given.split()], standalone_mode=False)
    assert capsys.readouterr().out.split() == ["cloakonnx", "verb", "m.onnx", *wanted.split()]
