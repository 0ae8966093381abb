"""docs/commands has a page for each verb, which names every option of the verb and no other."""

from __future__ import annotations

import importlib
import pkgutil
import re

import click
import pytest

import cloakonnx.cli

from .pages import ROOT, prose, read

FOLDER = ROOT / "docs" / "commands"
MODULES = {
    m.name: importlib.import_module(f"cloakonnx.cli.{m.name}") for m in pkgutil.iter_modules(cloakonnx.cli.__path__)
}
COMMANDS: dict[str, click.Command] = {
    name: found.command for name, found in MODULES.items() if hasattr(found, "command")
}
VERBS = sorted(COMMANDS)
EVERY_VERB = {"--help", "--config", "--version", "--quiet", "--verbose"}


def options(verb: str) -> set[str]:
    names = (name for each in COMMANDS[verb].params for name in (*each.opts, *each.secondary_opts))
    return {name for name in names if name.startswith("--")}


def test_a_page_for_each_verb() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == set(VERBS)
    index = read(ROOT / "docs" / "commands.md")
    assert [verb for verb in VERBS if f"(commands/{verb}.md)" not in index] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_named(verb: str) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", prose(FOLDER / f"{verb}.md")))
    assert options(verb) - named - {"--output"} == set(), "in words, not only in a command"


@pytest.mark.parametrize("verb", VERBS)
def test_options_that_are_named_exist(verb: str) -> None:
    """An option alone is the verb's own; one of another verb is written with that: `apply --fold`."""
    wrong = []
    for span in re.findall(r"`([^`\n]+)`", prose(FOLDER / f"{verb}.md")):
        words = span.removeprefix("cloakonnx ").split()
        owner = words[0] if words[0] in VERBS else verb
        known = options(owner) | EVERY_VERB
        wrong += [f"{owner} {each}" for each in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", span) if each not in known]
    assert not wrong
