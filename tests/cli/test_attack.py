"""``cloakonnx attack`` and ``analyze --attack`` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import cloakonnx
from tests.fixtures import core

from .conftest import PGD, Run, files


def network(nodes: list[onnx.NodeProto], *extra: onnx.TensorProto, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a model from x (N, 4) through a = x w to the nodes, which make y (N, 3)."""
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    cast = [helper.make_node("Cast", ["x"], ["z"], to=TensorProto.FLOAT)]
    graph = helper.make_graph(
        [*cast, helper.make_node("MatMul", ["z", "w"], ["a"], name="first"), *nodes],
        "made",
        [helper.make_tensor_value_info("x", kind, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weight, "w"), *extra],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, ir_version=8, opset_imports=domains)


def no_rule() -> onnx.ModelProto:
    eye = numpy_helper.from_array(np.ones(3, bool), "e")
    return network([helper.make_node("Compress", ["a", "e"], ["y"], name="odd", axis=1)], eye)


def rounding() -> onnx.ModelProto:
    nodes = [helper.make_node("Mul", ["a", "many"], ["m"]), helper.make_node("Round", ["m"], ["y"], name="odd")]
    return network(nodes, numpy_helper.from_array(np.float32(100), "many"))


def trees() -> onnx.ModelProto:
    names = ("nodes_falsenodeids", "nodes_featureids", "nodes_nodeids", "nodes_treeids", "nodes_truenodeids")
    numbers = ([2, 0, 4, 0, 0], [0, 0, 1, 0, 0], [0, 1, 2, 3, 4], [0] * 5, [1, 0, 3, 0, 0])
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "y"], name="forest", domain="ai.onnx.ml",
        class_ids=[0, 1, 2], class_nodeids=[1, 3, 4], class_treeids=[0] * 3, class_weights=[1.0] * 3,
        classlabels_int64s=[0, 1, 2], nodes_modes=["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.3, 0.0, 0.5, 0.0, 0.0], post_transform="NONE", **dict(zip(names, numbers, strict=True)),
    )  # fmt: skip
    made = network([])
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.append(node)
    return made


def model(made: onnx.ModelProto) -> Callable[[Path], object]:
    return lambda folder: (folder / "m.onnx").write_bytes(made.SerializeToString())


def data(**arrays: Any) -> Callable[[Path], object]:
    return lambda folder: np.savez(folder / "clean.npz", **arrays)


def two_inputs(folder: Path) -> None:
    """Add a second input, which the scores need."""
    made = network([helper.make_node("Add", ["a", "more"], ["y"])])
    made.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 3]))
    model(made)(folder)


def nothing(folder: Path) -> None:
    """Change nothing."""


X = np.full((12, 4), 0.5, np.float32)
BAD: list[tuple[str, Callable[[Path], object], tuple[str, ...], tuple[str, ...]]] = [
    ("no rule", model(no_rule()), (), ("Compress", "'odd'", "--attack square")),
    ("trees", model(trees()), (), ("TreeEnsembleClassifier", "'forest'", "--attack square")),
    ("bytes", model(network([helper.make_node("Neg", ["a"], ["y"])], kind=TensorProto.UINT8)), (), ("uint8",)),
    ("negative eps", nothing, ("--eps", "-0.1"), ("--eps -0.1 is negative",)),
    ("one of several", nothing, ("--eps", "0.1,-0.2"), ("--eps -0.2 is negative",)),
    ("large eps", nothing, ("--eps", "8"), ("--eps 8 is wider", "[0, 1]", "8/255")),
    ("large l2 eps", nothing, ("--eps", "3", "--norm", "l2"), ("--eps 3 is wider",)),
    ("odd eps", nothing, ("--eps", "a lot"), ("'a lot' is not a number",)),
    ("eps twice", nothing, ("--eps", "0.1,1/10"), ("same number twice",)),
    ("outside the bounds", data(x=X * 300), (), ("sample 0 has the value 150", "--bounds")),
    ("outside later", data(x=np.concatenate([X, X * 3])), ("--batch-size", "4"), ("sample 12 has the value 1.5",)),
    ("no labels", data(x=X), ("--targeted",), ("clean.npz has no labels", "targeted")),
    ("unknown attack", nothing, ("--attack", "pdg"), ("there is no attack 'pdg'", "'pgd'")),
    ("not taken", nothing, ("--attack", "square", "--loss", "dlr"), ("square takes no --loss",)),
    ("nothing to pass", nothing, ("--attack", "square", "--straight-through"), ("square takes no --straight-through",)),
    ("no folder", nothing, ("-o", "none/adv.npz"), ("there is no folder",)),
    ("no npz", nothing, ("-o", "adv.npy"), ("adv.npy is to hold arrays: give it the suffix .npz",)),
    (
        "two inputs",
        two_inputs,
        ("--input", "x"),
        ("needs 'more' beside 'x', and only one input takes samples",),
    ),
    (
        "bytes in bounds",
        data(x=(X * 255).astype(np.uint8)),
        ("--bounds", "0,255"),
        ("uint8", "leave out --bounds 0,255"),
    ),
    ("scale", nothing, ("--scale", "1e40"), ("--scale 1e+40 is too large or too small for float32",)),
    ("small scale", nothing, ("--scale", "1e-50"), ("--scale 1e-50 is too large or too small for float32",)),
    ("rounding elsewhere", nothing, ("--round", "--bounds", "0,2"), ("--round takes levels of 1/255",)),
]


@pytest.mark.parametrize(("change", "options", "said"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_bad_input(
    folder: Path, run: Run, change: Callable[[Path], object], options: tuple[str, ...], said: tuple[str, ...]
) -> None:
    change(folder)
    before = files(folder)
    result = run(*PGD, *options)
    assert result.code == 2
    lines = result.err.strip().splitlines()
    assert len([line for line in lines if not line.startswith(("Usage:", "Try "))]) == 1, result.err
    assert all(text in result.err for text in said), result.err
    assert not result.out
    assert files(folder) == before


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab(folder: Path, run: Run, norm: str) -> None:
    result = run(*PGD, "--attack", "fab-t", "--max-iter", "3", "--norm", norm)
    assert result.code == 0, result.err
    with np.load(folder / "adv.npz") as found, np.load(folder / "clean.npz") as clean:
        settings = json.loads(str(found["settings"]))
        moved = (found["x"].astype(np.float64) / (255 if found["x"].dtype == np.uint8 else 1) - clean["x"]).reshape(
            len(found["x"]), -1
        )
    assert (settings["attack"], settings["max_iter"], settings["restarts"], settings["targets"]) == ("fab-t", 3, 1, 9)
    assert np.linalg.norm(moved, ord=np.inf if norm == "linf" else 2, axis=1).max() <= 0.1 + 1e-6


@pytest.mark.parametrize("made", [no_rule(), trees()])
def test_square_where_there_is_no_gradient(folder: Path, run: Run, made: onnx.ModelProto) -> None:
    model(made)(folder)
    result = run(*PGD, "--attack", "square", "--max-iter", "20", "--eps", "0.3")
    assert result.code == 0, result.err
    assert (folder / "adv.npz").is_file()


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t"])
def test_straight_through(folder: Path, run: Run, attack: str) -> None:
    """Rounding of the logits to 1/100 hides every gradient and changes next to nothing."""
    (folder / "plain.onnx").write_bytes(network([helper.make_node("Identity", ["a"], ["y"])]).SerializeToString())
    model(rounding())(folder)
    found = []
    for name, options in (("plain", ()), ("m", ("--straight-through",))):
        given = ("--attack", attack, "--eps", "0.4", *options, "-o", f"{name}.npz", "--json")
        result = run("attack", f"{name}.onnx", *PGD[2:], *given)
        assert result.code == 0, result.err
        found.append(json.loads(result.out))
    assert found[1]["settings"]["straight_through"]
    assert abs(found[0]["robust"] - found[1]["robust"]) <= 1
    assert found[1]["robust"] < found[1]["correct"]


def test_straight_through_where_nothing_else_is_left(folder: Path, run: Run) -> None:
    """Asked for or not, the result is the same; where it was not asked for, it is said."""
    model(rounding())(folder)
    found = []
    for name, options in (("asked", ("--straight-through",)), ("not", ())):
        result = run("attack", "m.onnx", *PGD[2:], "--eps", "0.4", *options, "-o", f"{name}.npz")
        assert result.code == 0, result.err
        assert ("gradients pass that straight through" in result.err) == (not options)
        with np.load(folder / f"{name}.npz") as arrays:
            assert json.loads(str(arrays["settings"]))["straight_through"]
            found.append(arrays["x"])
    np.testing.assert_array_equal(*found)


def test_several_eps(folder: Path, run: Run) -> None:
    result = run(*PGD, "--eps", "1/255, 0.1", "--json")
    assert result.code == 0
    assert {path.name for path in folder.glob("adv.*")} == {"adv.eps1_255.npz", "adv.eps0.1.npz"}
    told = json.loads(result.out)
    for each, eps in zip(told, (1 / 255, 0.1), strict=True):
        with np.load(folder / each["output"]) as arrays:
            settings = json.loads(str(arrays["settings"]))
            assert settings["eps"] == each["settings"]["eps"] == eps
            assert each["samples"] == 12
            assert each["robust"] <= each["correct"]
            assert each["robust"] == 12 - int(arrays["success"].sum())
    assert told[1]["robust"] <= told[0]["robust"]


def test_without_labels(folder: Path, run: Run) -> None:
    """The predictions stand in, and whoever takes them for labels is told."""
    with np.load(folder / "clean.npz") as arrays:
        np.save(folder / "x.npy", arrays["x"])
    result = run(*PGD, "--data", "x.npy", "--json")
    assert result.code == 0
    assert "m.onnx: 12 samples, " in result.err
    assert " keep their class under pgd" in result.err
    assert "the data has no labels: the model's own predictions stand in, as y in the file, too" in result.err
    assert json.loads(result.out)["settings"]["labels"] == "predicted"
    with np.load(folder / "adv.npz") as arrays:
        assert json.loads(str(arrays["settings"]))["labels"] == "predicted"
    warning = "warning: the labels of adv.npz are a model's own predictions, not true ones"
    again = run(*PGD, "--data", "adv.npz", "-o", "again.npz")
    assert warning in again.err
    assert run(*PGD, "--data", "clean.npz", "--force").code == 0
    with np.load(folder / "adv.npz") as arrays:
        assert json.loads(str(arrays["settings"]))["labels"] == "given"
    assert warning not in run(*PGD, "--data", "adv.npz", "-o", "again.npz", "--force").err


def test_predicted_labels_need_not_agree_with_true_ones(folder: Path, run: Run) -> None:
    with np.load(folder / "clean.npz") as arrays:
        np.save(folder / "x.npy", arrays["x"])
    assert run(*PGD, "--data", "x.npy").code == 0
    with np.load(folder / "adv.npz") as own, np.load(folder / "clean.npz") as clean:
        assert not np.array_equal(own["y"], clean["y"])
    pairs = ("--data", "clean.npz", "--adversarial", "adv.npz", "--tap", core.TAP)
    assert run("analyze", "m.onnx", *pairs, "-o", "a.json").code == 0


def test_scores_that_are_no_numbers(folder: Path, run: Run) -> None:
    model(network([helper.make_node("Sqrt", ["a"], ["y"])]))(folder)
    with np.load(folder / "clean.npz") as arrays:
        np.save(folder / "x.npy", arrays["x"])
    result = run(*PGD)
    assert result.code == 0
    assert "warning: the scores of 9 samples are no numbers (NaN); they count as not correct" in result.err
    assert "1 of 12 correct, 0 still correct" in result.err
    result = run(*PGD, "--data", "x.npy", "--force")
    assert result.code == 2
    assert "x.npy has no labels, and the model's prediction can't stand in for that of sample " in result.err


def test_no_better_than_chance(folder: Path, run: Run) -> None:
    with np.load(folder / "clean.npz") as arrays:
        np.savez(folder / "wrong.npz", x=np.tile(arrays["x"], (2, 1)), y=np.zeros(24, np.int64))
    result = run(*PGD, "--data", "wrong.npz")
    assert "warning: chance would get as many right; are preprocessing" in result.err
    assert "chance" not in run(*PGD, "--data", "wrong.npz", "--limit", "12", "--force").err  # too few to tell


@pytest.mark.parametrize("shift", [1, -1])
def test_shifted_labels_are_named(folder: Path, run: Run, shift: int) -> None:
    x = np.random.default_rng(5).random((400, 4)).astype(np.float32)
    predicted = ort.InferenceSession("m.onnx").run(None, {"x": x})[0].argmax(1)
    keep = (predicted + shift >= 0) & (predicted + shift < 3)
    np.savez(folder / "shifted.npz", x=x[keep], y=predicted[keep] + shift)
    way = "lower" if shift == 1 else "higher"
    noise = ("attack", "m.onnx", "--attack", "noise", "--eps", "0.01", "--force", "-o", "n.npz", "--batch-size", "50")
    err = run(*noise, "--data", "shifted.npz").err
    assert f"warning: labels one {way} would be right for {keep.sum()} of {keep.sum()} samples" in err
    np.savez(folder / "right.npz", x=x, y=predicted)
    assert "would be right" not in run(*noise, "--data", "right.npz").err


def test_from_python(folder: Path, run: Run) -> None:
    """The same files as the command line makes."""
    assert run(*PGD, "--eps", "0.1,0.2", "--max-iter", "5", "--batch-size", "5").code == 0
    classifier = cloakonnx.Classifier("m.onnx", provider=cloakonnx.choose_provider())
    dataset = cloakonnx.records.Dataset.of("clean.npz", classifier)
    given: dict[str, Any] = {"attack": "pgd", "max_iter": 5, "batch_size": 5}
    done: list[int] = []
    outputs = [Path("a.npz"), Path("b.npz")]
    found = cloakonnx.attack(classifier, dataset, output=outputs, eps=(0.1, 0.2), on_progress=done.append, **given)
    assert [each.path for each in found] == outputs
    assert [each.settings["eps"] for each in found] == [0.1, 0.2]
    assert found[1].robust <= found[0].robust <= found[0].correct
    assert done == [5, 10, 12, 17, 22, 24]
    for mine, theirs in zip(outputs, ("adv.eps0.1.npz", "adv.eps0.2.npz"), strict=True):
        assert mine.read_bytes() == Path(theirs).read_bytes()
    again = cloakonnx.attack(classifier, dataset, output="text.npz", eps=0.1, **given)
    assert again.path == Path("text.npz")
    assert again.path.read_bytes() == outputs[0].read_bytes()
    with pytest.raises(cloakonnx.CloakError, match="2 eps need as many outputs, all different; there are 1"):
        cloakonnx.attack(classifier, dataset, output=[Path("c.npz")], eps=(0.1, 0.2), **given)
    with pytest.raises(cloakonnx.CloakError, match="there is no folder"):
        cloakonnx.attack(classifier, dataset, output=Path("none/c.npz"), eps=0.1, **given)


def test_the_same_bytes_again(folder: Path, run: Run) -> None:
    for attack in ("pgd", "apgd-ce", "square"):
        for name in ("a", "b"):
            options = ("--max-iter", "20", "--batch-size", "5", "--seed", "3", "-o", f"{name}.npz", "--force")
            assert run(*PGD, "--attack", attack, *options).code == 0
        assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_an_adversarial_file_is_data_for_analyze(folder: Path, run: Run) -> None:
    """Made beforehand or on the fly, the same adversarial inputs give the same scores."""
    assert run(*PGD, "--attack", "fgsm").code == 0
    tap = ("--tap", core.TAP)
    pairs = ("--data", "clean.npz", "--adversarial", "adv.npz")
    assert run("analyze", "m.onnx", *pairs, *tap, "-o", "a.json").code == 0
    on_the_fly = ("--data", "clean.npz", "--attack", "fgsm", "--eps", "0.1")
    assert run("analyze", "m.onnx", *on_the_fly, *tap, "-o", "b.json").code == 0
    one, two = (json.loads((folder / name).read_text()) for name in ("a.json", "b.json"))
    assert one["scores"] == two["scores"]
    assert two["attack"]["attack"] == "fgsm"
    assert two["attack"]["eps"] == 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--attack", "fgsm"), "--attack and --eps go together"),
        (("--attack", "fgsm", "--eps", "0.1,0.2"), "analyze takes one --eps"),
        (
            ("--attack", "fgsm", "--eps", "0.1", "--adversarial", "adversarial.npz"),
            "--adversarial and --attack exclude each other",
        ),
        ((), "adversarial samples are needed"),
        (("--adversarial", "adversarial.npz", "--max-iter", "5"), "--max-iter goes with --attack"),
    ],
)
def test_analyze_with_an_attack(folder: Path, run: Run, options: tuple[str, ...], said: str) -> None:
    before = files(folder)
    result = run("analyze", "m.onnx", "--data", "clean.npz", *options)
    assert result.code == 2
    assert said in result.err
    assert files(folder) == before


@pytest.mark.parametrize("more", [(), ("--targets", "random"), ("--eps", "0.1,0.2", "--limit", "7")])
def test_a_dry_run_writes_nothing_and_expects_what_is_asked(folder: Path, run: Run, more: tuple[str, ...]) -> None:
    """All samples fit into those that are tried, so what is expected of them is what they took."""
    before = sorted(folder.iterdir())
    code, out, _ = run(*PGD, *more, "--workers", "1", "--dry-run", "--json")
    assert code == 0
    found = json.loads(out)
    assert sorted(folder.iterdir()) == before
    code, out, _ = run(*PGD, *more, "--workers", "1", "--json")
    assert code == 0
    made = json.loads(out)
    each = made if isinstance(made, list) else [made]
    samples = each[0]["samples"]
    assert found["samples"] == found["expected"]["tried"] == samples
    standing = sum(one["robust"] for one in each) / samples / len(each)
    assert found["expected"]["standing"] == pytest.approx(standing)
    assert 0 < found["expected"]["seconds"] <= found["at_most"]["seconds"]
    code, out, _ = run(*PGD, *more, "--dry-run")
    assert code == 0
    assert "withstand the attack" in out


@pytest.mark.parametrize("more", [("--targets", "99"), ("--targets", "few.npy"), ("--round", "--bounds", "0,2")])
def test_a_dry_run_refuses_what_the_run_refuses(folder: Path, run: Run, more: tuple[str, ...]) -> None:
    np.save("few.npy", np.zeros(3, np.int64))
    made, expected = run(*PGD, *more), run(*PGD, *more, "--dry-run")
    assert (made.code, expected.code, expected.out) == (2, 2, "")
    assert made.err == expected.err
