"""The adversarial file: what is in it, rounding, checkpoints, memory; pairs made on the fly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.attacks.attack import Attacked
from cloakonnx.attacks.attack import attack as attack_files
from cloakonnx.attacks.base import Attack, make
from cloakonnx.attacks.pairs import AttackedPairs
from cloakonnx.attacks.victim import Victim
from cloakonnx.attacks.work import AttackedBatch, AttackWork
from cloakonnx.data.batch import Batch
from cloakonnx.data.levels import as_levels, rounded_inward
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.engine.batches import InProcess, map_batches
from cloakonnx.errors import DataError, InferenceError, OptionError, OutputError
from cloakonnx.files import write_npz
from cloakonnx.preprocessing import Preprocessing

from .helpers import convolution, victim


def images(count: int = 20) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


def dataset(
    x: NDArray[Any] | None = None, y: NDArray[np.int64] | None = None, **preprocessing: Any
) -> tuple[Victim, Dataset]:
    classifier = victim(convolution(nhwc=False), preprocessing=Preprocessing(**preprocessing))
    return classifier, Dataset.of(ArraySource("made", images() if x is None else x, y), classifier.classifier)


def attack_file(victim: Victim, data: Dataset, path: Path, *, settings: Attack, **job: Any) -> Attacked:
    """Make one file from start to end."""
    attacked = attack_files(victim.classifier, data, settings, output=path, **job)
    return attacked


def attack(folder: Path, given: tuple[Victim, Dataset], settings: Attack, **options: Any) -> dict[str, NDArray[Any]]:
    path = folder / "adv.npz"
    attack_file(*given, path, settings=settings, batch_size=6, **options)
    assert [each.name for each in folder.iterdir()] == ["adv.npz"]
    with np.load(path) as arrays:
        return dict(arrays)


FGSM = make("fgsm", eps=4 / 255)
PGD = make("pgd", eps=4 / 255, max_iter=5)


def test_levels_are_stored_as_uint8_in_the_layout_of_the_data(tmp_path: Path) -> None:
    found = attack(tmp_path, dataset(), FGSM)
    assert found["x"].shape == (20, 8, 8, 3)
    assert found["x"].dtype == np.uint8
    assert np.abs(found["x"].astype(int) - images()).max() == 4
    classifier, data = dataset()
    pixels = next(data.batches(20)).x
    np.testing.assert_array_equal(found["y"], classifier.predict(pixels))  # no labels: its own predictions
    assert found["success"].dtype == np.bool_
    settings = json.loads(str(found["settings"]))
    assert settings["attack"] == "fgsm"
    assert settings["eps"] == 4 / 255
    assert settings["loss"] == "ce"
    assert settings["model_sha256"] == classifier.classifier.model.sha256
    assert settings["preprocessing"]["bounds"] == [0, 1]


def test_other_values_are_stored_as_float32(tmp_path: Path) -> None:
    found = attack(tmp_path, dataset(), make("fgsm", eps=0.5 / 255))
    assert found["x"].dtype == np.float32
    np.testing.assert_allclose(np.abs(found["x"] * 255 - images()).max(), 0.5, atol=1e-4)


def test_one_batch_off_the_levels_makes_all_float32(tmp_path: Path) -> None:
    """Whatever batch is first."""
    x = images().astype(np.float32) / np.float32(255)
    for odd in (0, 13):
        mixed = x.copy()
        mixed[odd] = 0.5
        found = attack(tmp_path, dataset(mixed), make("fgsm", eps=0.0))
        np.testing.assert_allclose(found["x"], mixed, atol=1e-7)
        assert found["x"].dtype == np.float32
        (tmp_path / "adv.npz").unlink()


def test_round(tmp_path: Path) -> None:
    """Rounds inward and tests success again."""
    given = dataset()
    settings = make("pgd", eps=4.7 / 255, max_iter=5)
    found = attack(tmp_path, given, settings, round_levels=True)
    assert found["x"].dtype == np.uint8
    assert np.abs(found["x"].astype(int) - images()).max() == 4
    pixels = (found["x"] / np.float32(255)).transpose(0, 3, 1, 2).copy()
    np.testing.assert_array_equal(given[0].predict(pixels) != found["y"], found["success"])


def test_round_needs_levels(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="round_levels takes levels of 1/255"):
        attack(tmp_path, dataset(bounds=(0.0, 2.0)), FGSM, round_levels=True)


def test_rounded_inward() -> None:
    clean = np.array([10, 10, 10, 10, 10.5, 10.5, 0, 255], np.float32) / np.float32(255)
    moved = np.array([12.7, 7.2, 13, 10, 10.9, 11.2, 0.9, 254.5], np.float32) / np.float32(255)
    expected = [12, 8, 13, 10, 10.5, 11, 0, 255]
    np.testing.assert_allclose(rounded_inward(moved, clean) * 255, expected, atol=1e-4)


def test_as_levels() -> None:
    assert as_levels(np.array([0, 1, np.float32(100) / 255], np.float32)) is not None
    for odd in (0.001, -1 / 255, 256 / 255, np.nan):
        assert as_levels(np.array([0, odd], np.float32)) is None
    assert as_levels(np.empty((0, 2), np.float32)) is not None


def test_write_npz_as_numpy_reads_it(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array("text \u00e9"), "c": np.empty((0, 3), np.int64)}
    write_npz(tmp_path / "a.npz", arrays)
    write_npz(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as read:
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)
            assert read[name].dtype == array.dtype


class _StopError(Exception):
    """Stands for whatever ends a run."""


def stopper(after: int, error: type[BaseException]) -> Callable[[int], None]:
    def on_progress(samples: int) -> None:
        if samples >= after:
            raise error("stop")

    return on_progress


@pytest.mark.parametrize("error", [KeyboardInterrupt, _StopError, InferenceError])
@pytest.mark.parametrize("after", [6, 12, 20])
def test_resume_ends_with_the_same_bytes(
    tmp_path: Path, after: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    attack(tmp_path / "whole", dataset(), PGD)
    (tmp_path / "parts").mkdir()
    with pytest.raises(error):
        attack(tmp_path / "parts", dataset(), PGD, on_progress=stopper(after, error))
    assert not (tmp_path / "parts" / "adv.npz").exists()
    attacked: list[int] = []
    run = AttackWork._attack

    def counted(self: AttackWork, victim: Victim, batch: Batch) -> AttackedBatch:
        attacked.append(batch.size)
        return run(self, victim, batch)

    monkeypatch.setattr(AttackWork, "_attack", counted)
    attack(tmp_path / "parts", dataset(), PGD, resume=True)
    assert (tmp_path / "parts" / "adv.npz").read_bytes() == (tmp_path / "whole" / "adv.npz").read_bytes()
    assert sum(attacked) == 20 - after  # what was done was not done again


def interrupted(folder: Path) -> list[str]:
    with pytest.raises(KeyboardInterrupt):
        attack(folder, dataset(), PGD, on_progress=stopper(12, KeyboardInterrupt))
    return sorted(each.name for each in (folder / ".adv.npz.parts").iterdir())


@pytest.mark.parametrize(
    ("settings", "options", "preprocessing"),
    [
        (make("pgd", eps=4 / 255, max_iter=6), {}, {}),
        (make("pgd", eps=4 / 255, max_iter=5, seed=1), {}, {}),
        (PGD, {"round_levels": True}, {}),
        (PGD, {}, {"mean": (0.5,)}),
    ],
)
def test_resume_with_other_settings(
    tmp_path: Path, settings: Attack, options: dict[str, Any], preprocessing: dict[str, Any]
) -> None:
    left = interrupted(tmp_path)
    with pytest.raises(OutputError, match="other settings"):
        attack(tmp_path, dataset(**preprocessing), settings, resume=True, **options)
    assert sorted(each.name for each in (tmp_path / ".adv.npz.parts").iterdir()) == left


@pytest.mark.parametrize("sample", [0, 8])
@pytest.mark.parametrize("what", ["image", "label"])
def test_resume_with_other_samples(tmp_path: Path, sample: int, what: str) -> None:
    """An error, and what is there stays for another try."""
    y = np.zeros(20, np.int64)
    with pytest.raises(KeyboardInterrupt):
        attack(tmp_path, dataset(y=y), PGD, on_progress=stopper(12, KeyboardInterrupt))
    left = sorted((tmp_path / ".adv.npz.parts").iterdir())
    other, labels = images(), y.copy()
    if what == "image":
        other[sample, 0, 0, 0] ^= 1
    else:
        labels[sample] = 1
    with pytest.raises(DataError, match="other samples"):
        attack(tmp_path, dataset(other, labels), PGD, resume=True)
    assert sorted((tmp_path / ".adv.npz.parts").iterdir()) == left
    attack(tmp_path, dataset(y=y), PGD, resume=True)


def test_resume_after_damage_does_the_batch_again(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    attack(tmp_path / "whole", dataset(), PGD)
    (tmp_path / "parts").mkdir()
    interrupted(tmp_path / "parts")
    (tmp_path / "parts" / ".adv.npz.parts" / "000001.npz").write_bytes(b"PK\x03\x04 not whole")
    attack(tmp_path / "parts", dataset(), PGD, resume=True)
    assert (tmp_path / "parts" / "adv.npz").read_bytes() == (tmp_path / "whole" / "adv.npz").read_bytes()


@pytest.mark.parametrize("sample", [0, 13])
def test_bad_input_leaves_nothing(tmp_path: Path, sample: int) -> None:
    x = images().astype(np.float32) / np.float32(255)
    x[sample, 1, 1, 1] = 1.5
    with pytest.raises(DataError, match=f"sample {sample} has the value 1.5"):
        attack(tmp_path, dataset(x), PGD)
    with pytest.raises(DataError, match="no labels"):
        attack(tmp_path, dataset(), make("pgd", eps=0.1, targeted=True))
    with pytest.raises(OptionError, match="eps 2 is wider"):
        attack(tmp_path, dataset(), make("pgd", eps=2.0))
    assert not list(tmp_path.iterdir())


def test_pairs_on_the_fly() -> None:
    """Every sample is moved, misclassified or not."""
    classifier, data = dataset(y=np.zeros(20, np.int64))
    for settings in (FGSM, make("pgd", eps=4 / 255, max_iter=5, early_stop=False)):
        pairs = AttackedPairs(data, classifier.classifier, settings)
        with map_batches(pairs.making(None), pairs.batches(6), engine=InProcess()) as handled:
            batches = [made for _, made in handled]
        assert [batch.start for batch in batches] == [0, 6, 12, 18]
        assert pairs.attack["eps"] == 4 / 255
        for batch in batches:
            moved = np.abs(batch.adversarial - batch.clean).reshape(len(batch.clean), -1).max(axis=1)
            np.testing.assert_allclose(moved, 4 / 255, atol=1e-6)


PEAK = """
import resource, sys
from cloakonnx.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """PGD on 5,000 images: no more than on 500, and the images."""
    (tmp_path / "m.onnx").write_bytes(convolution(nhwc=False).SerializeToString())
    peaks, sizes = [], []
    for count in (500, 5000):
        x = images(count)
        np.savez(tmp_path / f"{count}.npz", x=x)
        sizes.append(x.nbytes)
        command = ["attack", "m.onnx", "--data", f"{count}.npz", "--attack", "pgd", "--eps", "0.002", "--max-iter", "3"]
        call = [sys.executable, "-c", PEAK, *command, "--provider", "cpu", "-o", f"{count}.adv.npz"]
        done = subprocess.run(call, cwd=tmp_path, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout))
        with np.load(tmp_path / f"{count}.adv.npz") as written:
            assert written["x"].dtype == np.float32  # the larger kind
    assert peaks[1] - peaks[0] < sizes[1] - sizes[0] + 6_000_000, peaks
