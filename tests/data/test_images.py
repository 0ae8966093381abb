"""Folders of class folders of images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

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
    with pytest.raises(DataError, match="folder 'cat' that --classes lacks; did you mean 'cats'"):
        open_source(tmp_path, classes=("dog", "cats"))
    with pytest.raises(DataError, match="twice"):
        open_source(tmp_path, classes=("dog", "cat", "dog"))


def test_resize_and_crop(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png", 20, 10)
    draw(tmp_path / "a" / "2.png", 10, 30)
    with pytest.raises(
        DataError, match=r"2\.png is 10 x 30 pixels, but .*1\.png is 20 x 10 pixels.*--resize N --crop N"
    ):
        read(tmp_path)
    assert joined(tmp_path, resize=8, crop=8).shape == (2, 8, 8, 3)
    with pytest.raises(DataError, match="too small for --crop 12; add --resize 12"):
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
    draw(tmp_path / "a" / "0.png", 5, 4, mode="L")
    with pytest.raises(DataError, match=r"1\.png is coloured, but .*0\.png is greyscale"):
        read(tmp_path)


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
    with pytest.raises(MissingDependencyError, match=r"cloakonnx\[images\]"):
        open_source(tmp_path)
