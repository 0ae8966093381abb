"""Messages name options that exist."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path

import pytest

import cloakonnx
import cloakonnx.cli
from cloakonnx.cli._parameters import option_of

SOURCES = Path(cloakonnx.__file__).parent


@cache
def options() -> frozenset[str]:
    modules = [importlib.import_module(f"cloakonnx.cli.{m.name}") for m in pkgutil.iter_modules(cloakonnx.cli.__path__)]
    verbs = [module.command for module in modules if hasattr(module, "command")]
    assert len(verbs) >= 7
    known = {name for verb in verbs for p in verb.params for name in (*p.opts, *p.secondary_opts)}
    return frozenset(known | {"--help", "--version", "--config", "--quiet", "--verbose"})


def named(path: Path) -> set[str]:
    """Options in the strings of a module, but for the front part of one that an f-string completes ("--eps-{what}")."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {name for text in texts for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?!-$)", text)}


@pytest.mark.parametrize("folder", sorted(p.name for p in SOURCES.iterdir() if (p / "__init__.py").exists()))
def test_options_in_messages_exist(folder: str) -> None:
    found = {path.name: named(path) - options() for path in (SOURCES / folder).rglob("*.py")}
    assert not {name: unknown for name, unknown in found.items() if unknown}


def parameters(path: Path) -> set[str]:
    """Parameters that errors of a module name, as the command line calls them."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    given = [each.value for call in calls for each in call.keywords if each.arg == "parameter"]
    nodes = [node for value in given for node in ast.walk(value) if isinstance(node, ast.Constant)]
    return {option_of(node.value) for node in nodes if isinstance(node.value, str)}


def test_parameters_that_errors_name_are_options() -> None:
    """The command line says ``--eps-step`` where Python says eps_step."""
    paths = [path for path in SOURCES.rglob("*.py") if "cli" not in path.relative_to(SOURCES).parts]
    found = {path.name: unknown for path in paths if (unknown := parameters(path) - options() - API_ONLY)}
    assert found == {}
    assert sum(len(parameters(path)) for path in paths) > 80


API_ONLY = {"--flip", "--shift"}
"""Parameters of which the option is written ``--flip/--no-flip``, or is another verb's."""
