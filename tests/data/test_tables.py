"""Tables as samples: what separates the fields, which columns are features, what is wrong in which row."""

from __future__ import annotations

import contextlib
import csv
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from cloakonnx.data import _tables
from cloakonnx.data.given import Samples
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ClassedArrays, open_source
from cloakonnx.errors import CloakError, DataError, MissingDependencyError
from cloakonnx.preprocessing import Preprocessing

X = np.array([[0.5, -1.0], [2.25, 3e-3], [0.125, 7.0]], np.float32)
Y = np.array([1, 0, 1])


def table(path: Path, content: str | bytes, **options: Any) -> ClassedArrays:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    source = open_source(path, **options)
    assert isinstance(source, ClassedArrays)
    return source


COMMAS = "a,label,b\n0.5,1,-1\n2.25,0,3e-3\n0.125,1,7.0\n"
WRITTEN = {
    "commas": COMMAS,
    "semicolons": COMMAS.replace(",", ";"),
    "tabs": COMMAS.replace(",", "\t"),
    "decimal commas": COMMAS.replace(",", ";").replace(".", ","),
    "CRLF": COMMAS.replace("\n", "\r\n"),
    "BOM": b"\xef\xbb\xbf" + COMMAS.encode(),
    "UTF-16": COMMAS.encode("utf-16"),
    "quoted": '"a", "label", "b"\n"0.5","1","-1"\n"2.25", "0", "3e-3"\n"0.125","1","7.0"\n',
    "quoted separators": COMMAS.replace("a,", '"a, in ""mm""",', 1),
    "no last line end": COMMAS.rstrip(),
    "blank lines": COMMAS.replace("\n", "\n\n"),
    "whole floats as labels": COMMAS.replace(",1,", ",1.0,").replace(",0,", ",0.0,"),
    "rows counted by pandas": ",a,label,b\n0,0.5,1,-1\n1,2.25,0,3e-3\n2,0.125,1,7.0\n",
    "rows of a larger table": ",a,label,b\n7,0.5,1,-1\n3,2.25,0,3e-3\n912,0.125,1,7.0\n",
    "rows counted by R": '"","a","label","b"\n"1",0.5,1,-1\n"2",2.25,0,3e-3\n"3",0.125,1,7.0\n',
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_as_programs_write_it(tmp_path: Path, written: str | bytes) -> None:
    source = table(tmp_path / "t.csv", written, label_column="label")
    assert source.x.dtype == np.float32
    np.testing.assert_array_equal(source.x, X)
    np.testing.assert_array_equal(source.y, Y)
    assert source.columns[1] == "b"
    assert (source.classes, source.count()) == ((), 3)
    assert all("numbers of rows; it is left out" in each for each in source.notes)


@pytest.mark.parametrize("rows", [1, 3, _tables._PART + 1])
def test_rows_keep_their_index(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    y = np.arange(rows) % 2
    lines = "".join(f"{a},{b},{c},{label}\n" for (a, b, c), label in zip(x.tolist(), y, strict=True))
    source = table(tmp_path / "t.csv", "a,b,c,y\n" + lines, label_column="y")
    np.testing.assert_array_equal(source.x, x)
    np.testing.assert_array_equal(source.y, y)
    frame = pa.table({**{name: x[:, place] for place, name in enumerate("abc")}, "y": y})
    parquet.write_table(frame, tmp_path / "t.parquet", row_group_size=5000)
    other = open_source(tmp_path / "t.parquet", label_column="y")
    assert isinstance(other, ClassedArrays)
    np.testing.assert_array_equal(other.x, x)
    np.testing.assert_array_equal(other.y, y)
    batch = next(iter(other.batches(2)))
    assert batch.start == 0
    assert batch.x.shape == (min(rows, 2), 3)


def test_truth_values_and_columns_without_a_name(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ",big,label\n3,True,1\n3,False,0\n", label_column="label")
    np.testing.assert_array_equal(source.x, [[3, 1], [3, 0]])  # 3 twice numbers no rows
    assert source.columns == ("column 0", "big")
    source = table(tmp_path / "t.csv", ",big,label\n3,TRUE,1\n4,false,0\n", label_column="label")
    np.testing.assert_array_equal(source.x, [[1], [0]])
    assert source.columns == ("big",)
    assert source.notes == ("t.csv: column 0 has no name but numbers of rows; it is left out",)


def test_parquet_as_pandas_writes_it(tmp_path: Path) -> None:
    columns = {
        "f": pa.array(X[:, 0], pa.float64()),
        "i": pa.array([1, 2, 3], pa.int16()),
        "t": pa.array([True, False, True]),
        "kind": pa.array(["ant", "bee", "ant"]).dictionary_encode(),
        "__index_level_0__": pa.array([5, 7, 9]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet", label_column="kind")
    assert isinstance(source, ClassedArrays)
    np.testing.assert_array_equal(source.x, np.stack([X[:, 0], [1, 2, 3], [1, 0, 1]], axis=1))
    assert source.classes == ("ant", "bee")
    np.testing.assert_array_equal(source.y, [0, 1, 0])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_is_written_is_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    width, rows = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    numbers = st.floats(-(2.0**90), 2.0**90, width=32)
    x = np.array(data.draw(st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=rows, max_size=rows)))
    names = data.draw(st.lists(st.text('ab ,;"\t|é\n', min_size=1), min_size=width, max_size=width))
    names = [f"n{name}n" for name in names]
    classes = data.draw(
        st.lists(st.sampled_from(["ant", "bee, wild", 'the "mole"', "z;z"]), min_size=rows, max_size=rows)
    )
    path = tmp_path_factory.mktemp("written") / "t.csv"
    with path.open("w", newline="", encoding=data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))) as stream:
        writer = csv.writer(
            stream,
            delimiter=data.draw(st.sampled_from(",;\t|")),
            lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])),
            quoting=data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        )
        writer.writerow([*names, "the label"])
        writer.writerows([*map(float, row), label] for row, label in zip(x, classes, strict=True))
    source = open_source(path, label_column="the label")
    assert isinstance(source, ClassedArrays)
    np.testing.assert_array_equal(source.x, x.astype(np.float32))
    assert source.y is not None
    assert [source.classes[label] for label in source.y] == classes
    assert source.columns == tuple(names)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 20))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, inserted: bytes, at: int, left_out: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    content = COMMAS.encode()
    path.write_bytes(content[:at] + inserted + content[at + left_out :])
    with contextlib.suppress(CloakError):
        source = open_source(path, label_column="label")
        assert isinstance(source, ClassedArrays)
        assert np.isfinite(source.x).all()


BAD = {
    "unknown label": (COMMAS, {"label_column": "lable"}, "; did you mean 'label'? (it has a, label, b)"),
    "missing value": (COMMAS.replace("2.25", ""), {}, "column 'a', row 1 (line 3 of the file): the value is missing"),
    "NaN": (COMMAS.replace("7.0", "NaN"), {}, "column 'b', row 2 (line 4 of the file): the value is missing"),
    "infinite": (COMMAS.replace("7.0", "inf"), {}, "column 'b', row 2 (line 4 of the file): inf is not finite"),
    "beyond float32": (COMMAS.replace("7.0", "1e60"), {}, "column 'b', row 2: holds no finite float32 number"),
    "text": (COMMAS.replace("3e-3", "big"), {}, "column 'b', row 1 (line 3 of the file): 'big' is no number; encode"),
    "text that looks like a number": (COMMAS.replace("7.0", "7_0"), {}, "'7_0' is no number"),
    "missing label": (COMMAS.replace(",0,", ",,"), {}, "column 'label', row 1 (line 3 of the file): the label is mis"),
    "a regression's label": (COMMAS.replace(",0,", ",0.5,"), {}, "column 'label' has 0.5 in row 1; labels are names"),
    "negative label": (COMMAS.replace(",0,", ",-1,"), {}, "has the negative label -1 in row 1"),
    "short row": (COMMAS.replace("2.25,", ""), {}, "row 1 (line 3 of the file) has 2 fields, and the header has 3"),
    "no header": (COMMAS.partition("\n")[2], {}, "has no header: its first line holds numbers"),
    "header alone": ("a,label\n", {}, "it has a header and no rows"),
    "nothing": ("", {}, "the file has no content"),
    "blank": ("\n\n", {}, "it has no header"),
    "label twice": (COMMAS.replace("a,", "label,"), {}, "has 2 columns 'label'"),
    "label alone": ("label\n1\n", {}, "has no columns beside that of the labels"),
    "quote left open": (COMMAS + '"1,2,3\n', {}, "line "),
    "Latin-1": ("größe,label\n1,0\n".encode("latin-1"), {}, "is not UTF-8 text"),
    "a zip archive, as Excel's": (b"PK\x03\x04\x00\x00", {}, "is not text but a damaged zip archive"),
    "classes lack one": (COMMAS, {"classes": ("0", "2")}, "has the class '1' that classes lacks"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "options", "said"), BAD.values(), ids=BAD)
def test_one_line_names_file_column_and_row(
    tmp_path: Path, content: str | bytes, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path / "t.csv", content, **{"label_column": "label", **options})
    assert said in str(caught.value)
    assert "t.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([1.0, None, 2.0]), "column 'f', row 1: the value is missing"),
        (pa.array([1.0, 2.0, float("nan")]), "column 'f', row 2: holds no finite float32 number"),
        (pa.array(["a", "b", "c"]), "column 'f' holds string, not numbers; encode it"),
        (pa.array([[1.0], [2.0], [3.0]]), "column 'f' holds list<"),
    ],
)
def test_columns_of_parquet_that_are_no_numbers(tmp_path: Path, column: pa.Array, said: str) -> None:
    parquet.write_table(pa.table({"f": column, "y": [0, 1, 0]}), tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "t.parquet", label_column="y")
    assert said in str(caught.value)


def test_parquet_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(DataError, match="not a whole Parquet file"):
        open_source(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"no file or folder .*; did you mean 't.parquet'"):
        open_source(tmp_path / "u.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"the extra 'parquet'.: pip install pyarrow"):
        open_source(tmp_path / "t.parquet")


def test_a_table_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables, "_MOST", 5)
    with pytest.raises(DataError, match=r"over 5 values.*save the features as .npy"):
        table(tmp_path / "t.csv", COMMAS, label_column="label")


class Model:
    def __init__(self, columns: int | None, names: tuple[str, ...] | None = None) -> None:
        self.preprocessing = Preprocessing(bounds=(-10, 10))
        self.input_shape, self.class_names, self.declared_classes = (columns,), names, 2


NAMED = COMMAS.replace(",1,", ",mal,").replace(",0,", ",ben,")


def test_names_of_classes(tmp_path: Path) -> None:
    """In the order of the model's file, of --classes, else of the text; two classes must have two names."""
    source = table(tmp_path / "t.csv", NAMED, label_column="label")
    (batch,) = Dataset.of(source, Model(2)).batches(9)
    np.testing.assert_array_equal(batch.y, Y)
    fitted = Dataset.of(source, Model(2, ("mal", "ben")))
    (batch,) = fitted.batches(9)
    np.testing.assert_array_equal(batch.y, 1 - Y)
    assert fitted.class_names == ("mal", "ben")
    assert fitted.names(batch.indices) is None
    numbers = Dataset.of(table(tmp_path / "n.csv", COMMAS, label_column="label"), Model(2, ("mal", "ben")))
    assert (numbers.label_names, numbers.class_names) == (None, ("mal", "ben"))
    assert isinstance(fitted.source, ClassedArrays)
    assert "classes in its labels are matched by name" in fitted.source.notes[0]
    named = table(tmp_path / "t.csv", NAMED, label_column="label", classes=("mal", "ben"))
    np.testing.assert_array_equal(named.y, 1 - Y)
    other = Dataset.of(source, Model(2, ("M", "B"))).source
    assert isinstance(other, ClassedArrays)
    assert "ben, mal, and the model's file names its classes M, B" in other.notes[0]
    third = table(tmp_path / "t.csv", NAMED + "1,odd,1\n", label_column="label")
    with pytest.raises(DataError, match=r"3 classes, but the model has 2 classes; name all 2"):
        list(Dataset.of(third, Model(2)).batches(9))


def test_numbers_that_do_not_count_from_0(tmp_path: Path) -> None:
    """They may be names of classes; nothing is guessed."""
    text = COMMAS.replace(",1,", ",7,").replace(",0,", ",3,")
    with pytest.raises(
        DataError, match=r"sample 0 has label 7, but .*stand for the classes in this order: --classes 3,7"
    ):
        list(Dataset.of(table(tmp_path / "t.csv", text, label_column="label"), Model(2)).batches(9))
    source = table(tmp_path / "t.csv", text, label_column="label", classes=("3", "7"))
    (batch,) = Dataset.of(source, Model(2)).batches(9)
    np.testing.assert_array_equal(batch.y, Y)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "(.csv, .parquet); it is an HDF5 file, as Keras writes them"),
        ("t.pkl", b"\x80\x04]\x94.", "it is a Python pickle, as old PyTorch checkpoints are, which is not opened"),
        ("t.csv", b"\x1f\x8b\x08\0\0", "it is not text but packed with gzip: unpack it first, with 'gunzip'"),
    ],
)  # fmt: skip
def test_files_of_other_kinds(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """They are named; what would be done with a model is left out."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / name)
    assert str(caught.value).endswith(said)


def test_a_workbook(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as file:
        file.writestr("[Content_Types].xml", "")
    with pytest.raises(DataError, match="it is an Office file: save the sheet as CSV"):
        open_source(tmp_path / "t.xlsx")


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t.csv has 3 columns of features, and the model takes 2; .*is it 'label'\?"):
        Dataset.of(table(tmp_path / "t.csv", COMMAS), Model(2))
    with pytest.raises(
        DataError, match=r"t.csv has 3 columns of features, and the model takes 2; leave out .*: 'id'\?"
    ):
        text = COMMAS.replace("a,", "id,a,", 1).replace("\n", "\n1,", 3)
        Dataset.of(table(tmp_path / "t.csv", text, label_column="label"), Model(2))
    with pytest.raises(DataError, match=r"t.csv has 2 columns of features, and the model takes 5; leave out the col"):
        Dataset.of(table(tmp_path / "t.csv", COMMAS, label_column="label"), Model(5))
    (batch,) = Dataset.of(table(tmp_path / "t.csv", COMMAS, label_column="label"), Model(None)).batches(9)
    assert batch.x.shape == (3, 2)


def test_a_table_from_python(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(NAMED)
    data = Dataset.of(Samples(tmp_path / "t.csv", label_column="label", classes=("mal", "ben")), Model(2))
    (batch,) = data.batches(9)
    np.testing.assert_array_equal(batch.y, 1 - Y)
    assert data.class_names == ("mal", "ben")
    with pytest.raises(DataError, match="label_column is for samples in files"):
        Dataset.of(Samples(X, label_column="label"), Model(2))


def test_options_of_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(COMMAS)
    np.savez(tmp_path / "x.npz", x=X, y=Y)
    for path, options, said in (
        ("t.csv", {"labels": tmp_path / "t.csv"}, "labels does not go with t.csv: label_column names"),
        ("t.csv", {"classes": ("a", "b")}, "classes does not go with t.csv: it names what is in label_column"),
        ("x.npz", {"label_column": "y"}, "label_column does not go with x.npz"),
    ):
        with pytest.raises(DataError) as caught:
            open_source(tmp_path / path, **options)
        assert said in str(caught.value)
