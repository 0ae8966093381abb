"""The API reference names every public name, once."""

from __future__ import annotations

import inspect
import re

import cloakonnx as ck

from .pages import ROOT, read


def test_the_reference_is_complete() -> None:
    named = re.findall(r"^::: cloakonnx\.([\w.]+)$", read(ROOT / "docs" / "api.md"), re.MULTILINE)
    public = [name for name in ck.__all__ if not inspect.ismodule(getattr(ck, name))]
    attacks = [f"attacks.{name}" for name in ck.attacks.__all__ if name != "Attack"]
    assert sorted(named) == sorted(public + attacks)
