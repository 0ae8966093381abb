"""Small files that ask for much memory, time or depth: one line and exit code 2, in a process with limits."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ADDRESSES = 6_000_000_000
SECONDS = 60
"""Far above what a refusal takes, for a busy machine; without the limits these inputs take hours."""

node, info = helper.make_node, helper.make_tensor_value_info


def model(nodes: Sequence[onnx.NodeProto], weights: Sequence[TensorProto] = (), **more: object) -> onnx.ModelProto:
    """A classifier of 3 classes from (n, 4): ``nodes`` make a scalar c, which is added to the features."""
    w = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3) / 12, "w")
    rest = [
        node("ReduceMean", ["c"], ["m"], keepdims=0),
        node("Add", ["x", "m"], ["t"]),
        node("MatMul", ["t", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        [*nodes, *rest], "g", [info("x", FLOAT, ["n", 4])], [info("y", FLOAT, ["n", 3])], [w, *weights],
        value_info=list(more.pop("infos", ())),
    )  # fmt: skip
    domains = [helper.make_opsetid("", int(more.pop("opset", 17))), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8, functions=list(more.pop("functions", ())))


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def number(name: str, value: int) -> TensorProto:
    return numpy_helper.from_array(np.array(value, np.int64), name)


ONE = numpy_helper.from_array(np.ones(1, np.float32), "o")
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


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))


def called(*arguments: object, seconds: float = SECONDS) -> tuple[int, str, str]:
    """Run the command line in a process with limits."""
    done = subprocess.run(
        [sys.executable, "-m", "cloakonnx", *map(str, arguments)], capture_output=True, text=True, timeout=seconds,
        preexec_fn=limited, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def assert_one_line(found: tuple[int, str, str], said: str) -> None:
    code, out, err = found
    assert (code, out) == (2, ""), err
    assert err.startswith("cloakonnx: ")
    assert err.count("\n") == 1, err
    assert said in err


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.random((4, 4)).astype(np.float32), y=np.arange(4) % 3)
    return tmp_path / "x.npz"


def attack(path: Path, data: Path, how: str = "fgsm") -> tuple[int, str, str]:
    options = ("--attack", how, "--eps", "0.1", "-o", path.parent / "a.npz", "--force")
    return called("attack", path, "--data", data, *options)


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


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def archive(path: Path, **members: bytes | list[bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for name, content in members.items():
            with made.open(f"{name}.npy", "w", force_zip64=True) as stream:
                for part in content if isinstance(content, list) else [content]:
                    stream.write(part)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


X, Y = npy(np.zeros((4, 4), np.float32)), npy(np.arange(4) % 3)
MANY = 300
"""Parts of 1 MiB: enough to be above the limit."""


def described(shape: str) -> bytes:
    return npy_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n")


DATA = {
    "unpacks to far more": (
        {"x": [described(f"({MANY << 20}, 1)"), *[bytes(1 << 20)] * MANY], "y": Y}, "unpacks to 314,572,"),
    "header": (
        {"x": [b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30), *[b" " * (1 << 20)] * 2], "y": Y}, "1,073,741,824"),
    "shape": ({"x": described(f"({2**62}, 4)"), "y": Y}, "its shape is said to be"),
    "negative shape": ({"x": described("(-2, -2)") + b"\0" * 4, "y": Y}, "its shape is said to be (-2, -2)"),
    "version": ({"x": b"\x93NUMPY\x09\x09" + X[8:], "y": Y}, "its format version is 9.9"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_arrays_that_lie_are_one_line(name: str, tmp_path: Path) -> None:
    members, said = DATA[name]
    archive(tmp_path / "x.npz", **members)
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Identity", ["o"], ["c"])], [ONE]).SerializeToString())
    assert_one_line(attack(path, tmp_path / "x.npz"), said)


def test_deep_settings_are_somebody_elses(tmp_path: Path) -> None:
    archive(tmp_path / "x.npz", x=X, y=Y, settings=npy(np.array("[" * 200_000)))
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Identity", ["o"], ["c"])], [ONE]).SerializeToString())
    assert attack(path, tmp_path / "x.npz")[0] == 0


def test_pipes_are_no_inputs(tmp_path: Path, samples: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Identity", ["o"], ["c"])], [ONE]).SerializeToString())
    for name in ("p.npz", "p.onnx", "p.json", "p.toml"):
        os.mkfifo(tmp_path / name)
    assert_one_line(attack(path, tmp_path / "p.npz"), "it is a pipe, not a file")
    assert_one_line(called("inspect", tmp_path / "p.onnx"), "it is a pipe, not a file")
    assert_one_line(called("report", tmp_path / "p.json", "-o", tmp_path / "r.html"), "it is a pipe, not a file")
    assert_one_line(called("--config", tmp_path / "p.toml", "inspect", path), "it is a pipe, not a file")


def test_settings_files_have_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("# " + "x" * (1 << 20))
    assert_one_line(called("--config", path, "inspect", "m.onnx"), "over 1,048,576 bytes, which is the limit")


def test_deep_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text("[" * 200_000)
    assert_one_line(called("gate", path, "--require", "robust>=1%"), "is not JSON")
    assert json.loads("[]") == []


def png(width: int, height: int) -> bytes:
    def chunk(tag: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + tag + content + struct.pack(">I", zlib.crc32(tag + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("content", "said"), [(EPS, "it is none of PNG, JPEG"), (png(13_000, 13_000), "13000 x 13000 pixels; the limit is")]
)
def test_pictures_start_nothing_and_have_a_limit(content: bytes, said: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    folder, programs = tmp_path / "d", tmp_path / "bin"
    for label in range(3):
        (folder / str(label)).mkdir(parents=True)
        (folder / str(label) / "a.png").write_bytes(content)
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (programs / "gs").chmod(0o755)
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Identity", ["o"], ["c"])], [ONE]).SerializeToString())
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{programs}:{before}"
    try:
        assert_one_line(attack(path, folder), said)
    finally:
        os.environ["PATH"] = before
    assert not (tmp_path / "started").exists()


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
