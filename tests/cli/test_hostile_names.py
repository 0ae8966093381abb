"""Names that carry what a terminal, a log, Markdown, HTML or a runner takes for commands: none comes out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from .conftest import Result, Run

NAMES = {
    "escape": "a\x1b[31;1mRED\x1b[0m\x1b]0;title\x07",
    "carriage return": "a\rok: the model is its source and the mask   ",
    "command": "a\n::error file=x.py,line=1::forged\n::add-mask::a",
    "command first": "::error::forged",
    "command folded": "a" * 30 + "::error::b" * 16,
    "old command": "a##[error]forged ##vso[task.setvariable]b",
    "html": "a<script>alert(1)</script><img src=x onerror=alert(1)>",
    "markdown": "a|b](http://example.invalid) **x** `y` <details> ~~z~~",
    "rich": "a[bold red]b[/] :warning: [link=http://example.invalid]c[/link]",
    "bidirectional": "a\u202egnirts\u202c\u2066b\u2069\u200e\u200f",
    "c1": "a\x9b31mX\x85b\x7f",
    "separators": "a\u2028b\u2029c",
    "long": "a" * 5000,
    "long with blanks": "ab " * 4000,
    "no characters": "a\ufffe\U000e0001b",
}
DATA = ("--data", "clean.npz")
FGSM = ("--attack", "fgsm", "--eps", "0.05")


def model(name: str, place: str, op: str = "Relu") -> bytes:
    """Return a small classifier of (n, 4) into 3 classes with a name at one place: tap, input, output, node, domain."""
    at = {each: (name if each == place else each) for each in ("tap", "input", "output", "node", "op", "domain")}
    rng = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(rng.normal(size=(4, 6)).astype(np.float32), "w1"),
        numpy_helper.from_array(rng.normal(size=(6, 3)).astype(np.float32), "w2"),
    ]
    domain = name if place == "domain" else ""
    nodes = [
        helper.make_node("MatMul", [at["input"], "w1"], ["hidden"]),
        helper.make_node(name if place == "op" else op, ["hidden"], [at["tap"]], name=at["node"], domain=domain),
        helper.make_node("MatMul", [at["tap"], "w2"], [at["output"]]),
    ]
    ins = [helper.make_tensor_value_info(at["input"], TensorProto.FLOAT, ["n", 4])]
    outs = [helper.make_tensor_value_info(at["output"], TensorProto.FLOAT, ["n", 3])]
    sets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    made = helper.make_model(helper.make_graph(nodes, "g", ins, outs, weights), opset_imports=sets, ir_version=8)
    content: bytes = made.SerializeToString()
    return content


def assert_harmless(text: str) -> None:
    """Check that a text for people has lines of its own only, and no character that can't be seen."""
    odd = {each for each in text if not each.isprintable() and each != "\n"}
    assert not odd, (odd, text)
    for line in text.split("\n"):
        assert not line.lstrip().startswith("::"), text
    assert "##[" not in text
    assert "##vso[" not in text
    assert max(map(len, text.split()), default=0) <= 220, text
    assert max(map(len, text.split("\n"))) <= 5000


def assert_harmless_markdown(text: str) -> None:
    """Check that names bring no markup into Markdown."""
    assert_harmless(text)
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", text)  # what is left where escaped characters are no markup
    for markup in ("<script", "<img", "<details", "](", "http://", "~~", "**x**", "`y`"):
        assert markup not in bare, text


def printed(found: Result, *codes: int) -> None:
    """Check what a verb printed, and its exit code."""
    assert found.code in (codes or (0,)), found.err
    assert_harmless(found.out)
    assert_harmless(found.err)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("place", ["tap", "input", "output"])
def test_every_verb(run: Run, folder: Path, name: str, place: str) -> None:
    (folder / "m.onnx").write_bytes(model(name, place))
    printed(run("inspect", "m.onnx"))
    printed(run("attack", "m.onnx", *DATA, *FGSM, "-o", "a.npz"))
    printed(run("analyze", "m.onnx", *DATA, "--adversarial", "a.npz"))
    if place != "tap":  # the others say the same without the name
        found = run("inspect", "m.onnx", "--json")
        assert found.out.isascii()
        assert "##[" not in found.out
        assert name in json.loads(found.out)[f"{place}s"], "JSON keeps names as they are"
        printed(run("attack", "m.onnx", *DATA, *FGSM, "--input", "x", "-o", "b.npz"), 2)
        printed(run("attack", "m.onnx", *DATA, *FGSM, "--output-name", "x", "-o", "b.npz"), 2)
        return
    printed(run("analyze", "m.onnx", *DATA, *FGSM, "--tap", "tapp", "--force"), 2)
    printed(run("apply", "m.onnx", "--remove", "1", "--dry-run"))
    printed(run("apply", "m.onnx", "--remove", "1", "--fold", "-o", "folded.onnx"))
    printed(run("inspect", "folded.onnx"))
    printed(run("apply", "m.onnx", "--remove", "1", "--attestation", "a.json"))
    printed(run("inspect", "m.hardened.onnx"))
    printed(run("apply", "m.hardened.onnx", "--analysis", "m.cloak.json", "-o", "x.onnx"), 2)
    printed(run("verify", "m.hardened.onnx", "--source", "m.onnx", "--attestation", "a.json"), 0, 2)
    printed(run("verify", "m.hardened.onnx", "--source", "m.onnx"))
    printed(run("verify", "m.hardened.onnx", "--attestation", "a.json"))
    printed(run("verify", "m.hardened.onnx", "folded.onnx", "m.onnx"), 0, 1, 2)
    printed(run("strip", "m.hardened.onnx", "-o", "s.onnx"))
    sweep = ("--adversarial", "a.npz", "--remove", "0..2", "--attack", "fgsm", "-o", "s.json")
    printed(run("sweep", "m.onnx", *DATA, *sweep))
    quick = ("--eps", "0.05", "--attack", "fgsm", "--no-sanity")
    printed(run("evaluate", "m.hardened.onnx", *DATA, *quick, "-o", "e.json", "--require", "clean>=1%"), 0, 1)
    marked = run("evaluate", "m.hardened.onnx", *DATA, *quick, "--markdown")
    printed(marked)
    assert_harmless_markdown(marked.out)
    printed(run("gate", "e.json", "--require", "clean>=1%"), 0, 1)
    printed(run("report", "e.json", "--analysis", "m.cloak.json", "--model", "m.hardened.onnx", "-o", "r.html"))
    few = ("--eps", "0.05", "--budget", "90%", "--epochs", "1", "--granularity", "feature")
    printed(run("learn", "m.onnx", *DATA, *few, "-o", "l.json", "--force"))
    printed(run("report", "e.json", "--analysis", "l.json", "-o", "l.html"))
    for made in ("r.html", "l.html"):
        page = (folder / made).read_text(encoding="utf-8")
        assert not {each for each in page if not each.isprintable() and each not in "\n\t"}
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    weights = onnx.load(folder / "m.hardened.onnx")
    weights.graph.initializer[0].raw_data = bytes(96)
    (folder / "changed.onnx").write_bytes(weights.SerializeToString())
    printed(run("verify", "changed.onnx", "--source", "m.onnx"), 1)
    printed(run("verify", "changed.onnx", "--attestation", "a.json"), 1)


@pytest.mark.parametrize("name", ["command", "markdown", "bidirectional", "long"])
def test_harden_writes_pages_without_them(run: Run, folder: Path, name: str) -> None:
    (folder / "m.onnx").write_bytes(model(NAMES[name], "tap"))
    rng = np.random.default_rng(0)
    np.savez(folder / "clean.npz", x=rng.random((60, 4)).astype(np.float32), y=np.arange(60) % 3)
    task = ("--eps", "0.05", "--method", "score", "--budget", "90%", "--attack", "fgsm", "-o", "h")
    found = run("harden", "m.onnx", *DATA, *task, "--no-latency")
    printed(found, 0, 1)
    assert_harmless_markdown((folder / "h" / "summary.md").read_text(encoding="utf-8"))
    page = (folder / "h" / "report.html").read_text(encoding="utf-8")
    assert not {each for each in page if not each.isprintable() and each not in "\n\t"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_errors(run: Run, folder: Path, name: str) -> None:
    for place, op in (("op", "Relu"), ("domain", "Relu"), ("node", "Shrink"), ("tap", "Shrink")):
        (folder / "m.onnx").write_bytes(model(name, place, op))
        printed(run("inspect", "m.onnx"))
        printed(run("attack", "m.onnx", *DATA, *FGSM, "-o", f"{place}.npz"), 0, 2)
    (folder / "m.onnx").write_bytes(model("tap", "tap"))
    printed(run("inspect", name), 2)
    printed(run("verify", name, name), 2)
    printed(run("analyze", "m.onnx", *DATA, *FGSM, "--tap", name), 2)
    printed(run("attack", "m.onnx", *DATA, "--attack", name, "--eps", "0.1", "-o", "x.npz"), 2)
    printed(run(name), 2)
    np.savez(folder / "names.npz", **{name[:200]: np.zeros(3)})
    printed(run("attack", "m.onnx", "--data", "names.npz", *FGSM, "-o", "x.npz"), 2)
    text = "".join(each if each.isprintable() and each not in '"\\' else f"\\U{ord(each):08x}" for each in name)
    (folder / "cloakonnx.toml").write_text(f'"{text}" = 1\n', encoding="utf-8")
    printed(run("inspect", "m.onnx"), 2)
    (folder / "cloakonnx.toml").write_text(f'provider = "{text}"\n', encoding="utf-8")
    printed(run("config", "--show"))
    printed(run("attack", "m.onnx", *DATA, *FGSM, "-o", "y.npz"), 2)


FILES = [name for name in NAMES if name not in {"long", "long with blanks", "html"}]


@pytest.mark.skipif(os.name != "posix", reason="other systems allow no such file names")
@pytest.mark.parametrize("name", [*(NAMES[name].replace("/", "_") for name in FILES), "a\udcff"], ids=[*FILES, "bytes"])
def test_names_of_files(run: Run, folder: Path, name: str) -> None:
    source = f"{name}.onnx"
    (folder / source).write_bytes(model("tap", "tap"))
    (folder / "clean.npz").rename(folder / f"{name}.npz")
    data = ("--data", f"{name}.npz")
    printed(run("inspect", source))
    printed(run("attack", source, *data, *FGSM, "-o", f"{name}.a.npz"))
    printed(run("attack", source, *data, *FGSM, "-o", f"{name}.a.npz"), 2)
    printed(run("analyze", source, *data, *FGSM, "-o", f"{name}.json"))
    printed(run("apply", source, "--analysis", f"{name}.json", "--remove", "1", "-o", f"{name}.h.onnx"))
    printed(run("verify", f"{name}.h.onnx", "--source", source))
    quick = ("--eps", "0.05", "--attack", "fgsm", "--no-sanity")
    marked = run("evaluate", f"{name}.h.onnx", *data, *quick, "-o", "e.json", "--markdown")
    printed(marked)
    assert_harmless_markdown(marked.out)
    printed(run("evaluate", f"{name}.h.onnx", *data, *quick))
    printed(run("report", "e.json", "-o", f"{name}.html"))
    page = (folder / f"{name}.html").read_text(encoding="utf-8")
    assert not {each for each in page if not each.isprintable() and each not in "\n\t"}


def test_a_name_is_shown_as_it_can_be_typed(run: Run, folder: Path) -> None:
    """Ordinary names stay as they are, in every script; what is no markup for people is none in a table either."""
    for name in ("/layer1/relu_1", "aten::relu", "特徴/活性化", "ζ ~ x", "x[0] :cat: [red]y[/red]"):
        (folder / "m.onnx").write_bytes(model(name, "tap"))
        found = run("inspect", "m.onnx")
        assert name in found.out


def test_a_reader_that_leaves_is_no_failed_check(folder: Path) -> None:
    """The exit code stays the verb's own: 0, and 1 only where a check failed."""
    np.save(folder / "mask.npy", np.array([0, 1, 1, 1, 1, 1], np.float32))
    python = (sys.executable, "-m", "cloakonnx")
    mask = ("--mask", "mask.npy", "--tap", "features")
    assert subprocess.run([*python, "apply", "m.onnx", *mask], capture_output=True, check=False).returncode == 0
    changed = onnx.load(folder / "m.hardened.onnx")
    changed.graph.initializer[0].doc_string = "changed"
    (folder / "c.onnx").write_bytes(changed.SerializeToString())
    for arguments, code in (
        (("inspect", "m.onnx"), 0),
        (("inspect", "m.onnx", "--json"), 0),
        (("--help",), 0),
        (("verify", "m.hardened.onnx", "--source", "m.onnx"), 0),
        (("verify", "c.onnx", "--source", "m.onnx"), 1),
        (("inspect", "none.onnx"), 2),
    ):
        for both in (False, True):
            reading, writing = os.pipe()
            os.close(reading)
            ended = subprocess.run(
                [*python, *arguments], stdout=writing, stderr=writing if both else subprocess.PIPE, check=False
            )
            os.close(writing)
            assert ended.returncode == code, (arguments, both, ended)
            assert b"Traceback" not in (ended.stderr or b"")
            assert b"BrokenPipe" not in (ended.stderr or b"")
