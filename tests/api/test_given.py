"""Samples of every kind, models of every kind: the same results, and a line where it is no such thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cloakonnx as ck
from cloakonnx.data.samples import Dataset

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "samples" / "digits_cnn.onnx"
FILE = ROOT / "samples" / "digits_test_fgsm.npz"
COUNT = 70


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FILE) as arrays:
        return arrays["x"][:COUNT], arrays["y"][:COUNT]


@pytest.fixture(scope="module")
def clf() -> ck.Classifier:
    return ck.Classifier(MODEL, provider=ck.choose_provider("cpu"))


class Loader:
    """Like a DataLoader: batches, again and again."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        for start in range(0, len(self.x), 32):
            yield [self.x[start : start + 32], self.y[start : start + 32]]


class Tensor:
    """Like a tensor of a framework: numpy can read it."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values if dtype is None else self.values.astype(dtype)


class Frame:
    """Like a DataFrame of pandas: columns by place, with names."""

    dtypes = to_numpy = None

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns, self._values = list(columns), list(columns.values())

    @property
    def iloc(self) -> Any:
        values = self._values

        class Places:
            def __getitem__(self, key: tuple[slice, int]) -> Any:
                return values[key[1]][key[0]]

        return Places()


class Polars(dict[str, Any]):
    """Like a DataFrame of polars: columns by name alone."""

    dtypes = to_numpy = None

    @property
    def columns(self) -> list[str]:
        return list(self)


class HuggingFace:
    """Like a Dataset of Hugging Face: lists until it is asked for arrays."""

    def __init__(self, columns: dict[str, Any], *, arrays: bool = False) -> None:
        self.columns, self.column_names, self.arrays = columns, list(columns), arrays

    def with_format(self, kind: str) -> HuggingFace:
        assert kind == "numpy"
        return HuggingFace(self.columns, arrays=True)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: slice) -> dict[str, Any]:
        assert self.arrays
        return {name: values[rows] for name, values in self.columns.items()}


def columns_of(x: np.ndarray, y: Any, name: str = "label") -> dict[str, Any]:
    flat = x.reshape(len(x), -1)
    return {f"pixel {place}": flat[:, place] for place in range(flat.shape[1])} | {name: y}


def batches(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield x[:50], y[:50]
    yield x[50:], y[50:]


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, Path], Any]] = {
    "arrays": lambda x, y, folder: (x, y),
    "tensors": lambda x, y, folder: (Tensor(x), Tensor(y)),
    "labels in a list": lambda x, y, folder: (x, y.tolist()),
    "npz": lambda x, y, folder: folder / "d.npz",
    "text of a path": lambda x, y, folder: str(folder / "d.npz"),
    "samples": lambda x, y, folder: ck.Samples(folder / "d.npz"),
    "npy and labels": lambda x, y, folder: ck.Samples(folder / "x.npy", labels=folder / "y.npy"),
    "list": lambda x, y, folder: [(x[:9], y[:9]), (x[9:], y[9:])],
    "tuple of batches": lambda x, y, folder: ((x[:9], y[:9]), (x[9:], y[9:])),
    "loader": lambda x, y, folder: Loader(x, y),
    "generator function": lambda x, y, folder: lambda: batches(x, y),
    "function of arrays": lambda x, y, folder: lambda: (x, y),
    "function of a path": lambda x, y, folder: lambda: folder / "d.npz",
    "pandas": lambda x, y, folder: ck.Samples(Frame(columns_of(x, y)), label_column="label"),
    "names of classes": lambda x, y, folder: ck.Samples(
        Frame(columns_of(x, np.array([f"class {label}" for label in y]))),
        label_column="label",
        classes=tuple(f"class {label}" for label in range(10)),
    ),
    "polars": lambda x, y, folder: ck.Samples(Polars(columns_of(x, y, "t")), label_column="t"),
    "data set": lambda x, y, folder: HuggingFace({"label": y, "image": x}),
    "column of a data set": lambda x, y, folder: ck.Samples(HuggingFace({"is": y, "image": x}), label_column="is"),
    "named batches": lambda x, y, folder: [{"image": x[:9], "y": y[:9]}, {"image": x[9:], "y": y[9:]}],
    "function of named batches": lambda x, y, folder: lambda: iter([{"x": x, "target": y}]),
    "function of a data set": lambda x, y, folder: lambda: HuggingFace({"label": y, "image": x}),
    "function of a loader": lambda x, y, folder: lambda: Loader(x, y),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_rule_for_samples(
    kind: str, data: tuple[np.ndarray, np.ndarray], clf: ck.Classifier, tmp_path: Path
) -> None:
    x, y = data
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    given = KINDS[kind](x, y, tmp_path)
    right = int((clf.predict(x / np.float32(255) if x.dtype == np.uint8 else x) == y).sum())
    for _ in range(2):  # may be gone through again
        assert ck.accuracy(clf, given) == ck.records.Accuracy(right, COUNT)
    fgsm = ck.attacks.FGSM(eps=1 / 16)
    wanted = ck.attack(clf, (x, y), fgsm)
    assert np.array_equal(ck.attack(clf, given, fgsm).x.reshape(x.shape), wanted.x)


def test_an_array_has_no_labels(data: tuple[np.ndarray, np.ndarray], clf: ck.Classifier) -> None:
    assert not ck.attack(clf, data[0], "noise", eps=0.01).has_labels
    with pytest.raises(ck.CloakError, match="the array has no labels"):
        ck.accuracy(clf, data[0])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (batches, "a generator can be gone through once only.*give the function that makes it"),
        (lambda x, y: iter([(x, y)]), "a list_iterator can be gone through once only"),
        (lambda x, y: {"x": x, "y": y}, "a dict say neither what is x nor what is y"),
        (lambda x, y: Frame(columns_of(x, y)), "65 columns .* takes 64; name .* with label_column: is it 'label'?"),
        (
            lambda x, y: ck.Samples(Frame(columns_of(x, y)), label_column="labl"),
            "no column 'labl'; did you mean 'label'",
        ),
        (
            lambda x, y: ck.Samples(Frame(columns_of(x, y) | {"pixel 3": y.astype(str)}), label_column="label"),
            "the Frame: column 'pixel 3' holds <U.*, not numbers",
        ),
        (
            lambda x, y: ck.Samples(Frame(columns_of(x * np.nan, y)), label_column="label"),
            "the Frame: column 'pixel 0', row 0: holds no finite float32 number",
        ),
        (lambda x, y: ck.Samples(Frame(columns_of(x, y)), crop=3), "crop is for samples in files, not for a Frame"),
        (lambda x, y: ck.Samples(Frame(columns_of(x, y)), classes=("a",)), "classes names what is in label_column"),
        (lambda x, y: ck.Samples(HuggingFace({"a": x, "b": y}), label_column="c"), r"no column 'c' \(it has a, b\)"),
        (
            lambda x, y: HuggingFace({"a": x, "b": y}),
            "has the columns a, b; one of samples and one of labels are needed",
        ),
        (lambda x, y: [columns_of(x, y)], r"the list has the columns pixel 0, .*to_pandas\(\)\) with label_column"),
        (lambda x, y: 3, "samples can't be taken from an int: give an array"),
        (lambda x, y: None, "samples can't be taken from a NoneType"),
        (lambda x, y: (x, y[:-1]), f"the array has {COUNT - 1} labels for {COUNT} samples"),
        (lambda x, y: ck.Samples((x, y), classes=("a", "b")), "classes is for samples in files, not for a tuple"),
        (
            lambda x, y: ck.Samples((x, y + 20), name="mine"),
            "mine: sample 0 has label .*, but the model has 10",
        ),
        (lambda x, y: lambda: 1 / 0, "failed: ZeroDivisionError"),
        (lambda x, y: [], "the list is empty"),
        (lambda x, y: x[0, 0, 0], "the first axis counts samples"),
        (lambda x, y: ck.Samples((x, y), limit=0), "limit 0 must be at least 1"),
        (lambda x, y: "missing.npz", "no file or folder missing.npz"),
    ],
)
def test_what_is_no_samples(
    given: Callable[..., Any], why: str, data: tuple[np.ndarray, np.ndarray], clf: ck.Classifier
) -> None:
    with pytest.raises(ck.CloakError, match=why):
        ck.accuracy(clf, given(*data))


def test_a_loader_that_shuffles_is_found_out(data: tuple[np.ndarray, np.ndarray], clf: ck.Classifier) -> None:
    class Shuffling(Loader):
        def __iter__(self) -> Iterator[list[np.ndarray]]:
            order = np.random.default_rng().permutation(len(self.x))
            return iter([[self.x[order], self.y[order]]])

    loader = ck.Samples(Shuffling(*data))
    with pytest.raises(ck.CloakError, match="yields other samples at a later pass"):
        for _ in range(3):
            ck.accuracy(clf, loader)


def test_a_limit_and_a_name(data: tuple[np.ndarray, np.ndarray], clf: ck.Classifier) -> None:
    given = ck.Samples(data, limit=20, name="twenty")
    assert ck.accuracy(clf, given).count == 20
    assert ck.evaluate(clf, given, eps=0.01, attack="noise", baseline=clf, sanity=False).data.name == "twenty"
    fitted = Dataset.of(given, clf)
    assert Dataset.of(fitted, clf) is fitted


def test_one_rule_for_models(data: tuple[np.ndarray, np.ndarray], clf: ck.Classifier) -> None:
    wanted = ck.accuracy(clf, data)
    for model in (MODEL, str(MODEL), ck.load(MODEL), clf):
        assert ck.accuracy(model, data) == wanted
        assert ck.taps(model) == ck.taps(clf)
        assert ck.diff(model, MODEL) == []
    with pytest.raises(ck.CloakError, match=r"the path of an \.onnx file, a Model or a Classifier, not bytes"):
        ck.accuracy(MODEL.read_bytes(), data)  # type: ignore[arg-type]


def test_pairs_of_any_kind(data: tuple[np.ndarray, np.ndarray], clf: ck.Classifier, tmp_path: Path) -> None:
    adv = ck.attack(clf, data, "fgsm", eps=1 / 16, output=tmp_path / "adv.npz")
    by_path = ck.analyze(clf, ck.Pairs(data, tmp_path / "adv.npz"))
    by_array = ck.analyze(clf, ck.Pairs(Loader(*data), (adv.x, adv.y)))
    on_the_fly = ck.analyze(clf, data, attack="fgsm", eps=1 / 16)
    assert by_path.scores is not None and by_array.scores is not None and on_the_fly.scores is not None
    assert np.array_equal(by_path.scores.scores, by_array.scores.scores)
    assert np.allclose(by_path.scores.scores, on_the_fly.scores.scores, rtol=1e-4)
    with pytest.raises(ck.CloakError, match="give attack, which makes them, or Pairs"):
        ck.analyze(clf, data)
    limited = ck.analyze(clf, ck.Pairs(ck.Samples(data, limit=30), tmp_path / "adv.npz"))
    assert limited.samples.count == 30


def test_masks_of_any_kind(clf: ck.Classifier, data: tuple[np.ndarray, np.ndarray]) -> None:
    mask = ck.Mask("/6/Relu_output_0", np.r_[np.zeros(4), np.ones(60)])
    for given in (mask, [mask], clf.with_masks(mask)):
        assert [each.removed for each in clf.with_masks(given).masks] == [[0, 1, 2, 3]]
        assert ck.masks(ck.apply(clf, given))[0].removed == [0, 1, 2, 3]
    scores = ck.analyze(clf, data, attack="fgsm", eps=1 / 16)
    with pytest.raises(ck.CloakError, match="holds scores, no masks"):
        clf.with_masks(scores)
    with pytest.raises(ck.CloakError, match=r"a Mask is needed.*not int"):
        clf.with_masks(3)  # type: ignore[arg-type]
