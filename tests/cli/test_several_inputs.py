"""A model of two inputs: one line says what is possible before any data is read, and what it says to do works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from .conftest import Run, files

UNNAMED = "two.onnx has 2 inputs (image, meta); name one with --input, which takes the samples; others that the"
UNFED = (
    "the model needs 'meta' beside 'image', and only one input takes samples; make 'meta' a constant in the file first "
    "(docs/troubleshooting.md shows how)"
)
VERBS = {
    "evaluate": "evaluate {} --attack fgsm",
    "attack": "attack {} --attack fgsm -o o.npz",
    "analyze": "analyze {} --attack fgsm -o o.json",
    "learn": "learn {} --budget 50% --epochs 1 --force -o l.json",
    "harden": "harden {} --preset quick --method score --attack fgsm --budget 90% --no-report -o hardened",
}
DOCS = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def two_inputs(read: str = "both") -> onnx.ModelProto:
    """Return a classifier of an image and metadata; ``read`` is what its layers read, "image" leaves meta unused."""
    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Concat", ["image", "meta"], ["both"], axis=1),
        helper.make_node("Gemm", [read, "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["features"]),
        helper.make_node("Gemm", ["features", "w2", "b2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
            for name, size in (("image", 4), ("meta", 2))
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [weights("w1", 6 if read == "both" else 4, 6), weights("b1", 6), weights("w2", 6, 3), weights("b2", 3)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


@pytest.fixture
def two(folder: Path) -> Path:
    onnx.save(two_inputs(), folder / "two.onnx")
    onnx.save(two_inputs("image"), folder / "unused.onnx")
    x, y = np.random.default_rng(0).random((60, 4)).astype(np.float32), np.arange(60) % 3
    meta = np.full((60, 2), 0.5, np.float32)
    np.savez(folder / "x.npz", x=x, y=y)
    np.savez(folder / "named.npz", image=x, meta=meta, y=y)
    rows = [",".join(map(str, (*image, *more, label))) for image, more, label in zip(x, meta, y, strict=True)]
    (folder / "table.csv").write_text("\n".join(["a,b,c,d,e,f,label", *rows]))
    return folder


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("data", ["x.npz", "named.npz", "table.csv"])
def test_one_line(run: Run, two: Path, verb: str, data: str) -> None:
    before = files(two)
    line = [*VERBS[verb].format("two.onnx").split(), "--eps", "0.1", "--data", data]
    for more, said in (
        ((), UNNAMED),
        (("--input", "image"), UNFED),
        (("--input", "nope"), "has no input 'nope'; it has"),
    ):
        result = run(*line, *more)
        assert (result.code, result.out) == (2, "")
        assert result.err.count("\n") == 1
        assert said in result.err
    assert files(two) == before


def test_inspect(run: Run, two: Path) -> None:
    said = "no, it has several inputs (image, meta), and one takes samples: make the others constants in the file"
    assert run("inspect", "two.onnx").out.count(said) == 3
    said = (
        "no, it has several inputs (image, meta), and the scores need one of them: the verbs take it with --input image"
    )
    assert said in run("inspect", "unused.onnx").out


def test_an_input_that_scores_do_not_need(run: Run, two: Path) -> None:
    line = VERBS["attack"].format("unused.onnx").split()
    assert run(*line, "--eps", "0.1", "--data", "x.npz", "--input", "image").code == 0


@pytest.fixture
def constant(two: Path) -> Path:
    """Return the folder, with the model as the documentation's script makes it."""
    found = next(block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S) if "Expand" in block)
    changed = (
        found.replace("inputs.onnx", "two.onnx")
        .replace('"second"', '"meta"')
        .replace("np.zeros((1, 1, 8, 8), np.float32)", "np.full((1, 2), 0.5, np.float32)")
    )
    assert changed != found
    exec(compile(changed, "block", "exec"), {})
    return two


@pytest.mark.parametrize("verb", VERBS)
def test_the_advice_works(run: Run, constant: Path, verb: str) -> None:
    result = run(*VERBS[verb].format("constant.onnx").split(), "--eps", "0.1", "--data", "x.npz")
    assert result.code in ({0, 1} if verb == "harden" else {0}), result.err
    assert result.code == 0 or "no " in result.err.splitlines()[-1]  # masks that gain nothing are an answer


def test_the_scores_are_those_of_both_inputs(constant: Path) -> None:
    import onnxruntime as ort

    x = np.load("x.npz")["x"]
    scores = [
        ort.InferenceSession(name, providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for name, feed in (
            ("two.onnx", {"image": x, "meta": np.full((60, 2), 0.5, np.float32)}),
            ("constant.onnx", {"image": x}),
        )
    ]
    np.testing.assert_array_equal(*scores)
