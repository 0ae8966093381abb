"""Folders of class folders of images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cloakonnx.data._images import ImageFolder
from cloakonnx.data.batch import Batch
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import open_source
from cloakonnx.errors import DataError, MissingDependencyError
from cloakonnx.preprocessing import Preprocessing


def draw(path: Path, width: int, height: int, seed: int = 0, mode: str = "RGB") -> NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def read(folder: Path, size: int = 2, **options: Any) -> list[Batch]:
    return list(open_source(folder, **options).batches(size))


def joined(folder: Path, **options: Any) -> NDArray[np.uint8]:
    return np.concatenate([b.x for b in read(folder, **options)])


@dataclass(frozen=True)
class Fitting:
    """What samples are fitted to, without a model."""

    input_shape: tuple[int | None, ...] | None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    declared_classes: int | None = None
    class_names: tuple[str, ...] | None = None


def fits(channels: int | None) -> Fitting:
    return Fitting((channels, 4, 5))


def test_order_labels_and_pixels(tmp_path: Path) -> None:
    drawn = {name: draw(tmp_path / name, 5, 4, i) for i, name in enumerate(["b/2.png", "b/10.png", "a/z.png"])}
    (tmp_path / "b" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    batches = read(tmp_path)
    assert [b.start for b in batches] == [0, 2]
    stored = np.concatenate([b.x for b in batches])
    np.testing.assert_array_equal(stored, [drawn["a/z.png"], drawn["b/10.png"], drawn["b/2.png"]])
    assert [int(v) for b in batches if b.y is not None for v in b.y] == [0, 1, 1]
    source = open_source(tmp_path)
    assert source.name == tmp_path.name
    assert source.count() == 3
    assert source.layout == "nhwc"


def test_classes_give_the_order(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        draw(tmp_path / name, 4, 4)
    (batch,) = read(tmp_path, size=9, classes=("dog", "bird", "cat"))
    assert batch.y is not None
    assert batch.y.tolist() == [0, 2]
    with pytest.raises(DataError, match="folder 'cat' that classes lacks; did you mean 'cats'"):
        open_source(tmp_path, classes=("dog", "cats"))
    with pytest.raises(DataError, match="twice"):
        open_source(tmp_path, classes=("dog", "cat", "dog"))


def test_names_in_either_form_of_unicode(tmp_path: Path) -> None:
    """A Mac's folders have the letter and the dots apart."""
    for name in ("Ha\u0308user", "Z\u00e4hne"):
        draw(tmp_path / name / "1.png", 4, 4)
    (batch,) = read(tmp_path, size=9, classes=("Za\u0308hne", "H\u00e4user"))
    assert batch.y is not None
    assert batch.y.tolist() == [0, 1]


def test_resize_and_crop(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png", 20, 10)
    draw(tmp_path / "a" / "2.png", 10, 30)
    with pytest.raises(DataError, match=r"2\.png is 10 x 30 pixels, but .*1\.png is 20 x 10 pixels.*resize N crop N"):
        read(tmp_path)
    assert joined(tmp_path, resize=8, crop=8).shape == (2, 8, 8, 3)
    with pytest.raises(DataError, match="too small for crop 12; add resize 12"):
        read(tmp_path, crop=12)


def test_crop_is_the_middle_and_resize_is_pillows(tmp_path: Path) -> None:
    drawn = draw(tmp_path / "a" / "1.png", 9, 7)
    np.testing.assert_array_equal(joined(tmp_path, crop=5)[0], drawn[1:6, 2:7])
    resized = Image.fromarray(drawn).resize((18, 14), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(joined(tmp_path, resize=14)[0], np.asarray(resized))


def test_greyscale_folder_has_one_channel(tmp_path: Path) -> None:
    drawn = draw(tmp_path / "a" / "1.png", 5, 4, mode="L")
    Image.fromarray(drawn > 127).save(tmp_path / "a" / "2.png")  # one bit a pixel
    found = joined(tmp_path)
    assert found.shape == (2, 4, 5, 1)
    np.testing.assert_array_equal(found[0, ..., 0], drawn)
    np.testing.assert_array_equal(found[1, ..., 0], (drawn > 127) * 255)


def test_grey_among_coloured(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png", 5, 4)
    grey = draw(tmp_path / "a" / "2.png", 5, 4, mode="L")
    np.testing.assert_array_equal(joined(tmp_path)[1], np.repeat(grey[..., None], 3, axis=2))
    for channels in (3, None, 1):  # a colour net takes grey ones first as well
        fitted = Dataset.of(open_source(tmp_path), fits(channels)).source
        assert isinstance(fitted, ImageFolder)
        assert fitted.channels == channels
    draw(tmp_path / "a" / "0.png", 5, 4, mode="L")
    coloured = Dataset.of(open_source(tmp_path), fits(3))
    assert [b.x.shape for b in coloured.batches(9)] == [(3, 3, 4, 5)]
    assert isinstance(coloured.source, ImageFolder)
    assert coloured.source.grey == {"a/0.png", "a/2.png"}
    with pytest.raises(DataError, match=r"1\.png is coloured, but the model takes one channel"):
        list(Dataset.of(open_source(tmp_path), fits(1)).batches(9))
    with pytest.raises(DataError, match=r"1\.png is coloured, but .*0\.png is greyscale"):
        read(tmp_path)


@pytest.mark.parametrize("wanted", [(1, 6, 5), (6, 5, 1), (6, 5), (30,)])
@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("P", "png"), ("L", "gif"), ("LA", "png"), ("RGBA", "png")]
)
def test_greyscale_in_other_modes(tmp_path: Path, mode: str, suffix: str, wanted: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (6, 5), np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a" / f"1.{suffix}")
    (batch,) = Dataset.of(open_source(tmp_path), Fitting(wanted)).batches(4)
    np.testing.assert_array_equal(batch.x.ravel(), pixels.ravel().astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_refused(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    image = Image.new(mode, (5, 4), (10, 20, 30, 255) if mode == "RGBA" else (10, 255))
    image.save(tmp_path / "a" / "1.png")
    assert joined(tmp_path).shape[0] == 1
    image.putpixel((2, 1), (10, 20, 30, 128) if mode == "RGBA" else (10, 128))
    image.save(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match=r"1\.png is transparent in places"):
        read(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        [str(i) for i in range(12)],
        [f"class{i}" for i in range(12)],
        [f"{i}-kind" for i in range(8, 12)],
        [f"v2_{i}_x" for i in range(12)],
        [f"{i:02}" for i in range(12)],
        ["ant", "bee", "cat"],
    ],
)
def test_classes_are_in_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    for i, name in enumerate(reversed(names)):
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2), len(names) - 1 - i).save(tmp_path / name / "1.png")
    (batch,) = read(tmp_path, size=99)
    assert batch.y is not None
    assert batch.y.tolist() == list(range(len(names))) == batch.x[:, 0, 0, 0].tolist()
    source = open_source(tmp_path)
    assert isinstance(source, ImageFolder)
    assert len(source.notes) == (names != sorted(names))
    assert all("order of their numbers" in note and "--classes" in note for note in source.notes)


def test_what_is_skipped_is_counted(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/more/2.png", "a/more/deep/3.PNG", "b/1.png"):
        draw(tmp_path / name, 5, 4)
    for name in ("__MACOSX/._1.png", "a/._1.png", "a/.DS_Store", "a/Thumbs.db", "b/a.txt", ".cache/1.png", "0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    source = open_source(tmp_path)
    assert isinstance(source, ImageFolder)
    assert source.files == ("a/1.png", "a/more/2.png", "a/more/deep/3.PNG", "b/1.png")
    assert source.labels.tolist() == [0, 0, 0, 1]
    assert source.notes == (
        f"{tmp_path.name}: skipped 1 system folder (__MACOSX), 3 hidden files or folders (.cache, .DS_Store, ._1.png), "
        "1 folder without pictures (empty), 3 files that are no pictures (a/Thumbs.db, b/a.txt, b/loop), 1 picture "
        "outside the class folders (0.png); read 2 pictures in sub-folders of class folders",
    )


def test_parts_of_a_data_set_are_no_classes(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", "val/cat/1.png"):
        draw(tmp_path / name, 5, 4)
    with pytest.raises(DataError, match="holds train, val: these look like the parts of a data set"):
        open_source(tmp_path)
    assert open_source(tmp_path, classes=("train", "val")).count() == 3
    assert open_source(tmp_path / "train").count() == 2


@pytest.mark.parametrize("count", [2, 4])
def test_as_many_folders_as_classes(tmp_path: Path, count: int) -> None:
    for i in range(count):
        draw(tmp_path / f"c{i}" / "1.png", 5, 4)
    data = Dataset(open_source(tmp_path), Preprocessing(), (3, 4, 5), classes=3)
    with pytest.raises(DataError, match=f"{count} class folders with pictures, but the model has 3 .*classes"):
        list(data.batches(2))
    if count == 2:
        named = open_source(tmp_path, classes=("c0", "x", "c1"))
        (batch,) = Dataset(named, Preprocessing(), (3, 4, 5), classes=3).batches(9)
        assert batch.y is not None
        assert batch.y.tolist() == [0, 2]
        named = open_source(tmp_path, classes=("c0", "c1"))
        with pytest.raises(DataError, match="classes names 2, but the model has 3"):
            list(Dataset(named, Preprocessing(), (3, 4, 5), classes=3).batches(9))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_exif_says(tmp_path: Path, orientation: int) -> None:
    """A viewer shows the same picture for each: what was stored is made from it by the way back."""
    shown = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    back = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    (tmp_path / "a").mkdir()
    image = Image.fromarray(np.ascontiguousarray(back[orientation](shown)))
    tags = image.getexif()
    tags[0x0112] = orientation
    for suffix in ("png", "tif"):
        image.save(tmp_path / "a" / f"1.{suffix}", exif=tags)
    for each in joined(tmp_path):
        np.testing.assert_array_equal(each, shown)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (5, 4), (10, 20, 30)).convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / "a" / "1.tif")
    np.testing.assert_array_equal(joined(tmp_path)[0, 0, 0], [10, 20, 30])


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_more_than_8_bits_are_refused(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    Image.new(mode, (5, 4)).save(tmp_path / "a" / "1.tif")
    with pytest.raises(DataError, match="more than 8 bits"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_damaged_image(tmp_path: Path, content: bytes) -> None:
    draw(tmp_path / "a" / "1.png", 5, 4)
    (tmp_path / "a" / "2.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read the image .*2\.png"):
        read(tmp_path)


def test_truncated_image(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png", 50, 40)
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot read the image"):
        read(tmp_path)


def test_empty_folders(tmp_path: Path) -> None:
    draw(tmp_path / "1.png", 5, 4)
    with pytest.raises(DataError, match="no class folders"):
        open_source(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no images in its class folders"):
        open_source(tmp_path)


def test_into_a_model(tmp_path: Path) -> None:
    drawn = draw(tmp_path / "a" / "1.png", 3, 3)  # 3 x 3 x 3: the layout of a folder is known all the same
    (batch,) = Dataset(open_source(tmp_path), Preprocessing(), (3, 3, 3)).batches(4)
    np.testing.assert_array_equal(batch.x[0], drawn.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match="pip install pillow"):
        open_source(tmp_path)
