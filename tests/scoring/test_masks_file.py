"""Masks over 1 MB lie in an .npz beside the analysis: whole there and back, refused when it is another file."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.errors import AnalysisError, OutputError
from cloakonnx.files import pack_npz
from cloakonnx.graph.masks.mask import KERNEL, WEIGHT, Mask
from cloakonnx.scoring.analysis import Analysis, load_analysis, masks_path

from .test_analysis import VALIDATOR, with_masks, with_scores

RNG = np.random.default_rng(0)
LARGE = (
    Mask("fc/weight", RNG.random((500, 600), np.float32), granularity=WEIGHT),
    Mask("conv", RNG.random((8, 4, 1, 1), np.float32), granularity=KERNEL),
    Mask("tap", np.array([0, 1, 0.5], np.float32), 1),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "m.cloak.json"
    with_scores(scores=None, masks=LARGE).save(path)
    return path


def test_there_and_back(saved: Path) -> None:
    content = json.loads(saved.read_text())
    VALIDATOR.validate(content)
    beside = saved.parent / "m.cloak.masks.npz"
    assert masks_path(saved) == beside
    assert content["masks_file"] == {
        "name": "m.cloak.masks.npz",
        "sha256": hashlib.sha256(beside.read_bytes()).hexdigest(),
    }
    assert len(saved.read_bytes()) < 3000
    with np.load(beside, allow_pickle=False) as archive:
        for mask, listed in zip(LARGE, content["masks"], strict=True):
            np.testing.assert_array_equal(archive[listed["array"]], mask.weights)
    read = load_analysis(saved)
    for mask, again in zip(LARGE, read.masks, strict=True):
        assert (mask.key, mask.granularity, mask.feature_axis) == (again.key, again.granularity, again.feature_axis)
        np.testing.assert_array_equal(mask.weights, again.weights)
    first = beside.read_bytes(), saved.read_bytes()
    read.save(saved)
    assert (beside.read_bytes(), saved.read_bytes()) == first
    assert not list(saved.parent.glob(".*"))


def test_small_masks_stay_in_the_text(tmp_path: Path) -> None:
    made = with_scores(scores=None, masks=(Mask("w", np.ones((500, 500), np.float32), granularity=WEIGHT),))
    made.save(tmp_path / "a.json")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert not made.masks_lie_beside


def test_one_text_has_masks_of_any_size(saved: Path) -> None:
    text = load_analysis(saved).to_json()
    VALIDATOR.validate(json.loads(text))
    np.testing.assert_array_equal(Analysis.from_json(text).masks[0].weights, LARGE[0].weights)
    with pytest.raises(AnalysisError, match=r"m\.cloak\.masks\.npz beside it; read both from there"):
        Analysis.from_json(saved.read_text())


def renamed(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        content["masks_file"]["name"] = name
        assert not VALIDATOR.is_valid(content) or not name.isprintable()
        path.write_text(json.dumps(content))

    return change


def put(place: str, key: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        (content["masks_file"] if place == "file" else content["masks"][0])[key] = value
        path.write_text(json.dumps(content))

    return change


def flipped(path: Path) -> None:
    beside = masks_path(path)
    content = bytearray(beside.read_bytes())
    content[5000] ^= 1
    beside.write_bytes(content)


def linked(path: Path) -> None:
    beside = masks_path(path)
    beside.rename(path.parent / "elsewhere.npz")
    beside.symlink_to(path.parent / "elsewhere.npz")


def grown(path: Path) -> None:
    with masks_path(path).open("r+b") as stream:
        stream.truncate(1 << 40)


def replaced(content: bytes) -> Callable[[Path], None]:
    """Another file, which the analysis names with its right digest."""

    def change(path: Path) -> None:
        masks_path(path).write_bytes(content)
        put("file", "sha256", hashlib.sha256(content).hexdigest())(path)

    return change


def archive(path: Path, **arrays: np.ndarray) -> bytes:
    with path.open("wb") as stream:
        pack_npz(stream, arrays)
    return path.read_bytes()


def others(tmp_path: Path) -> dict[str, tuple[bytes, str]]:
    masks = {f"mask_{i}": mask.weights for i, mask in enumerate(LARGE)}
    scratch = tmp_path / "scratch.npz"
    wide = masks | {"mask_0": masks["mask_0"].astype(np.float64)[:250]}
    turned = masks | {"mask_0": masks["mask_0"].T}
    few = {"mask_0": masks["mask_0"]}
    broken = masks | {"mask_0": np.full((500, 600), np.nan, np.float32)}
    found = {
        "dtype": (archive(scratch, **wide), r"'mask_0' of m\.cloak\.masks\.npz is float64"),
        "shape": (archive(scratch, **turned), r"of shape \(600, 500\), but the mask of 'fc/weight' is float32"),
        "missing": (archive(scratch, **few), "has no array 'mask_1'"),
        "nan": (archive(scratch, **broken), "NaN or infinite"),
        "no archive": (b"PK nothing", "cannot read the masks of .*not a whole .npz file"),
    }
    np.savez(scratch, **{**masks, "mask_0": np.array([object()])})
    found["pickle"] = scratch.read_bytes(), "it holds pickled Python objects"
    header = b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little") + b"x" * 100
    with zipfile.ZipFile(scratch, "w") as made:
        for name in masks:
            made.writestr(f"{name}.npy", header)
    found["header"] = scratch.read_bytes(), "its header is said to have 2,147,483,648 bytes"
    return found


@pytest.mark.parametrize("case", ["dtype", "shape", "missing", "nan", "no archive", "pickle", "header"])
def test_a_file_that_holds_something_else(case: str, saved: Path, tmp_path: Path) -> None:
    """The analysis names it with its right digest."""
    content, said = others(tmp_path)[case]
    replaced(content)(saved)
    refused(saved, said)


class Loud:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (print, ("a pickle ran",))


def test_a_pickle_does_not_run(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replaced(pickle.dumps(Loud()))(saved)
    refused(saved, "pickled Python objects")
    assert capsys.readouterr().out == ""


def refused(path: Path, said: str) -> None:
    with pytest.raises(AnalysisError, match=said) as caught:
        load_analysis(path)
    assert "\n" not in str(caught.value)


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (lambda path: masks_path(path).unlink(), r"are in m\.cloak\.masks\.npz, which is not beside it; copy that there"),
    (flipped, "is not the file of masks that .* names"),
    (grown, "is not the file of masks that .* names"),
    (linked, "is a symbolic link, not a file"),
    (renamed("../m.cloak.masks.npz"), "leads out of the folder"),
    (renamed("/etc/passwd"), "leads out of the folder"),
    (renamed("C:masks.npz"), "leads out of the folder"),
    (renamed("..\\masks.npz"), "leads out of the folder"),
    (renamed(".."), "is hidden"),
    (renamed(".masks.npz"), "is hidden"),
    (renamed(""), "is empty"),
    (renamed("a\x00b"), "can't be seen"),
    (renamed("a" * 256), "too long"),
    (put("file", "sha256", "0" * 63), "masks_file.sha256 is not 64 hex digits"),
    (put("mask", "array", "mask_1"), "two masks have the same array"),
    (put("mask", "array", 3), "array is not a string"),
    (put("mask", "shape", [500, 0]), r"masks\[0\]\.shape\[1\] is not a whole number from 1 on"),
    (put("mask", "shape", [2**62, 2**62]), "has no array|is float32 of shape|bytes"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[str(number) for number in range(len(CHANGES))])
def test_files_that_do_not_go_together(change: Callable[[Path], None], said: str, saved: Path) -> None:
    change(saved)
    refused(saved, said)


def test_a_folder_has_the_name(saved: Path) -> None:
    masks_path(saved).unlink()
    masks_path(saved).mkdir()
    refused(saved, "is a folder, not a file")


def test_what_can_not_be_written_leaves_what_was_there(saved: Path) -> None:
    before = saved.read_bytes()
    linked(saved)
    with pytest.raises(OutputError, match="it is a symbolic link"):
        with_scores(scores=None, masks=LARGE[:1]).save(saved)
    assert saved.read_bytes() == before
    assert not list(saved.parent.glob(".*"))


def interrupt_before(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise KeyboardInterrupt where a file with this suffix would take its name."""
    really = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if Path(target).name.endswith(suffix):
            raise KeyboardInterrupt
        return really(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)


def test_an_interrupt_before_the_masks_have_their_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes(), masks_path(saved).read_bytes()
    interrupt_before(".npz", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        with_scores(scores=None, masks=LARGE[:1]).save(saved)
    assert (saved.read_bytes(), masks_path(saved).read_bytes()) == before
    assert not list(saved.parent.glob(".*"))


def test_an_interrupt_between_the_two_is_noticed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks take their name first, so an analysis never names a file that is not there yet."""
    interrupt_before(".json", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        with_scores(scores=None, masks=LARGE[:1]).save(saved)
    refused(saved, "another run wrote it")


def test_masks_in_the_text_are_as_before() -> None:
    content = json.loads(with_masks().to_json())
    assert "masks_file" not in content
    assert all("data" in mask for mask in content["masks"])
