"""An attack that this file adds by the registry alone: evaluations, estimates, records and the command line have it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import cloakonnx as ck
from cloakonnx.attacks import base
from cloakonnx.attacks.base import Attack, attack, find, make, plugins, registered, setting
from cloakonnx.attacks.cost import most_work
from cloakonnx.attacks.counts import Counts
from cloakonnx.attacks.presets import plan
from cloakonnx.attacks.run import Run
from cloakonnx.errors import OptionError
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from tests.support.classifiers import cpu

from .helpers import DIGITS, digits, digits_arrays

SOURCE = '''
from dataclasses import dataclass
import numpy as np
from cloakonnx.attacks.base import Attack, attack, setting
from cloakonnx.attacks.counts import Counts

@attack("darken")
@dataclass(frozen=True, kw_only=True)
class Darken(Attack):
    """Every pixel less by eps."""

    tries: int = setting(1, "How often.", least=1)

    def cost(self, classes):
        return Counts(queries=1 + self.tries)

    def restart(self, run, number, targets=None):
        low, high = run.victim.bounds
        moved = np.clip(run.clean[run.active] - np.float32(self.eps), low, high).astype(np.float32)
        run.won(run.fooled(run.victim.logits(moved)), moved)
        run.ended(moved)
'''


@pytest.fixture
def lighten() -> Iterator[type[Attack]]:
    @attack("lighten")
    @dataclass(frozen=True, kw_only=True)
    class Lighten(Attack):
        """Every pixel more by eps."""

        tries: int = setting(1, "How often.", least=1)

        def cost(self, classes: int) -> Counts:
            return Counts(queries=1 + self.tries)

        def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None:
            moved = np.clip(run.clean[run.active] + np.float32(self.eps), *run.victim.bounds).astype(np.float32)
            run.won(run.fooled(run.victim.logits(moved)), moved)
            run.ended(moved)

    yield Lighten
    del base._REGISTRY["lighten"]


def test_an_evaluation_by_an_attack_of_ones_own(lighten: type[Attack], tmp_path: Path) -> None:
    x, y = digits_arrays()
    np.savez(tmp_path / "digits.npz", x=x[:24], y=y[:24])
    model = hardened(ck.load(DIGITS), [Mask("/6/Relu_output_0", np.r_[np.zeros(4), np.ones(60)].astype(np.float32))])
    clf = cpu(model)
    told: list[ck.records.Estimate] = []
    data = ck.records.Dataset.of(tmp_path / "digits.npz", clf)
    found = ck.evaluate(clf, data, eps=[0.2], attack="lighten", sanity=False, on_estimate=told.append)
    names = [stage.name for stage in found.results[0].hardened.stages]
    assert names == ["replayed inputs", "lighten", "controls"]
    (settings,) = (stage.settings for stage in found.results[0].hardened.stages if stage.name == "lighten")
    assert settings is not None
    assert settings["tries"] == 1
    assert list(settings)[:3] == ["attack", "eps", "norm"]
    assert told[0].seconds_per_sample > 0
    victim, _, _ = digits(1)
    assert most_work(make("lighten", eps=0.1, tries=3), victim).total == 4


def test_settings_are_checked(lighten: type[Attack]) -> None:
    assert registered()["lighten"] is lighten
    with pytest.raises(OptionError, match="tries must be at least 1"):
        make("lighten", eps=0.1, tries=0)
    with pytest.raises(OptionError, match="lighten takes no max_iter"):
        make("lighten", eps=0.1, max_iter=3)
    with pytest.raises(OptionError, match=r"there is no attack or preset 'lightn'.* did you mean 'lighten'"):
        plan("lightn", eps=0.1)


def test_a_name_is_taken_once(lighten: type[Attack]) -> None:
    with pytest.raises(ValueError, match="pgd is registered twice"):
        attack("pgd")(lighten)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with a package that brings an attack, as pip would lay it."""
    (tmp_path / "darkness.py").write_text(SOURCE)
    info = tmp_path / "darkness-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: darkness\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cloakonnx.attacks]\ndarken = darkness:Darken\n")
    return tmp_path


def test_a_plug_in_is_listed_by_its_metadata_and_loaded_on_use(installed: Path, tmp_path: Path) -> None:
    x, y = digits_arrays()
    np.savez(tmp_path / "digits.npz", x=x[:20], y=y[:20])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            f"import sys; sys.path.insert(0, {str(installed)!r})\n"
            "from cloakonnx.cli import main\n"
            "try:\n    main()\nfinally:\n    print('loaded:', 'darkness' in sys.modules, file=sys.stderr)\n"
        )
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    listed = run("attack", "--help")
    assert "darken" in listed.stdout
    assert "loaded: False" in listed.stderr
    made = run(
        "attack", str(DIGITS), "--data", "digits.npz", "--attack", "darken", "--eps", "0.3", "--provider", "cpu",
        "-o", "dark.npz",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "still correct under darken" in made.stderr + made.stdout
    with np.load(tmp_path / "dark.npz") as found:
        assert '"tries": 1' in str(found["settings"])


def test_plug_ins_of_this_environment(monkeypatch: pytest.MonkeyPatch, installed: Path) -> None:
    monkeypatch.syspath_prepend(str(installed))
    assert plugins() == ("darken",)
    try:
        assert find("darken").__name__ == "Darken"
        assert plugins() == ()
    finally:
        base._REGISTRY.pop("darken", None)
        sys.modules.pop("darkness", None)
