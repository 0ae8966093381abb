"""Scripts: functions that yield batches."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloakonnx.data.batch import Batch
from cloakonnx.data.samples import Dataset
from cloakonnx.data.scripts import open_script
from cloakonnx.data.sources import ScriptSource
from cloakonnx.errors import DataError
from cloakonnx.preprocessing import Preprocessing

X = np.arange(40, dtype=np.float32).reshape(20, 2) / 40
Y = np.arange(20)


def source(function: Callable[[], Any]) -> ScriptSource:
    return ScriptSource("s.py:f", function)


def read(function: Callable[[], Any], size: int) -> list[Batch]:
    return list(source(function).batches(size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 64])
@pytest.mark.parametrize("cuts", [[], [1], [5, 5, 6, 18], [19]])
@pytest.mark.parametrize("labelled", [True, False])
def test_batches_of_any_size_become_equal_ones(size: int, cuts: list[int], labelled: bool) -> None:
    def function() -> Iterator[Any]:
        for x, y in zip(np.split(X, cuts), np.split(Y, cuts), strict=True):
            yield (x, y) if labelled else x

    batches = read(function, size)
    assert [len(b.x) for b in batches[:-1]] == [size] * (len(batches) - 1)
    assert [b.start for b in batches] == list(range(0, 20, size))
    np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), X)
    assert all((b.y is not None) == labelled for b in batches)
    if labelled:
        assert [int(v) for b in batches if b.y is not None for v in b.y] == list(range(20))


@pytest.mark.parametrize(
    "function",
    [
        lambda: (X, Y),  # returned at once
        lambda: [(X, Y)],
        lambda: iter([[X, Y]]),  # as PyTorch's loaders yield
        lambda: [(X.tolist(), Y.tolist())],
        lambda: [(X[:0], Y[:0]), (X, Y), (X[:0], Y[:0])],
    ],
)
def test_what_functions_give(function: Callable[[], Any]) -> None:
    batches = read(function, 8)
    np.testing.assert_allclose(np.concatenate([b.x for b in batches]), X)
    assert sum(len(b.y) for b in batches if b.y is not None) == 20


def test_can_be_gone_through_again() -> None:
    made = source(lambda: iter([(X, Y)]))
    assert len(list(made.batches(20))) == len(list(made.batches(20))) == 1
    assert made.count() is None


def test_the_shape_costs_no_pass() -> None:
    """What can be gone through once is gone through once."""
    once = iter([(X[:8], Y[:8]), (X[8:], Y[8:])])
    data = Dataset(source(lambda: once), Preprocessing(), (2,))
    assert data.stored_shape == (2,)
    np.testing.assert_array_equal(np.concatenate([b.x for b in data.batches(3)]), X)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("limit", [None, 3])
def test_used_up_at_the_second_pass(wrapped: bool, limit: int | None) -> None:
    once = iter([(X[:8], Y[:8]), (X[8:], Y[8:])])

    def again() -> Iterator[Any]:
        yield from once

    data = Dataset(source(again if wrapped else lambda: once), Preprocessing(), (2,), limit=limit)
    assert sum(len(b.x) for b in data.batches(4)) == (limit or 20)
    # All of it is used up, or the second part comes first.
    said = r"s\.py:f (is used up: it yields no samples|yields other samples) at a later pass"
    with pytest.raises(DataError, match=said) as caught:
        list(data.batches(4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["order", "values", "labels", "fewer"])
def test_other_samples_at_the_second_pass(change: str) -> None:
    passes = 0

    def function() -> Iterator[Any]:
        nonlocal passes
        passes += 1
        x, y = X.copy(), Y.copy()
        if passes > 1 and change == "order":
            x[[9, 15]], y[[9, 15]] = x[[15, 9]], y[[15, 9]]
        if passes > 1 and change == "values":
            x[15] += 0.001
        if passes > 1 and change == "labels":
            y[15] = 3
        yield x[:8], y[:8]
        if passes == 1 or change != "fewer":
            yield x[8:], y[8:]

    made = source(function)
    assert len(list(made.batches(20))) == 1
    said = "is used up: it yields 8 samples" if change == "fewer" else "other samples .* from sample 8 on"
    with pytest.raises(DataError, match=said):
        list(made.batches(5))


def fails() -> Iterator[Any]:
    yield X
    raise ValueError("first line\nsecond line")


def leaves() -> Iterator[Any]:
    yield X
    sys.exit(3)


@pytest.mark.parametrize("item", [{"x": X, "y": Y}, {"image": X, "label": Y}])
def test_batches_that_name_their_parts(item: dict[str, Any]) -> None:
    for function in (lambda: [item], lambda: item):
        (batch,) = read(function, 20)
        np.testing.assert_array_equal(batch.x, X)
        np.testing.assert_array_equal(batch.y, Y)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (fails, "s.py:f failed: ValueError: first line second line"),
        (lambda: None, "TypeError"),
        (lambda: [(X, Y, Y)], "yields 3 things at a time"),
        (lambda: [(X, Y[:3])], "20 samples with 3 labels"),
        (lambda: [(X, Y), X], "labels with some batches only"),
        (lambda: [X, (X, Y)], "labels with some batches only"),
        (lambda: [X, X[:, :1]], "unequal shape: (2,), then (1,)"),
        (lambda: [X, X.astype(np.uint8)], "unequal type: float32, then uint8"),
        (lambda: [X[0]], "has shape (2,)"),
        (lambda: [{"a": X, "b": Y}], "has the columns a, b; one of samples and one of labels are needed"),
        (leaves, "s.py:f failed: SystemExit: 3"),
        (lambda: [(X, Y / 2)], "labels of type float64"),
        (lambda: [(X, -Y)], "negative label"),
        (lambda: [([[1, 2], [3]], [0, 1])], "ValueError"),
    ],
)
def test_faults(function: Callable[[], Any], said: str) -> None:
    for size in (3, 20):
        with pytest.raises(DataError) as caught:
            read(function, size)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_nothing_yielded() -> None:
    assert read(lambda: [], 3) == []


def write(folder: Path, code: str) -> Path:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(code))
    return path


def test_loaded_from_a_file_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "cloak_neighbour.py").write_text("ROWS = 3\n")
    (tmp_path / "cloak_late_neighbour.py").write_text("COLUMNS = 4\n")
    path = write(
        tmp_path,
        """
        from __future__ import annotations
        from dataclasses import dataclass
        import numpy as np
        import cloak_neighbour

        @dataclass
        class Shape:  # dataclasses look their module up by name
            rows: int

        def batches():
            from cloak_late_neighbour import COLUMNS
            yield np.zeros((Shape(cloak_neighbour.ROWS).rows, COLUMNS), np.float32)
        """,
    )
    (batch,) = open_script(f"{path}:batches").batches(8)
    assert batch.x.shape == (3, 4)


@pytest.mark.parametrize(
    ("code", "function", "said"),
    [
        ("def batches(): pass", "batch", "no function 'batch'; did you mean 'batches'?"),
        ("batches = 3", "batches", "no function 'batches'"),
        ("1 / 0", "batches", "failed: ZeroDivisionError"),
        ("def batches(:", "batches", "failed: SyntaxError"),
        ("raise ValueError('a\\nb')", "batches", "failed: ValueError: a b"),
    ],
)
def test_files_that_fail(tmp_path: Path, code: str, function: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        open_script(f"{write(tmp_path, code)}:{function}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["script.py", "script.py:", "script.txt:f", ":f", "script.py:a b", "x"])
def test_other_forms(spec: str) -> None:
    with pytest.raises(DataError, match=r"not of the form FILE\.py:FUNCTION"):
        open_script(spec)


def test_missing_file(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(DataError, match=r"no file or folder .*scrip\.py; did you mean 'script\.py'"):
        open_script(f"{tmp_path / 'scrip.py'}:f")
