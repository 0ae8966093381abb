"""Small models that ask for much memory, time or depth: one line and exit code 2, in a process with limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.hostile import FLOAT, INT64, ONE, SECONDS, assert_one_line, attack, called, info, model, node


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def number(name: str, value: int) -> TensorProto:
    return numpy_helper.from_array(np.array(value, np.int64), name)


STEPS = (number("a", 0), number("b", 500_000_000), number("d", 1))
RANGE = (node("Range", ["a", "b", "d"], ["k"]), node("Cast", ["k"], ["c"], to=FLOAT))


def doubling(depth: int) -> onnx.ModelProto:
    """Each function calls the one before it twice: 2**depth nodes when they are written out."""
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = [helper.make_function("own", "f0", ["a"], ["b"], [node("Relu", ["a"], ["b"])], domains)]
    for k in range(1, depth + 1):
        calls = [node(f"f{k - 1}", [i], [o], domain="own") for i, o in (("a", "h"), ("h", "b"))]
        made.append(helper.make_function("own", f"f{k}", ["a"], ["b"], calls, domains))
    return model([node(f"f{depth}", ["o"], ["c"], domain="own")], [ONE], functions=made)


def circle(length: int) -> onnx.ModelProto:
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    calls = [node(f"f{(k + 1) % length}", ["a"], ["b"], domain="own") for k in range(length)]
    made = [helper.make_function("own", f"f{k}", ["a"], ["b"], [call], domains) for k, call in enumerate(calls)]
    return model([node("f0", ["o"], ["c"], domain="own")], [ONE], functions=made)


def inside(nodes: Sequence[onnx.NodeProto], weights: Sequence[TensorProto]) -> onnx.ModelProto:
    """The same nodes in a local function, which gets the constants as its inputs."""
    domains = [helper.make_opsetid("", 17)]
    names = [t.name for t in weights]
    made = helper.make_function("own", "f", names, ["c"], list(nodes), domains)
    return model([node("f", names, ["c"], domain="own")], weights, functions=[made])


def in_branch(nodes: Sequence[onnx.NodeProto], weights: Sequence[TensorProto]) -> onnx.ModelProto:
    """The same nodes in a branch of If, which reads the constants from outside."""
    branch = helper.make_graph(list(nodes), "b", [], [info("c", FLOAT, None)])
    other = helper.make_graph([node("Identity", ["o"], ["e"])], "e", [], [info("e", FLOAT, None)])
    flag = numpy_helper.from_array(np.array(True), "flag")
    return model([node("If", ["flag"], ["c"], then_branch=branch, else_branch=other)], [*weights, ONE, flag])


def loop(trips: int, *, doubles: bool = False, stacks: bool = False) -> onnx.ModelProto:
    """A Loop over constants that goes on to its last turn; its value doubles in length, or is stacked."""
    step = node("Concat", ["v", "v"], ["u"], axis=0) if doubles else node("Add", ["v", "v"], ["u"])
    shape = None if doubles else [1]
    outputs = [info("go_on", TensorProto.BOOL, []), info("u", FLOAT, shape)]
    nodes = [node("Identity", ["go"], ["go_on"]), step]
    if stacks:
        nodes.append(node("Expand", ["u", "eight"], ["each"]))
        outputs.append(info("each", FLOAT, [8]))
    inputs = [info("i", INT64, []), info("go", TensorProto.BOOL, []), info("v", FLOAT, shape)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    true = numpy_helper.from_array(np.array(True), "true")
    names = ["last", "c"] if stacks else ["c"]
    weights = [number("trips", trips), true, ONE, ints("eight", 8)]
    return model([node("Loop", ["trips", "true", "o"], names, body=body)], weights)


def declares(*dims: int) -> onnx.ModelProto:
    return model([], [TensorProto(name="c", data_type=FLOAT, dims=dims, raw_data=b"\0" * 8)])


def shaped_by_input() -> onnx.ModelProto:
    """The input's fixed width times a constant is the length of a Range: nothing of it is an initializer alone."""
    nodes = [
        node("Shape", ["x"], ["s"], start=1), node("Mul", ["s", "many"], ["l"]), node("Squeeze", ["l"], ["b"]),
        node("Range", ["a", "b", "d"], ["k"]), node("Cast", ["k"], ["c"], to=FLOAT),
    ]  # fmt: skip
    return model(nodes, [ints("many", 100_000_000), number("a", 0), number("d", 1)])


def reshaped_by_input() -> onnx.ModelProto:
    """An input of 30 million integers is taken for a shape."""
    inputs = [info("x", FLOAT, [1, 4]), info("s", INT64, [30_000_000])]
    graph = helper.make_graph([node("Reshape", ["x", "s"], ["y"])], "g", inputs, [info("y", FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bodies(depth: int) -> onnx.ModelProto:
    """If in both branches of If: 2**depth bodies that all read the same."""
    inner = helper.make_graph([node("Relu", ["o"], ["r"])], "b", [], [info("r", FLOAT, None)])
    for _ in range(depth):
        chosen = node("If", ["flag"], ["r"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([chosen], "b", [], [info("r", FLOAT, None)])
    flag = numpy_helper.from_array(np.array(True), "flag")
    return model([node("If", ["flag"], ["c"], then_branch=inner, else_branch=inner)], [ONE, flag])


def einsum() -> onnx.ModelProto:
    return model([node("Einsum", ["o"], ["c"], equation="a->" + "a" * 5000)], [ONE])


BOMBS = {
    "range": (lambda: model(RANGE, STEPS), "Range (the node that makes 'k') would make 4,000 MB from constants"),
    "range, declared short": (
        lambda: model(RANGE, STEPS, infos=[info("k", INT64, [1])]), "Range (the node that makes 'k') would make 4,000"),
    "range in a function": (lambda: inside(RANGE, STEPS), "would make 4,000 MB from constants; the limit is 16 MB"),
    "range in a branch": (lambda: in_branch(RANGE, STEPS), "Range (the node that makes 'k') would make 4,000 MB"),
    "range by the input": (shaped_by_input, "Range (the node that makes 'k') would make 3,200 MB"),
    "constant of shape": (
        lambda: model([node("ConstantOfShape", ["s"], ["c"])], [ints("s", 512, 1024, 1024)]), "would make 2,147 MB"),
    "expand": (lambda: model([node("Expand", ["o", "s"], ["c"])], [ONE, ints("s", 1 << 29)]), "would make 2,147 MB"),
    "tile": (lambda: model([node("Tile", ["o", "s"], ["c"])], [ONE, ints("s", 1 << 29)]), "would make 2,147 MB"),
    "tile, overflow": (lambda: model([node("Tile", ["o2", "s"], ["c"])], [
        numpy_helper.from_array(np.ones(4, np.float32), "o2"), ints("s", 1 << 62)]), "would make over a million TB"),
    "pad": (lambda: model([node("Pad", ["o", "s"], ["c"])], [ONE, ints("s", 0, 1 << 29)]), "would make 2,147 MB"),
    "one hot": (lambda: model([node("OneHot", ["i", "n", "v"], ["c"])], [
        ints("i", 1), number("n", 1 << 29), numpy_helper.from_array(np.array([0, 1], np.float32), "v")]), "2,147 MB"),
    "window": (lambda: model([node("HannWindow", ["s"], ["c"])], [number("s", 1 << 29)]), "HannWindow"),
    "random": (lambda: model([node("RandomUniform", [], ["c"], shape=[1 << 29])]), "would make 2,147 MB"),
    "outer product": (lambda: model([node("Mul", ["p", "q"], ["c"])], [
        numpy_helper.from_array(np.ones(s, np.float32), n)
        for s, n in (((9000, 1), "p"), ((1, 9000), "q"))]), "would make 324 MB"),
    "doubled by Concat": (lambda: model([
        node("Concat", ["o", "o"], ["c0"], axis=0),
        *(node("Concat", [f"c{k}", f"c{k}"], [f"c{k + 1}" if k < 39 else "c"], axis=0) for k in range(40)),
    ], [ONE]), "would make 17 MB from constants; the limit is 16 MB"),
    "whole numbers": (lambda: model([
        node("ConstantOfShape", ["s"], ["k0"], value=number("v", 1)),
        *(node("Add", [f"k{k}", "k0"], [f"k{k + 1}"]) for k in range(3)), node("Cast", ["k3"], ["c"], to=FLOAT),
    ], [ints("s", 1_900_000)]), "vectors of 5,700,000 whole numbers; the limit is 4,000,000"),
    "outputs": (lambda: model([
        node("Split", ["o"], [f"s{k}" for k in range(60_000)], axis=0), node("Relu", ["s0"], ["c"]),
    ], [ONE]), "the model has 60,004 nodes, counted by their outputs; the limit is 50,000"),
    "functions": (lambda: doubling(40), "its local functions would be over a million million nodes"),
    "functions, fewer": (lambda: doubling(16), "its local functions would be 196,610 nodes when written out"),
    "function in itself": (lambda: circle(1), "its local function 'f0' calls itself"),
    "functions in a circle": (lambda: circle(3), "calls itself, by way of others"),
    "loop": (lambda: loop(1 << 62), "Loop (the node that makes 'c') would run over a million million times"),
    "loop that stacks": (lambda: loop(1_000_000, stacks=True), "would make 32 MB in 1,000,000 turns"),
    "bodies": (lambda: bodies(11), "the model has 8,190 bodies of If, Loop and Scan; the limit is 4,000"),
    "rank": (reshaped_by_input, "would make a tensor of 30,000,000 dimensions; the limit is 64"),
    "rank by Einsum": (einsum, "5,000 dimensions; the limit is 64"),
    "dims": (lambda: declares(1 << 40, 1 << 30), "should have 4,722,366,482,869,645,213,696 bytes and has 8"),
    "dims, overflow": (lambda: declares(1 << 32, 1 << 32, 1 << 32), "and has 8: the file is damaged"),
    "dims, negative": (lambda: declares(-1, 64), "initializer 'c' has a negative dimension (-1, 64)"),
    "circle": (
        lambda: model([node("Add", ["o", "h"], ["c"]), node("Relu", ["c"], ["h"])], [ONE]), "the graph has a circle"),
    "made twice": (lambda: model([node("Relu", ["o"], ["c"]), node("Neg", ["o"], ["c"])], [ONE]), "two nodes make 'c'"),
}  # fmt: skip


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.random((4, 4)).astype(np.float32), y=np.arange(4) % 3)
    return tmp_path / "x.npz"


@pytest.mark.parametrize("name", BOMBS)
def test_inspect_refuses_in_one_line(name: str, tmp_path: Path) -> None:
    make, said = BOMBS[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    assert path.stat().st_size < 500_000
    assert_one_line(called("inspect", path), said)


@pytest.mark.parametrize("name", ["range, declared short", "functions", "loop", "dims, overflow"])
def test_attack_refuses_in_the_same_line(name: str, tmp_path: Path, samples: Path) -> None:
    make, said = BOMBS[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    assert_one_line(attack(path, samples), said)


def test_a_loop_whose_memory_only_a_run_tells_is_stopped(tmp_path: Path, samples: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(loop(40, doubles=True).SerializeToString())
    assert_one_line(attack(path, samples), "2 GB of memory for one sample")


def test_small_constants_and_loops_stay_as_they_were(tmp_path: Path, samples: Path) -> None:
    for made in (
        model(RANGE, [number("a", 0), number("b", 3), number("d", 1)]),
        inside(RANGE, [number("a", 0), number("b", 3), number("d", 1)]),
        doubling(3),
    ):
        path = tmp_path / "m.onnx"
        path.write_bytes(made.SerializeToString())
        assert called("inspect", path)[0] == 0
        assert attack(path, samples)[0] == 0
    path.write_bytes(loop(5).SerializeToString())
    assert called("inspect", path)[0] == 0
    assert attack(path, samples, "noise")[0] == 0


def test_a_chain_of_thousands_of_nodes_is_attacked(tmp_path: Path, samples: Path) -> None:
    names = ["x", *(f"r{k}" for k in range(2_999)), "t"]
    nodes = [node("Relu", [a], [b]) for a, b in pairwise(names)]
    w = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    inputs, outputs = [info("x", FLOAT, ["n", 4])], [info("y", FLOAT, ["n", 3])]
    graph = helper.make_graph([*nodes, node("MatMul", ["t", "w"], ["y"])], "g", inputs, outputs, [w])
    path = tmp_path / "m.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    began = os.times()
    assert attack(path, samples)[0] == 0
    ended = os.times()
    assert ended.children_user - began.children_user < 20  # of the CPU's time; 4 s on a quiet machine


@pytest.mark.parametrize("nodes", ["Relu", "Transpose"])
def test_long_chains_of_any_rank_are_inspected(nodes: str, tmp_path: Path) -> None:
    """The way back to what made the features is walked once, not for each tap; no table of 20,000 rows is laid out."""
    names = ["x", *(f"r{k}" for k in range(19_999)), "y"]
    more = {"perm": [0, 2, 1]} if nodes == "Transpose" else {}
    made = [node(nodes, [a], [b], **more) for a, b in pairwise(names)]
    graph = helper.make_graph(made, "g", [info("x", FLOAT, ["n", 3, 3])], [info("y", FLOAT, None)])
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    began = os.times()
    code, out, err = called("inspect", path, seconds=600)
    ended = os.times()
    assert code == 0, err
    assert "18,000 more taps: --json lists all of them" in out
    assert ended.children_user - began.children_user < 30  # of the CPU's time; 5 s on a quiet machine


def test_a_regular_expression_on_constants_is_not_searched_early(tmp_path: Path, samples: Path) -> None:
    text = helper.make_tensor("s", TensorProto.STRING, [1], [b"a" * 40 + b"!"])
    nodes = [node("RegexFullMatch", ["s"], ["q"], pattern="(a+)+$"), node("Cast", ["q"], ["c"], to=FLOAT)]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, [text], opset=20).SerializeToString())
    assert attack(path, samples)[0] == 0


def test_data_twice_in_a_tensor_is_named(tmp_path: Path) -> None:
    twice = TensorProto(name="c", data_type=FLOAT, dims=[1], raw_data=b"\0" * 4, float_data=[1.0])
    path = tmp_path / "m.onnx"
    path.write_bytes(model([], [twice]).SerializeToString())
    code, _, err = called("inspect", path)
    assert code == 0
    assert "tensor 'c' holds its data in float_data and raw_data" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_model_that_runs_in_the_child(number: signal.Signals, tmp_path: Path, samples: Path) -> None:
    body = loop(1, doubles=False)
    endless = body.graph.node[0]
    endless.input[0] = ""  # no number of turns: the condition, which stays true, is all that could end it
    path = tmp_path / "m.onnx"
    path.write_bytes(body.SerializeToString())
    options = ("--attack", "fgsm", "--eps", "0.1", "-o", str(tmp_path / "a.npz"))
    command = [sys.executable, "-m", "cloakonnx", "attack", str(path), "--data", str(samples), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        time.sleep(3)
        running.send_signal(number)
        _, err = running.communicate(timeout=SECONDS)
    assert running.returncode in {2, 130}, err
    assert err.strip().count("\n") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_loop_that_the_data_keeps_going(number: signal.Signals, tmp_path: Path, samples: Path) -> None:
    """On zeros, as in the trial, the Loop ends at once; on the samples it never does."""
    nodes = [node("ReduceMax", ["x"], ["top"], keepdims=0), node("Greater", ["top", "zero"], ["more"])]
    step = [node("Identity", ["more"], ["go_on"]), node("Mul", ["v", "v"], ["u"])]
    inputs = [info("i", INT64, []), info("go", TensorProto.BOOL, []), info("v", FLOAT, [1])]
    body = helper.make_graph(step, "body", inputs, [info("go_on", TensorProto.BOOL, []), info("u", FLOAT, [1])])
    made = model([*nodes, node("Loop", ["", "more", "o"], ["c"], body=body)], [ONE, numpy_helper.from_array(
        np.float32(0), "zero")])  # fmt: skip
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    options = ("--attack", "noise", "--eps", "0.1", "-o", str(tmp_path / "a.npz"))
    command = [sys.executable, "-m", "cloakonnx", "attack", str(path), "--data", str(samples), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        time.sleep(6)
        assert running.poll() is None, running.communicate()
        running.send_signal(number)
        _, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 130, err
