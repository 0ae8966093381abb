"""npz and npy files: what is read, and what is refused with a message that names the fault."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.data.arrays import as_labels, load_array
from cloakonnx.data.sources import ArraySource, open_source
from cloakonnx.errors import DataError

IMAGES = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)


def save_npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "samples.npz"
    np.savez(path, **arrays)
    return path


def opened(path: Path, **options: Any) -> ArraySource:
    source = open_source(path, **options)
    assert isinstance(source, ArraySource)
    return source


def test_npz_keeps_its_type_and_its_labels(tmp_path: Path) -> None:
    source = opened(save_npz(tmp_path, x=IMAGES, y=np.arange(5, dtype=np.uint8)))
    assert source.count() == 5
    assert source.x.dtype == np.uint8
    assert source.y is not None
    assert source.y.dtype == np.int64
    batches = list(source.batches(2))
    assert [b.start for b in batches] == [0, 2, 4]
    assert [len(b.x) for b in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), IMAGES)


def test_compressed_npz_and_column_of_labels(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "s.npz", x=IMAGES, y=np.arange(5)[:, None])
    assert opened(tmp_path / "s.npz").y is not None


@pytest.mark.parametrize("x", [np.float32(3), np.zeros(5, np.float32)])
def test_samples_without_an_axis_of_their_own(tmp_path: Path, x: NDArray[Any]) -> None:
    with pytest.raises(DataError, match="the first axis counts samples, and there must be another"):
        open_source(save_npz(tmp_path, x=x, y=np.arange(5)))


def test_npy_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "y.npy", np.arange(5))
    source = opened(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    assert isinstance(source.x, np.memmap)
    np.testing.assert_array_equal(source.x, IMAGES)
    np.testing.assert_array_equal(source.y, np.arange(5))


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    """As some systems and tools write them."""
    for name in ("X.NPY", "Y.CSV", "Z.NPZ"):
        with (tmp_path / name).open("wb") as stream:
            if name == "Y.CSV":
                stream.write(b"label\n0\n1\n2\n3\n4\n")
            elif name == "X.NPY":
                np.save(stream, IMAGES)
            else:
                np.savez(stream, x=IMAGES, y=np.arange(5))
    for source in (open_source(tmp_path / "X.NPY", labels=tmp_path / "Y.CSV"), open_source(tmp_path / "Z.NPZ")):
        (batch,) = source.batches(8)
        assert batch.y is not None and batch.y.tolist() == [0, 1, 2, 3, 4]
        assert np.array_equal(batch.x, IMAGES)


def test_fortran_order_and_other_byte_orders(tmp_path: Path) -> None:
    for stored in (np.asfortranarray(IMAGES), (IMAGES / 255).astype(">f4"), (IMAGES / 255).astype(np.float16)):
        np.testing.assert_array_equal(opened(save_npz(tmp_path, x=stored)).x, stored)


def raw_npy(header: str, data: bytes) -> bytes:
    text = header.encode() + b" " * ((-len(header) - 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def as_npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def as_npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


HUGE = raw_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 3), }", b"12")
OBJECTS = np.array([[{"a": 1}]], object)
DAMAGED: list[tuple[str, Callable[[], bytes], str]] = [
    ("x.npz", lambda: as_npz(x=OBJECTS), "pickled Python objects"),
    ("x.npz", lambda: as_npz(x=IMAGES, y=np.array([1, None, 2, 3, 4], object)), "pickled Python objects"),
    ("x.npz", lambda: pickle.dumps({"x": [1]}), "pickled Python objects"),
    ("x.npy", lambda: as_npy(OBJECTS), "pickled Python objects"),
    ("x.npy", lambda: pickle.dumps({"x": [1]}), "pickled Python objects"),
    ("x.npz", lambda: as_npz(x=IMAGES)[:150], "not a whole .npz file"),
    ("x.npz", lambda: as_npz(x=IMAGES)[:-30], "not a whole .npz file"),
    ("x.npz", lambda: zipped(x=as_npy(IMAGES)[:-7]), "should have 240 bytes and has 233"),
    ("x.npz", lambda: zipped(x=HUGE), "should have 3298534883328 bytes and has 2"),
    ("x.npz", lambda: zipped(x=b"hello"), "not a whole .npz file"),
    ("x.npz", zipped, "no array 'x' (it has none)"),
    ("x.npz", lambda: as_npz(images=IMAGES, labels=np.arange(5)), "no array 'x' (it has images, labels)"),
    ("x.npy", lambda: as_npy(IMAGES)[:-7], "not a whole .npy file"),
    ("x.npy", lambda: HUGE, "not a whole .npy file"),
    ("x.npy", lambda: raw_npy("{'descr': '|u1'}", b""), "not a whole .npy file"),
    ("x.npz", lambda: b"", "no content"),
    ("x.npy", lambda: b"", "no content"),
    ("x.npz", lambda: b"hello world", "it is not an .npz file"),
    ("x.npy", lambda: b"hello world", "it is not an .npy file"),
    ("x.npz", lambda: as_npy(IMAGES), "its content is an .npy file"),
    ("x.npy", lambda: as_npz(x=IMAGES), "its content is an .npz file"),
    ("x.txt", lambda: b"hello", "neither an .npz nor an .npy file, nor a folder"),
    ("x.py", lambda: b"raise SystemExit(3)", "data_script"),
    ("x.npz", lambda: as_npz(x=np.arange(5, dtype=np.uint8)), "has shape (5,); the first axis counts samples"),
    ("x.npz", lambda: as_npz(x=np.zeros((), np.uint8)), "has shape ()"),
    ("x.npz", lambda: as_npz(x=np.zeros((5, 0), np.uint8)), "hold no value"),
    ("x.npz", lambda: as_npz(x=np.zeros((5, 3), np.int64)), "type int64"),
    ("x.npz", lambda: as_npz(x=np.zeros((5, 3), np.uint16)), "type uint16"),
    ("x.npz", lambda: as_npz(x=np.zeros((5, 3), bool)), "type bool"),
    ("x.npz", lambda: as_npz(x=np.zeros((5, 3), "U3")), "type <U3"),
    ("x.npz", lambda: as_npz(x=np.zeros((5, 3), np.complex64)), "type complex64"),
    ("x.npz", lambda: as_npz(x=IMAGES, y=np.arange(4)), "4 labels for 5 samples"),
    ("x.npz", lambda: as_npz(x=IMAGES, y=np.arange(5.0)), "labels of type float64"),
    ("x.npz", lambda: as_npz(x=IMAGES, y=np.eye(5, dtype=np.int64)), "labels of type int64 and shape (5, 5)"),
    ("x.npz", lambda: as_npz(x=IMAGES, y=np.array([0, 1, -1, 2, 3])), "negative label (-1) at sample 2"),
]


@pytest.mark.parametrize(("name", "content", "said"), DAMAGED, ids=[f"{d[0]}-{d[2]}" for d in DAMAGED])
def test_refused(tmp_path: Path, name: str, content: Callable[[], bytes], said: str) -> None:
    (tmp_path / name).write_bytes(content())
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_compressed_data(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a whole \.npz file"):
        open_source(path)


@pytest.mark.parametrize("name", ["sample.npz", "sample.npy", "sampels"])
def test_missing_names_what_looks_alike(tmp_path: Path, name: str) -> None:
    save_npz(tmp_path, x=IMAGES)
    with pytest.raises(DataError, match=r"no file or folder .*did you mean 'samples\.npz'"):
        open_source(tmp_path / name)


def test_options_that_do_not_go_with_the_kind(tmp_path: Path) -> None:
    npz = save_npz(tmp_path, x=IMAGES)
    np.save(tmp_path / "x.npy", IMAGES)
    (tmp_path / "images").mkdir()
    for path, options, said in (
        (npz, {"labels": tmp_path / "x.npy"}, "labels does not go with samples.npz"),
        (npz, {"classes": ("a",)}, "classes does not go with samples.npz"),
        (npz, {"resize": 3}, "resize does not go"),
        (tmp_path / "x.npy", {"crop": 3}, "crop does not go"),
        (tmp_path / "images", {"labels": npz}, "labels does not go with images"),
    ):
        with pytest.raises(DataError) as caught:
            open_source(path, **options)
        assert said in str(caught.value)


def test_labels_file_is_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "y.npy", np.arange(4))
    with pytest.raises(DataError, match="4 labels for the 5 samples"):
        open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    with pytest.raises(DataError, match=r"no file or folder .*z\.npy"):
        open_source(tmp_path / "x.npy", labels=tmp_path / "z.npy")


def test_load_array_copies_unless_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.ones(3, np.float32))
    assert not isinstance(load_array(tmp_path / "m.npy"), np.memmap)
    np.save(tmp_path / "e.npy", np.ones((0, 3), np.float32))
    assert load_array(tmp_path / "e.npy").shape == (0, 3)
    assert load_array(tmp_path / "e.npy", mapped=True).shape == (0, 3)


@pytest.mark.parametrize(
    ("y", "way"),
    [
        (np.eye(6)[[0, 3, 5]], ": these are one-hot, y.argmax(1) makes it"),
        (np.eye(6, dtype=np.int64)[[0, 3, 5]], ": these are one-hot, y.argmax(1) makes it"),
        (np.array([[1, 1, 0], [0, 0, 1]]), "; several classes a sample are not supported"),
        (np.array([0.0, 2.0], np.float32), ": y.astype(int) makes it"),
        (np.array([True, False]), ": y.astype(int) makes it"),
        (np.array([0.5, np.nan]), ""),
        (np.array([0.5, 17.0]), "; numbers with fractions are those of a regression, a task that is not built yet"),
        (np.array(["cat", "dog"]), ": number the names in the order of the model's outputs"),
    ],
)
def test_labels_of_another_form_are_answered_with_the_way(y: NDArray[Any], way: str) -> None:
    with pytest.raises(DataError) as caught:
        as_labels(y, "y.npy")
    assert str(caught.value).endswith(f"a vector of class numbers is needed{way}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice(tmp_path: Path) -> None:
    """Readers take the last one; whoever wrote the first meant it."""
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), np.float32), y=np.arange(2))
    with zipfile.ZipFile(tmp_path / "d.npz", "a") as archive:
        archive.writestr("x.npy", archive.read("x.npy"))
    with pytest.raises(DataError, match="has two arrays 'x'; write it again with each name once"):
        open_source(tmp_path / "d.npz")


def test_other_keys_are_answered_with_the_way(tmp_path: Path) -> None:
    np.savez(tmp_path / "k.npz", images=np.zeros((2, 3)), labels=np.zeros(2))
    with pytest.raises(DataError, match=r"it has images, labels\); save the samples as x and the labels as y"):
        open_source(tmp_path / "k.npz")
