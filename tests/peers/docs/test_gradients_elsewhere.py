"""docs/gradients-elsewhere.md runs with torch, torchattacks and ART, and their attacks find something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloakonnx.demo.demo import write_sample
from tests.docs.pages import ROOT, blocks


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "gradients-elsewhere.md"):
        if block.language == "python":
            exec(compile(block.text, f"{block.page}:{block.line}", "exec"), names)
    x, y, module = names["x"], names["y"], names["module"]
    assert (module(x).argmax(1) == y).float().mean() > 0.9
    for adversarial in (names["by_torchattacks"].numpy(), names["by_art"]):
        assert abs(adversarial - x.numpy()).max() <= 2 / 16 + 1e-6
        assert (names["clf"].predict(adversarial) == y.numpy()).mean() < 0.6
