"""One folder of images with a CSV of labels, and a CSV of labels beside an array."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cloakonnx.data._images import ImageFolder
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource, open_source
from cloakonnx.data.subset import Subset, file_names
from cloakonnx.errors import DataError
from tests.data.test_tables import Model

FILES = ("b.png", "a.png", "deep/c.png", "d.jpg.png")
LABELS = (2, 0, 1, 0)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Return a folder of grey 2x2 images whose level tells which of FILES it is."""
    folder = tmp_path / "flat"
    for level, name in enumerate(FILES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2), level, np.uint8)).save(folder / name)
    return folder


def opened(flat: Path, text: str, **options: Any) -> ImageFolder:
    (flat / "labels.csv").write_text(text)
    source = open_source(flat, labels=flat / "labels.csv", **options)
    assert isinstance(source, ImageFolder)
    return source


ROWS = "".join(f"{name},{label}\n" for name, label in zip(FILES, LABELS, strict=True))
WRITTEN = {
    "header": "file,label\n" + ROWS,
    "no header": ROWS,
    "other names": "Image,Class\n" + ROWS,
    "unusual names": "what,kind\n" + ROWS,
    "label first": "label,file\n" + "".join(f"{y},{name}\n" for name, y in zip(FILES, LABELS, strict=True)),
    "more columns": "file,size,label\n" + ROWS.replace(".png,", ".png,9,"),
    "without suffixes": "id,label\n" + ROWS.replace(".png", ""),
    "without folders": "file,label\n" + ROWS.replace("deep/", ""),
    "without folders and suffixes": "file,label\n" + ROWS.replace("deep/", "").replace(".png", ""),
    "from the folder above": "file,label\n" + "".join(f"flat/{line}\n" for line in ROWS.split()),
    "backslashes": "file;label\r\n" + ROWS.replace(",", ";").replace("/", "\\"),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_in_the_order_of_the_rows(flat: Path, written: str) -> None:
    source = opened(flat, written)
    (batch,) = source.batches(9)
    assert batch.x[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(batch.y, LABELS)
    assert (source.files, source.classes, source.notes) == (FILES, (), ())


def test_absolute_paths_and_a_csv_elsewhere(flat: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,label\n" + "".join(f"{flat / line}\n" for line in ROWS.split()))
    source = open_source(flat, labels=tmp_path / "l.csv")
    assert source.count() == 4


def test_missing_files_files_without_a_label_and_duplicates_are_counted(flat: Path) -> None:
    source = opened(flat, "file,label\nb.png,2\nx.png,1\nb.png,2\ny.png,0\na.png,0\n")
    assert source.files == ("b.png", "a.png")
    assert source.notes == (
        "labels.csv: 2 files that it names are missing (x.png, y.png); 2 pictures have no label and are left out "
        "(d.jpg.png, deep/c.png); 1 file is named more than once and taken once (b.png)",
    )


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("file,label\nb.png,2\nb.png,1\n", {}, "line 3 gives b.png the label '1', and a line before it '2'"),
        ("file,label\nx.png,1\n", {}, "names no picture that is in"),
        ("file,label\nb.png,\n", {}, "line 2 has nothing in column 2"),
        ("file,label\nb.png\n", {}, "line 2 has nothing in column 2"),
        ("file,kind,size\nb.png,1,2\n", {}, "the columns file, kind, size; name that of the labels with"),
        ("b.png,1,2\n", {}, "has 3 columns and no header"),
        ("b.png\n", {}, "has one column"),
        ("file,label\nb.png,1\n", {"label_column": "lable"}, "has no column 'lable'; did you mean 'label'?"),
        ("file,label\nb.png,ant\n", {"classes": ("bee",)}, "has the class 'ant' that classes lacks"),
        ("b.png,1\n../../etc/passwd,1\n", {}, ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(flat: Path, text: str, options: dict[str, Any], said: str) -> None:
    if not said:  # nothing outside of the folder is read
        assert opened(flat, text).files == ("b.png",)
        return
    with pytest.raises(DataError) as caught:
        opened(flat, text, **options)
    assert said in str(caught.value)


def test_text_classes_and_file_names_travel(flat: Path) -> None:
    text = "file,label\nb.png,mole\na.png,ant\ndeep/c.png,bee\nd.jpg.png,ant\n"
    model = Model(None, ("bee", "mole", "ant"))
    model.input_shape, model.declared_classes, model.preprocessing = (1, 2, 2), 3, type(model.preprocessing)()
    data = Dataset.of(opened(flat, text), model)
    (batch,) = data.batches(9)
    np.testing.assert_array_equal(batch.y, [1, 2, 0, 2])
    assert data.names(batch.indices) == list(FILES)
    assert data.class_names == ("bee", "mole", "ant")
    some = Dataset.of(opened(flat, text), model, limit=3)
    (batch,) = some.batches(9)
    assert some.names(batch.indices) == ["b.png", "a.png", "deep/c.png"]
    assert file_names(Subset(data.chosen, np.array([1, 3]), "part"), np.array([1])) == ["d.jpg.png"]


def test_a_flat_folder_alone_names_the_way(flat: Path) -> None:
    (flat / "labels.csv").write_text("file,label\n" + ROWS)
    shutil.rmtree(flat / "deep")
    with pytest.raises(DataError, match=r"no class folders; .* with labels \(labels.csv\?\)"):
        open_source(flat)


@pytest.mark.parametrize(
    "text", ["label\n1\n0\n2\n", "1\n0\n2\n", ",label\n0,1\n1,0\n2,2\n", "0,1\n1,0\n2,2\n", "id,label\n7,1\n8,0\n9,2\n"]
)
def test_labels_of_an_array(tmp_path: Path, text: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 4), np.float32))
    (tmp_path / "y.csv").write_text(text)
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.csv")
    assert isinstance(source, ArraySource)
    np.testing.assert_array_equal(source.y, [1, 0, 2])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label\n1\n0\n", "has 2 rows of labels for 3 samples"),
        ("1\n0\n0\n0\n0\n", "has 5 rows of labels for 3 samples"),
        ("a,b\n1,2\n0,1\n0,1\n", "has 2 columns (a, b); name that of the labels with label_column"),
        ("label\n1\nnext\n3.5\n", ""),
    ],
)
def test_labels_that_do_not_fit_an_array(tmp_path: Path, text: str, said: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 4), np.float32))
    (tmp_path / "y.csv").write_text(text)
    if not said:
        source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.csv")
        assert isinstance(source, ArraySource)
        return
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "x.npy", labels=tmp_path / "y.csv")
    assert said in str(caught.value)
