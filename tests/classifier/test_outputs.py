"""Which output is taken for the class scores: labels, maps and columns beside or around them are never in the way."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from cloakonnx.classifier.abilities import abilities
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.declared import class_count
from cloakonnx.errors import ModelError
from cloakonnx.gradient.differentiate import differentiate
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.runtime.provider import Provider
from tests.cli.conftest import Run, folder, run
from tests.fixtures.core import node, value

__all__ = ["folder", "run"]

ML, F32, I64, TEXT = "ai.onnx.ml", TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
RNG = np.random.default_rng(0)
X = RNG.random((6, 4)).astype(np.float32)
NAMES = ["ant", "bee", "cat"]
WEIGHTS = {
    "w1": RNG.normal(size=(4, 5)).astype(np.float32),
    "w2": RNG.normal(size=(5, 3)).astype(np.float32),
    **{f"c{i}": np.array([i]) for i in range(4)},
    "flat": np.array([-1]),
}
NET = [node("MatMul", "x w1", "h"), node("Relu", "h", "r"), node("MatMul", "r w2", "z"), node("Softmax", "z", "p")]
LABEL = [node("ArgMax", "p", "i", axis=1, keepdims=0)]
SCORES = value("p", ["N", 3])


def maps(key: int, name: str = "maps") -> ValueInfoProto:
    entries = helper.make_map_type_proto(key, helper.make_tensor_type_proto(F32, []))
    return helper.make_value_info(name, helper.make_sequence_type_proto(entries))


def proto(nodes: list[NodeProto], outputs: list[ValueInfoProto], *, opset: int = 17) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(values, name) for name, values in WEIGHTS.items()]
    tensors.append(helper.make_tensor("names", TEXT, [3], NAMES))
    graph = helper.make_graph([*NET, *nodes], "g", [value("x", ["N", 4])], outputs, tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets)


def columns(*, sliced: bool) -> list[NodeProto]:
    found = []
    for i in range(3):
        take = ["Slice", f"p c{i} c{i + 1} c1"] if sliced else ["ArrayFeatureExtractor", f"p c{i}"]
        found += [node(*take, f"s{i}", domain="" if sliced else ML), node("Reshape", [f"s{i}", "flat"], f"k{i}")]
    return found


ZIP = node("ZipMap", "p", "maps", domain=ML, classlabels_int64s=[0, 1, 2])
NAMED = [
    node("ArrayFeatureExtractor", "names i", "name", domain=ML),
    node("ZipMap", "p", "m", domain=ML, classlabels_strings=NAMES),
    node("Identity", "m", "maps"),
]
OTHER = node("ZipMap", "r", "others", domain=ML, classlabels_int64s=[*range(5)])
COLUMNS = [value(f"k{i}", ["N"]) for i in range(3)]
TAKEN = {
    "maps": proto([*LABEL, ZIP], [value("i", ["N"], I64), maps(I64)]),
    "maps of names": proto([*LABEL, *NAMED], [value("name", [1, None], TEXT), maps(TEXT)]),
    "maps alone": proto([ZIP], [maps(I64)]),
    "an older opset": proto([*LABEL, ZIP], [value("i", ["N"], I64), maps(I64)], opset=13),
    "the label first": proto(LABEL, [value("i", ["N"], I64), SCORES]),
    "names last": proto([*LABEL, NAMED[0]], [SCORES, value("name", [1, None], TEXT)]),
    "no shape declared": proto(LABEL, [value("i", None, I64), value("p", None)]),
    "a sequence": proto(
        [node("SequenceConstruct", "h r", "all")],
        [SCORES, helper.make_value_info("all", helper.make_sequence_type_proto(SCORES.type))],
    ),
    "columns": proto([*LABEL, *columns(sliced=True)], [value("i", ["N"], I64), *COLUMNS]),
    "columns of ai.onnx.ml": proto([*LABEL, *columns(sliced=False)], [value("i", ["N"], I64), *COLUMNS]),
}
OPEN = {
    "features": proto([], [SCORES, value("r", ["N", 5])]),
    "two heads of maps": proto([ZIP, OTHER], [maps(I64), maps(I64, "others")]),
    "some columns": proto(columns(sliced=True), COLUMNS[:2]),
    "labels alone": proto([*LABEL, NAMED[0]], [value("i", ["N"], I64), value("name", [1, None], TEXT)]),
}


def classifier(made: onnx.ModelProto, name: str | None = None) -> Classifier:
    return Classifier(load_bytes(made.SerializeToString()), provider=Provider("CPUExecutionProvider"), output_name=name)


PLAIN = classifier(proto([], [SCORES]))


@pytest.mark.parametrize("name", TAKEN)
def test_taken_without_options(name: str) -> None:
    found, y = classifier(TAKEN[name]), PLAIN.predict(X)
    assert (found.output_name, found.declared_classes) == ("p", 3)
    np.testing.assert_array_equal(found.scores(X), PLAIN.scores(X))
    np.testing.assert_array_equal(found.logits(X), PLAIN.logits(X))
    np.testing.assert_array_equal(found.gradient(X, y), PLAIN.gradient(X, y))
    assert [each.works for each in abilities(found.model)] == [True, True, True]
    assert differentiate(TAKEN[name]).stripped == "Softmax"


def test_named_as_the_output_or_as_the_tensor() -> None:
    for name in ("maps", "p"):
        assert classifier(TAKEN["maps"], name).output_name == "p"
    assert classifier(TAKEN["columns"], "p").output_name == "p"
    assert classifier(TAKEN["maps"], "i").output_name == "i"
    assert class_count(classifier(TAKEN["maps"]).model, "maps") == 3
    with pytest.raises(ModelError, match=r"has no output 'map'; it has i, maps; did you mean 'maps'"):
        _ = classifier(TAKEN["maps"], "map").output_name


def test_names_of_the_classes() -> None:
    assert classifier(TAKEN["maps of names"]).class_names == tuple(NAMES)


COUNT = [node("ArgMax", "r", "i", axis=1, keepdims=0), node("Add", "i i", "count")]
DECISIONS = {
    "a label beside scores": (TAKEN["the label first"], "i", r"the scores are in 'p': name that with --output-name"),
    "a name beside maps": (TAKEN["maps of names"], "name", r"the scores are in 'p': name that with --output-name"),
    "a count alone": (
        proto(COUNT, [value("count", ["N"], I64)]),
        "count",
        r"in tensor 'r', make it an output: onnx\.ut",
    ),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_decisions(run: Run, folder: Path, name: str) -> None:
    """Neither gradients nor scores: refused by name, with the tensor that has scores, by inspect and by square."""
    made, output, said = DECISIONS[name]
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    usual = ("attack", "m.onnx", "--eps", "0.1", "--data", "clean.npz", "-o", "a.npz", "--output-name", output)
    for attack in ("fgsm", "square"):
        found = run(*usual, "--attack", attack)
        assert found.code == 2
        assert re.search(said, found.err), found.err
    if name == "a count alone":
        assert "attack: no, output 'count' of m.onnx gives whole numbers" in run("inspect", "m.onnx").out


@pytest.mark.parametrize("name", OPEN)
def test_left_open(name: str) -> None:
    with pytest.raises(ModelError, match="name one with output_name"):
        _ = classifier(OPEN[name]).output_name


LEARNING = ("--data", "clean.npz", "--eps", "0.1", "--budget", "50%", "--epochs", "1", "--force", "-o", "l.json")


@pytest.mark.parametrize("name", ["maps of names", "columns", "the label first"])
def test_the_whole_job(run: Run, folder: Path, name: str) -> None:
    (folder / "m.onnx").write_bytes(TAKEN[name].SerializeToString())
    said = "output 'p' is taken for the class scores" if name == "the label first" else "tensor 'p', in front of"
    inspected = run("inspect", "m.onnx", "--json")
    assert '"scores": "p"' in inspected.out
    for verb in (
        ("attack", "m.onnx", "--attack", "pgd", "--eps", "0.1", "--data", "clean.npz", "-o", "a.npz"),
        ("analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "a.npz"),
        ("learn", "m.onnx", *LEARNING),
    ):
        found = run(*verb)
        assert found.code == 0, found.err
        assert said in found.err
    assert run("apply", "m.onnx", "--analysis", "l.json", "-o", "h.onnx").code == 0
    verified = run("verify", "h.onnx", "--source", "m.onnx", "--json")
    assert verified.code == 0, verified.out
    assert "largest difference of 'p'" in verified.out
    assert "next: cloakonnx harden m.onnx" in run("inspect", "m.onnx").out
    outputs = [each.name for each in onnx.load(folder / "h.onnx").graph.output]
    assert outputs == [each.name for each in TAKEN[name].graph.output]
    usual = ("--data", "clean.npz", "--eps", "0.1", "--attack", "fgsm", "--no-sanity")
    evaluated = run("evaluate", "h.onnx", "--baseline", "m.onnx", *usual)
    assert evaluated.code == 0, evaluated.err


def test_the_next_command_of_a_model_without_masks_works(run: Run, folder: Path) -> None:
    scores = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["i", "p"],
        domain=ML,
        coefficients=[0.1 * each for each in range(12)],
        intercepts=[0.0, 0.1, 0.2],
        classlabels_ints=[0, 1, 2],
        multi_class=1,
    )
    graph = helper.make_graph([scores, ZIP], "g", [value("x", ["N", 4])], [value("i", ["N"], I64), maps(I64)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    (folder / "m.onnx").write_bytes(helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString())
    line = run("inspect", "m.onnx").out.splitlines()[-1]
    words = line.removeprefix("next: cloakonnx ").replace("test.npz", "clean.npz").split()
    assert words[0] == "attack"
    assert run(*words).code == 0
