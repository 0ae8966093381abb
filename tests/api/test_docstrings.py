"""Every public docstring has an example, and the examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import cloakonnx as ck

ROOT = Path(__file__).parents[2]
PUBLIC = [name for name in ck.__all__ if not inspect.ismodule(getattr(ck, name))]
ATTACKS = [name for name in ck.attacks.__all__ if name != "Attack"]
MODULES = sorted(
    {getattr(ck, name).__module__ for name in PUBLIC} | {getattr(ck.attacks, n).__module__ for n in ATTACKS}
)


def documented(name: str) -> Any:
    return getattr(ck, name, None) or getattr(ck.attacks, name)


@pytest.mark.parametrize("name", [*PUBLIC, *ATTACKS])
def test_there_is_an_example(name: str) -> None:
    assert ">>> " in (documented(name).__doc__ or "")


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(importlib.import_module(module))
    assert (found.failed, found.attempted > 0) == (0, True)
