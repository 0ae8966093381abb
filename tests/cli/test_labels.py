"""Labels that are not the model's classes: counted from one, true ones as targets, in another order than the file's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from cloakonnx.graph.index.classnames import class_names

from .conftest import Run

CLASSES, SIZE, COUNT = 4, 12, 60
RNG = np.random.default_rng(6)
W = RNG.normal(size=(SIZE, CLASSES)).astype(np.float32)
B = -0.5 * W.sum(0)
X = RNG.random((COUNT, SIZE)).astype(np.float32)
Y = (X @ W + B).argmax(axis=1)


def net(declared: int | str = CLASSES, names: tuple[str, ...] = ()) -> ModelProto:
    """Return a linear net; with names of its classes it gives their text beside the scores, as scikit-learn's do."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIZE])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", declared])],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(B, "b")],
    )
    if names:
        graph.node.add().CopyFrom(helper.make_node("ArgMax", ["z"], ["i"], axis=1, keepdims=0))
        graph.node.add().CopyFrom(
            helper.make_node("ArrayFeatureExtractor", ["names", "i"], ["label"], domain="ai.onnx.ml")
        )
        graph.initializer.add().CopyFrom(helper.make_tensor("names", TensorProto.STRING, [len(names)], names))
        graph.output.add().CopyFrom(helper.make_tensor_value_info("label", TensorProto.STRING, None))
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, ir_version=8, opset_imports=domains)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "m.onnx").write_bytes(net().SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


NOISE = ("--attack", "noise", "--eps", "0.001", "-o", "a.npz", "--force")


@pytest.mark.parametrize("declared", [CLASSES, "K"])
@pytest.mark.parametrize("source", ["npz", "sorted", "script"])
def test_labels_that_count_from_one(run: Run, here: Path, source: str, declared: int | str) -> None:
    """With the last class among them they would not fit; three are wrong labels, whatever they count from."""
    (here / "m.onnx").write_bytes(net(declared).SerializeToString())
    y = Y.copy()
    y[:3] = (y[:3] + 1) % CLASSES
    order = np.argsort(y, kind="stable") if source == "sorted" else np.arange(COUNT)
    np.savez("data.npz", x=X[order], y=y[order] + 1)
    script = "import numpy as np\ndef load():\n    d = np.load('data.npz')\n    yield d['x'], d['y']\n"
    (here / "load.py").write_text(script)
    data = ("--data-script", "load.py:load") if source == "script" else ("--data", "data.npz")
    for verb in (("attack", "m.onnx", *NOISE), ("evaluate", "m.onnx", "--baseline", "m.onnx", "--eps", "0.001")):
        found = run(*verb, *data)
        assert found.code == 2
        assert (
            "labels up to 4, but the model has 4 classes (0 to 3); labels one lower would be right for 57" in found.err
        )
        assert found.err.count("\n") == 1
    np.savez("data.npz", x=X, y=np.roll(Y, 7) + 1)  # no shift explains these
    found = run("attack", "m.onnx", *NOISE, *data)
    assert found.code == 2
    assert "one lower" not in found.err


def test_true_labels_as_targets(run: Run, here: Path) -> None:
    """None left is bad input; samples that are the target already are counted, and most of them is a doubt."""
    targeted = ("attack", "m.onnx", *NOISE, "--data", "data.npz", "--targeted")
    np.savez("data.npz", x=X, y=Y)
    found = run(*targeted)
    assert found.code == 2
    assert "all 60 samples are classified as their label, so there is no class left to reach" in found.err
    assert sorted(path.name for path in here.iterdir()) == ["data.npz", "m.onnx"]
    for wrong, doubt in ((10, True), (50, False), (60, None)):
        y = Y.copy()
        y[:wrong] = (y[:wrong] + 1) % CLASSES
        np.savez("data.npz", x=X, y=y)
        found = run(*targeted)
        assert found.code == 0
        assert f"{wrong} of 60 not the target" in found.err
        assert (f"{60 - wrong} of 60 samples are classified as the target already" in found.err) == (wrong < 60)
        assert ("are the labels the true classes" in found.err) == bool(doubt)


NAMES = ("zebra", "ant", "mole", "bee")
FOLDERS = ("--input", "x", "--output-name", "z", "--data", "pictures")


def pictures(folder: Path, names: tuple[str, ...] = NAMES) -> int:
    """Draw the samples into class folders; return how many the net has right with folders in order of their text."""
    levels = np.rint(X * 255).astype(np.uint8)
    decided = (levels / np.float32(255) @ W + B).argmax(axis=1)
    for number, (pixels, label) in enumerate(zip(levels, decided, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.reshape(3, 4)).save(folder / names[label] / f"{number}.png")
    return int((np.argsort(np.argsort(names))[decided] == decided).sum())


def test_folders_are_matched_to_the_names_in_the_file(run: Run, here: Path) -> None:
    (here / "m.onnx").write_bytes(net(names=NAMES).SerializeToString())
    assert pictures(here / "pictures") < 30
    for verb in (
        ("attack", "m.onnx", *NOISE),
        ("evaluate", "m.onnx", "--baseline", "m.onnx", "--eps", "1/255", "--json"),
    ):
        found = run(*verb, *FOLDERS)
        assert found.code == 0, found.err
        assert "pictures: the class folders are matched by name to the classes in the model's file" in found.err
        assert "warning" not in found.err.replace("warning: sanity flag", "")
        assert "60 of 60 correct" in found.err or '"correct": 60' in found.out
    (here / "pictures" / "ant").rename(here / "ant")  # a class without pictures takes no place
    found = run("attack", "m.onnx", *NOISE, *FOLDERS)
    assert f"{60 - int((Y == 1).sum())} of" in found.err


def test_classes_in_another_order_than_the_file_names_them(run: Run, here: Path) -> None:
    """What --classes says holds; both are shown, and the order that would be right."""
    (here / "m.onnx").write_bytes(net(names=NAMES).SerializeToString())
    right = pictures(here / "pictures")
    found = run("attack", "m.onnx", *NOISE, *FOLDERS, "--classes", "ant,bee,mole,zebra")
    assert f"m.onnx: {right} of 60 correct" in found.err
    assert (
        "warning: pictures: --classes gives ant, bee, mole, ..., and the model's file names its classes zebra"
        in found.err
    )
    assert "would be right (label 0 as class 1 ant, label 1 as class 3 bee, label 3 as class 0 zebra)" in found.err
    run("attack", "m.onnx", *NOISE, *FOLDERS, "--classes", ",".join(NAMES)).err.index("60 of 60 correct")


def test_folders_with_other_names_than_the_file(run: Run, here: Path) -> None:
    (here / "m.onnx").write_bytes(net(names=NAMES).SerializeToString())
    right = pictures(here / "pictures", ("n4", "n1", "n3", "n2"))
    found = run("attack", "m.onnx", *NOISE, *FOLDERS)
    assert f"m.onnx: {right} of 60 correct" in found.err
    assert "in the order of n1, n2, n3, ..., and the model's file names its classes zebra, ant, mole, ..." in found.err
    assert "The model's file names its classes 0 zebra, 1 ant, 2 mole, 3 bee" in found.err
    pictures(here / "numbers", ("0", "1", "2", "3"))
    found = run("attack", "m.onnx", *NOISE, *FOLDERS, "--data", "numbers")
    assert "60 of 60 correct" in found.err
    assert "names its classes" not in found.err


@pytest.mark.parametrize("numbers", [(3, 5, 7, 20), (1, 2, 3, 4), (30, 10, 40, 20)])
@pytest.mark.parametrize("kind", ["npz", "npy", "csv"])
def test_numbers_that_the_file_gives_its_classes(run: Run, here: Path, kind: str, numbers: tuple[int, ...]) -> None:
    """Labels are numbers as the model's label output gives them; those that count from 0 are taken as they are."""
    made = net()
    made.graph.node.add().CopyFrom(helper.make_node("ArgMax", ["z"], ["i"], axis=1, keepdims=0))
    extract = helper.make_node("ArrayFeatureExtractor", ["numbers", "i"], ["label"], domain="ai.onnx.ml")
    made.graph.node.add().CopyFrom(extract)
    made.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.array(numbers), "numbers"))
    made.graph.output.add().CopyFrom(helper.make_tensor_value_info("label", TensorProto.INT64, None))
    (here / "m.onnx").write_bytes(made.SerializeToString())
    labels = np.array(numbers)[Y]
    np.savez("data.npz", x=X, y=labels)
    np.save("data.npy", X)
    np.save("labels.npy", labels)
    rows = [",".join([*map(repr, map(float, row)), str(label)]) for row, label in zip(X, labels, strict=True)]
    header = ",".join([*(f"c{i}" for i in range(SIZE)), "label"])
    Path("data.csv").write_text("\n".join([header, *rows]))
    more = {"npz": (), "npy": ("--labels", "labels.npy"), "csv": ("--label-column", "label")}[kind]
    found = run("attack", "m.onnx", *NOISE, "--data", f"data.{kind}", *more)
    assert "60 of 60 correct" in found.err
    assert "its labels are taken for the numbers of the classes in the model's file" in found.err
    np.savez("data.npz", x=X, y=Y)
    found = run("attack", "m.onnx", *NOISE, "--data", "data.npz")
    assert "60 of 60 correct" in found.err
    assert "the numbers of the classes" not in found.err


@pytest.mark.parametrize("names", [NAMES, ()])
def test_numbers_in_another_order(run: Run, here: Path, names: tuple[str, ...]) -> None:
    (here / "m.onnx").write_bytes(net(names=names).SerializeToString())
    y = np.array([2, 3, 1, 0])[Y]
    y[:4] = Y[:4]
    np.savez("data.npz", x=X, y=y)
    settings = ("--data", "data.npz", "--output-name", "z")
    text = "with the classes in another order 56 of 60 samples would be right (label 0 as class 3"
    assert (y == np.array([2, 3, 1, 0])[Y]).sum() == 56
    assert text in run("attack", "m.onnx", *NOISE, *settings).err
    evaluated = run("evaluate", "m.onnx", "--baseline", "m.onnx", "--eps", "0.001", *settings, "--json")
    assert text in evaluated.out
    assert ("its classes 0 zebra, 1 ant, 2 mole, 3 bee" in evaluated.out) == bool(names)
    np.savez("data.npz", x=X, y=np.random.default_rng(1).permutation(Y))  # no order explains these
    assert "another order" not in run("attack", "m.onnx", *NOISE, *settings).err


def ml(op_type: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, ["z"], ["t"], domain="ai.onnx.ml", **attributes)


@pytest.mark.parametrize(
    ("node", "metadata", "found"),
    [
        (ml("ZipMap", classlabels_strings=NAMES), {}, NAMES),
        (ml("LinearClassifier", classlabels_strings=NAMES), {}, NAMES),
        (ml("ZipMap", classlabels_int64s=[0, 1, 2, 3]), {}, None),
        (ml("ZipMap", classlabels_int64s=[3, 5, 7, 20]), {}, ("3", "5", "7", "20")),
        (ml("LinearClassifier", classlabels_ints=[-1, 1, 2, 3]), {}, ("-1", "1", "2", "3")),
        (ml("ZipMap", classlabels_int64s=[3, 5, 7]), {}, None),
        (ml("LabelEncoder", keys_int64s=[1, 0, 3, 2], values_strings=["ant", "zebra", "bee", "mole"]), {}, NAMES),
        (ml("LabelEncoder", keys_strings=NAMES, values_int64s=[0, 1, 2, 3]), {}, None),
        (None, {"names": "{0: 'zebra', 1: 'ant', 2: \"mole\", 3: 'bee'}"}, NAMES),
        (None, {"names": '{"0": "zebra", "1": "ant", "2": "mole", "3": "bee"}'}, NAMES),
        (None, {"classes": '["zebra", "ant", "mole", "bee"]'}, NAMES),
        (None, {"labels": "['zebra', 'ant', 'mole', 'bee']"}, NAMES),
        (None, {"Labels": "zebra, ant,mole,bee"}, NAMES),
        (None, {"classes": "zebra\nant\nmole\nbee\n"}, NAMES),
        (None, {"classes": "4"}, None),
        (None, {"labels": "one of the four kinds of animals, as numbers"}, None),
        (None, {"classes": "0,1,2,3"}, None),
        (None, {"classes": "zebra,ant,mole"}, None),
        (None, {"classes": "zebra,ant,mole,ant"}, None),
        (None, {"names": "{0: 'zebra', 1: 'ant', 2: 'mole', 4: 'bee'}"}, None),
        (None, {"names": "{" * 100_000}, None),
        (None, {"names": "[" * 100_000}, None),
        (None, {"names": "{0: __import__('os'), 1: 'ant', 2: 'mole', 3: 'bee'}"}, None),
        (None, {"author": "zebra,ant,mole,bee"}, None),
        (None, {"classes": "zebra,ant,mole,bee", "names": "ant,zebra,mole,bee"}, None),
    ],
)
def test_names_of_classes(node: NodeProto | None, metadata: dict[str, str], found: tuple[str, ...] | None) -> None:
    made = net()
    if node is not None:
        made.graph.node.add().CopyFrom(node)
    helper.set_model_props(made, metadata)
    assert class_names(made, CLASSES) == found
