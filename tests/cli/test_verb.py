"""A verb's options come from the annotations of its function."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click
import pytest
from click.testing import CliRunner

from cloakonnx.cli._verb import Group, argument, option, verb

Name = Annotated[str, argument()]
Loud = Annotated[bool, option("--loud", is_flag=True, place="last", help="Shout.")]


@dataclass(frozen=True, kw_only=True)
class Where(Group):
    """A group with an option that is shown later."""

    path: Path | None = option("--path", type=click.Path(path_type=Path), help="Where.")
    depth: int = option("--depth", type=int, default=3, place="before runs", help="How deep.")

    @property
    def words(self) -> str:
        return f"{self.path} {self.depth}"


@dataclass(frozen=True, kw_only=True)
class How(Group):
    """A group that others are shown before."""

    runs = True

    speed: float = option("--speed", type=float, required=True, help="How fast.")
    tags: tuple[str, ...] = option("--tag", multiple=True, help="A word.")


@dataclass(frozen=True, kw_only=True)
class Slow(How):
    """One option is replaced, one is none any more."""

    speed: float = 0.5
    tags: tuple[str, ...] = option("--label", multiple=True, help="Another word.")


@verb("go")
def go(*, name: Name, loud: Loud, where: Where, how: How) -> None:
    """Go somewhere."""
    click.echo(f"{name} {loud} {where.words} {how.speed} {how.tags}")


@verb("crawl")
def crawl(*, where: Where, how: Slow) -> None:
    """Crawl somewhere."""
    click.echo(f"{where.words} {how.speed} {how.tags}")


def options(command: click.Command) -> list[str]:
    return [each.opts[0] for each in command.params]


def test_options_stand_in_the_order_of_parameters_and_fields() -> None:
    assert options(go) == ["name", "--path", "--depth", "--speed", "--tag", "--loud"]
    assert go.name == "go"
    assert go.help == "Go somewhere."


def test_values_are_made_into_groups() -> None:
    done = CliRunner().invoke(go, ["me", "--speed", "2", "--tag", "a", "--tag", "b", "--path", "x"])
    assert done.output == "me False x 3 2.0 ('a', 'b')\n"
    assert "Missing option '--speed'" in CliRunner().invoke(go, ["me"]).output


def test_a_subclass_replaces_options_and_takes_them_away() -> None:
    assert options(crawl) == ["--path", "--depth", "--label"]
    assert CliRunner().invoke(crawl, ["--depth", "1", "--label", "a"]).output == "None 1 0.5 ('a',)\n"


def test_a_group_is_made_in_python_too() -> None:
    assert Where(depth=1).words == "None 1"
    with pytest.raises(TypeError, match="speed"):
        How()


def test_every_parameter_has_options() -> None:
    with pytest.raises(TypeError, match="parameter count has neither"):

        @verb("wrong")
        def wrong(*, count: int) -> None:
            """Do nothing."""
