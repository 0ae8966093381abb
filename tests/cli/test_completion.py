"""Values that shells complete, through what click runs for each shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete
from PIL import Image

from cloakonnx.attacks.base import registered
from cloakonnx.cli._call import Call
from cloakonnx.cli.verbs import _cloakonnx as cli
from tests.fixtures import core


def completed(*words: str, shell: type[ShellComplete] = BashComplete) -> list[str]:
    """Return what completes the last word."""
    *before, incomplete = words
    made = shell(cli, {"obj": Call()}, "cloakonnx", "_CLOAKONNX_COMPLETE")
    return [each.value for each in made.get_completions(list(before), incomplete)]


@pytest.fixture(autouse=True)
def _place(folder: Path) -> Iterator[None]:
    yield


def test_attacks_and_presets() -> None:
    assert completed("attack", "m.onnx", "--attack", "") == [*registered()]
    assert completed("attack", "m.onnx", "--attack", "apgd") == [name for name in registered() if "apgd" in name]
    assert completed("analyze", "m.onnx", "--attack", "pg") == ["pgd"]
    for verb in ("evaluate", "sweep", "harden"):
        assert completed(verb, "m.onnx", "--attack", "")[:2] == ["quick", "standard"]
        assert "pgd" in completed(verb, "m.onnx", "--attack", "p")
        assert completed(verb, "m.onnx", "--attack", "zzz") == []
        assert completed(verb, "m.onnx", "--attack", "pgd,squ") == ["pgd,square"]
        assert "pgd,pgd" not in completed(verb, "m.onnx", "--attack", "pgd,")


def test_words() -> None:
    assert completed("evaluate", "m.onnx", "--norm", "") == ["linf", "l2"]
    assert completed("attack", "m.onnx", "--norm", "l2") == ["l2"]
    assert completed("harden", "m.onnx", "--preset", "q") == ["quick"]
    assert completed("attack", "m.onnx", "--engine", "") == ["local", "ray", "auto", "ray://"]
    assert completed("attack", "m.onnx", "--engine", "ray:") == ["ray://"]
    assert "cpu" in completed("verify", "m.onnx", "--provider", "")
    assert completed("analyze", "m.onnx", "--criterion", "dee") == ["deepcloak"]


@pytest.mark.parametrize("verb", ["analyze", "learn", "apply", "harden"])
def test_taps_of_the_model_on_the_line(verb: str) -> None:
    """Wherever it stands; those of no model are not known."""
    assert core.TAP in completed(verb, "m.onnx", "--tap", "")
    assert completed(verb, "m.onnx", "--tap", core.TAP[:3]) == [core.TAP]
    assert completed(verb, "--tap", core.TAP[:3]) == []
    assert completed(verb, "none.onnx", "--tap", "") == []
    Path("damaged.onnx").write_bytes(b"no model")
    assert completed(verb, "damaged.onnx", "--tap", "") == []


def test_classes_to_reach() -> None:
    assert completed("attack", "m.onnx", "--targets", "") == ["labels", "random", "least-likely", "0", "1", "2"]
    assert completed("attack", "m.onnx", "--targets", "le") == ["least-likely"]
    assert completed("attack", "none.onnx", "--targets", "ra") == ["random"]


def test_names_of_classes_of_the_data() -> None:
    """One after the other, each once."""
    for name in ("cat", "dog", "cow"):
        Path("images", name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(Path("images", name, "a.png"))
    line = ("evaluate", "m.onnx", "--data", "images", "--classes")
    assert completed(*line, "") == ["cat", "cow", "dog"]
    assert completed(*line, "c") == ["cat", "cow"]
    assert completed(*line, "cow,d") == ["cow,dog"]
    assert completed(*line, "cow,dog,") == ["cow,dog,cat"]
    assert completed("evaluate", "m.onnx", "--classes", "c") == []


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete], ids=lambda shell: str(shell.name))
def test_every_shell(shell: type[ShellComplete], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BashComplete, "_check_version", staticmethod(lambda: None))
    monkeypatch.setenv("COMP_WORDS", f"cloakonnx analyze m.onnx --tap {core.TAP[:3]}")
    monkeypatch.setenv("COMP_CWORD", "4" if shell is not FishComplete else core.TAP[:3])
    found = shell(cli, {"obj": Call()}, "cloakonnx", "_CLOAKONNX_COMPLETE").complete()
    assert core.TAP in found
