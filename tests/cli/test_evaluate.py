"""``cloakonnx evaluate`` from the command line: the ways to print, and one line for bad input."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from cloakonnx.evaluation.evaluation import STATEMENT, Evaluation
from cloakonnx.evaluation.samples import load_samples
from tests.attacks.helpers import convolution, digits_arrays, flat
from tests.fixtures import core, false_defences

from .conftest import Run, files
from .test_bad_input import assert_refused

ARGUMENTS = ("evaluate", "m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--attack", "pgd", "--max-iter", "2")


@pytest.fixture
def masked(run: Run, folder: Path) -> Path:
    np.save(folder / "mask.npy", np.array([0, 1, 1, 1, 1, 1], np.float32))
    assert run("apply", "m.onnx", "--mask", "mask.npy", "--tap", "features").code == 0
    return folder


def test_a_table(run: Run, masked: Path) -> None:
    code, out, err = run(*ARGUMENTS)
    assert (code, err) == (0, "")
    assert STATEMENT in out
    assert "1 of 6 features of features removed" in out
    assert "n = 12" in out
    assert "worst case, adaptive" in out


def test_one_model(run: Run, folder: Path) -> None:
    """A model without masks and without a baseline is attacked once, and judged by gates of its own."""
    arguments = ("evaluate", "m.onnx", *ARGUMENTS[2:])
    code, out, err = run(*arguments, "--require", "clean>=0%", "-o", "e.json")
    assert code == 0, err
    assert "One model, no baseline." in out
    assert "baseline" not in out.replace("no baseline", "")
    gate = ("gate", "e.json", "--require", "clean-drop<=1%")
    assert_refused(run, folder, gate, "clean-drop<=1% compares with a baseline")
    assert run("report", "e.json", "-o", "e.html").code == 0
    arguments = (*arguments, "--require", "robust-gain>=1%")
    assert_refused(run, folder, arguments, "robust-gain>=1% compares with a baseline")


def test_markdown_and_a_file(run: Run, masked: Path) -> None:
    code, out, err = run(*ARGUMENTS, "--markdown", "-o", "result.json")
    assert (code, err) == (0, "wrote result.json\n")
    assert out.startswith("### m.hardened.onnx under pgd (linf)\n")
    assert out.endswith(f"> {STATEMENT}\n")
    found = Evaluation.from_json((masked / "result.json").read_text(encoding="utf-8"))
    assert found.data.name == "clean.npz"
    code, _, err = run(*ARGUMENTS, "-o", "result.json")
    assert code == 2
    assert "--force" in err


def test_without_sanity_checks(run: Run, masked: Path) -> None:
    code, out, err = run(*ARGUMENTS, "--no-sanity", "--markdown", "-o", "result.json")
    assert (code, err) == (0, "wrote result.json\n")
    assert "Sanity: not checked." in out
    assert json.loads((masked / "result.json").read_text(encoding="utf-8"))["sanity"] is None


def test_a_flag_that_fires_is_a_warning(run: Run, folder: Path) -> None:
    (folder / "q.onnx").write_bytes(false_defences.quantised().SerializeToString())
    x, y = digits_arrays()
    np.savez(folder / "digits.npz", x=x[:12], y=y[:12])
    data = ("--baseline", "q.onnx", "--data", "digits.npz")
    code, out, err = run("evaluate", "q.onnx", *data, "--eps", "2/16", "--attack", "square", "--max-iter", "5")
    assert code == 0
    warned = [line for line in err.splitlines() if line.startswith("cloakonnx: warning: sanity flag ")]
    assert any(re.search(r"zero-gradients: (\d+) of \1 clean samples", line) for line in warned)
    assert any("non-differentiable: Round (node 'quantise')" in line for line in warned)
    assert "FLAG zero-gradients" in out
    assert "straight-through was used" in out


def test_samples_beside_the_result(run: Run, masked: Path) -> None:
    before = set(files(masked))
    code, _, err = run(*ARGUMENTS, "-o", "result.json", "--samples", "samples.npz")
    assert (code, err) == (0, "wrote result.json\nwrote samples.npz\n")
    assert set(files(masked)) == {*before, "result.json", "samples.npz"}
    kept = load_samples(masked / "samples.npz")
    assert kept.evaluation == hashlib.sha256((masked / "result.json").read_bytes()).hexdigest()
    code, _, err = run(*ARGUMENTS, "--samples", "samples.npz")
    assert code == 2
    assert "--force" in err
    assert run("report", "result.json", "--samples", "samples.npz", "-o", "report.html").code == 0
    assert b"The samples have shape 4: no images" in (masked / "report.html").read_bytes()


def test_json(run: Run, masked: Path) -> None:
    code, out, err = run(*ARGUMENTS, "--json", "--baseline", "m.onnx")
    assert (code, err) == (0, "")
    content: dict[str, Any] = json.loads(out)
    assert content["statement"] == STATEMENT
    assert content["baseline"]["name"] == "m.onnx"
    assert not content["baseline_is_stripped"]
    assert len(content["results"][0]["random_masks"]) == 3


def test_a_long_run_is_announced(run: Run, masked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloakonnx.cli._output._LONG", 0.0)
    code, out, err = run(*ARGUMENTS, "--json", "--limit", "8")
    assert code == 0
    assert json.loads(out)["data"]["count"] == 8
    assert re.fullmatch(
        r"about \S+ s at most: 8 samples, 1 eps, 2 models and 3 random masks; the sanity checks come on top\n", err
    )


def test_a_dry_run_attacks_and_writes_nothing(run: Run, masked: Path) -> None:
    before = sorted(Path().iterdir())
    options = (*ARGUMENTS, "-o", "never.json", "--limit", "8", "--batch-size", "2", "--workers", "4", "--dry-run")
    code, out, _ = run(*options)
    assert code == 0
    assert re.match(r"8 samples, 1 eps, 2 models and 3 random masks; .*; 4 batches of 2\n", out)
    assert re.search(r"^expected  \S+ \w+ of one worker: \S+ \w+ on 4", out, re.MULTILINE)
    assert re.search(r"^at most   \S+ \w+ of one worker: \S+ \w+ on 4", out, re.MULTILINE)
    assert "more than 4 workers find no batch" in out
    code, out, _ = run(*options, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["samples"], found["batches"], found["workers"]) == (8, 4, 4)
    assert found["expected"]["tried"] == 8  # more than a batch
    assert 0 < found["expected"]["seconds"] <= found["at_most"]["seconds"]
    assert [each["workers"] for each in found["on_workers"]] == [1, 4]
    assert found["on_workers"][1]["expected_seconds"] == found["expected"]["seconds"]
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(("fresh", "seen"), [(0, 12), (8, 4)])
def test_samples_that_the_analysis_has_seen(run: Run, masked: Path, fresh: int, seen: int) -> None:
    assert run("analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "adversarial.npz").code == 0
    clean = np.load(masked / "clean.npz")
    x = clean["x"].copy()
    x[:fresh] = np.random.default_rng(9).random((fresh, 4))
    np.savez(masked / "test.npz", x=x, y=clean["y"])
    arguments = [part if part != "clean.npz" else "test.npz" for part in ARGUMENTS]
    code, out, err = run(*arguments, "--analysis", "m.cloak.json", "--markdown")
    assert code == 0
    assert err == f"cloakonnx: warning: m.cloak.json has seen {seen} of the 12 samples\n"
    assert f"WARNING: the analysis has seen {seen} of the samples" in out
    content = json.loads(run(*arguments, "--analysis", "m.cloak.json", "--json").out)
    assert content["data"]["seen"] == seen


def test_preprocessing_comes_from_the_analysis(run: Run, masked: Path) -> None:
    assert run("analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "adversarial.npz", "--scale", "2").code == 0
    ran = run(*ARGUMENTS, "--analysis", "m.cloak.json", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["preprocessing"]["scale"] == 2
    code, _, err = run(*ARGUMENTS, "--analysis", "m.cloak.json", "--scale", "3")
    assert code == 2
    assert "--scale 3.0 contradicts the analysis, which was made with 2.0" in err
    code, _, err = run(*ARGUMENTS, "--analysis", "m.cloak.json", "--scale", "1")  # the default, but given
    assert code == 2
    assert "--scale 1.0 contradicts the analysis, which was made with 2.0" in err
    assert run(*ARGUMENTS, "--analysis", "m.cloak.json", "--scale", "2", "--json").out == ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("m.hardened.onnx", "--eps", "0.1"), "--data is missing"),
        (("m.hardened.onnx", "--data", "clean.npz"), "Missing option '--eps'"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "8"), "--eps 8 is wider than pixel space, [0, 1]"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "1/0"), "'1/0' is not a list of numbers"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--attack", "qick"), "did you mean 'quick'"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--json", "--markdown"), "exclude each other"),
        (("m.hardened.onnx", "--data", "bare.npz", "--eps", "0.1"), "bare.npz has no labels"),
        (("m.hardened.onnx", "--data", "many.npz", "--eps", "0.1"), "has label 7, but the model has 3 classes"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "-o", "m.onnx"), "m.onnx is to hold JSON"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--resume"), "--resume needs -o"),
        (("m.hardened.onnx", "--data", "levels.npz", "--eps", "0.1"), "outside pixel space [0, 1]"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "8", "--norm", "l2"), "[0, 1], in l2 (2)"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "8/255", "--bounds", "0,0.1"), "outside pixel space"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "0"), "--eps 0 must be above 0"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "-1/255"), "must be above 0"),
        (("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--restarts", "3"), "quick has its own --restarts"),
        (
            ("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--max-iter", "converged"),
            "--max-iter converged go with attacks by name",
        ),
        (
            ("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--limit", "0"),
            "'--limit': 0 is not in the range",
        ),
        (
            ("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "-o", "r.json", "--samples", "r.json"),
            "r.json is to hold arrays: give it the suffix .npz",
        ),
        (
            ("m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--samples", "clean.npz"),
            "clean.npz is the input",
        ),
    ],
)
def test_bad_input(run: Run, masked: Path, arguments: tuple[str, ...], said: str) -> None:
    x = np.zeros((3, 4), np.float32)
    np.savez(masked / "bare.npz", x=x)
    np.savez(masked / "many.npz", x=x, y=np.array([0, 1, 7]))
    np.savez(masked / "levels.npz", x=x + 255, y=np.zeros(3, np.int64))
    assert_refused(run, masked, ("evaluate", *arguments), said)


def renamed(made: onnx.ModelProto) -> onnx.ModelProto:
    """Call input and output of the folder's model otherwise."""
    for values in (made.graph.input, made.graph.output):
        for value in values:
            for node in made.graph.node:
                node.input[:] = [f"own_{name}" if name == value.name else name for name in node.input]
                node.output[:] = [f"own_{name}" if name == value.name else name for name in node.output]
            value.name = f"own_{value.name}"
    return made


def test_a_baseline_with_other_names(run: Run, masked: Path) -> None:
    (masked / "other.onnx").write_bytes(renamed(core.mlp()).SerializeToString())
    named = (*ARGUMENTS, "--input", "x", "--output-name", "logits", "--json")
    gate = ("--require", "latency-ratio<=9")
    found, wanted = (json.loads(run(*named, "--baseline", each, *gate).out) for each in ("other.onnx", "m.onnx"))
    assert found["results"] == wanted["results"]
    two = renamed(core.mlp())
    two.graph.output.append(core.value(core.TAP, ["N", 6]))
    (masked / "two.onnx").write_bytes(two.SerializeToString())
    code, _, err = run(*named, "--baseline", "two.onnx")
    assert code == 2
    assert "two.onnx has no output 'logits'; it has own_logits, features: export both models with the same name" in err


def test_signs_of_wrong_preprocessing(run: Run, masked: Path) -> None:
    with np.load(masked / "clean.npz") as arrays:
        x = np.tile(arrays["x"], (2, 1))
    np.savez(masked / "wrong.npz", x=x, y=np.full(24, 3) - 1)
    options = ("--data", "wrong.npz", "--eps", "1/255", "--attack", "fgsm", "--no-sanity", "--scale", "1/255")
    code, out, err = run("evaluate", "m.hardened.onnx", *options, "--bounds", "0,255", "--markdown")
    assert code == 0
    assert "warning: --eps 0.00392 is less than a tenth of a 255th of pixel space, [0, 255]; is it in another" in err
    said = re.findall(r"Note: (.*) gets (\d+) of 24 clean samples right, no more than chance would in 3 classes", out)
    assert [who for who, _ in said] == ["m.hardened.onnx", "the baseline"]
    assert all(int(right) <= 8 for _, right in said)
    assert "3 classes: check the preprocessing (scale, mean, std) and the labels." in out and "?." not in out


def test_shifted_labels_are_noted(run: Run, masked: Path) -> None:
    x = np.random.default_rng(5).random((200, 4)).astype(np.float32)
    predicted = ort.InferenceSession("m.hardened.onnx").run(None, {"x": x})[0].argmax(1)
    keep = predicted < 2
    np.savez(masked / "shifted.npz", x=x[keep], y=predicted[keep] + 1)
    options = ("--data", "shifted.npz", "--eps", "0.01", "--attack", "fgsm", "--no-sanity", "--markdown")
    code, out, _ = run("evaluate", "m.hardened.onnx", *options)
    assert code == 0
    said = f"labels one lower would be right for {keep.sum()} of {keep.sum()} samples: do the labels count from 1?"
    assert f"m.hardened.onnx: {said}" in out


USUAL = ("m.onnx", "--data", "clean.npz", "--eps", "0.1", "--attack", "fgsm", "--baseline")


def with_two_inputs() -> onnx.ModelProto:
    """The model of the folder, with a second input that is added to the first."""
    made = core.mlp()
    first = made.graph.node[0]
    first.input[0] = "sum"
    made.graph.input.append(core.value("other", ["N", 4]))
    made.graph.node.insert(0, core.node("Add", "x other", "sum"))
    return made


def with_two_outputs() -> onnx.ModelProto:
    made = core.mlp()
    made.graph.output.append(core.value(core.TAP, ["N", 6]))
    return made


OTHERS: list[tuple[str, Callable[[], onnx.ModelProto], tuple[str, ...], str]] = [
    ("baseline missing", core.mlp, (*USUAL, "n.onnx"), "no file n.onnx"),
    ("baseline is data", core.mlp, (*USUAL, "clean.npz"), "clean.npz is not an ONNX model"),
    ("wider baseline", lambda: flat(3, features=5), (*USUAL, "other.onnx"), "takes inputs of shape (4,), the baseline"),
    (
        "baseline of images",
        lambda: convolution(nhwc=False),
        (*USUAL, "other.onnx"),
        "the baseline other.onnx of (3, 8, 8)",
    ),
    ("classes of baseline", lambda: flat(4, features=4), (*USUAL, "other.onnx"), "the baseline other.onnx 4"),
    (
        "inputs",
        with_two_inputs,
        ("other.onnx", *USUAL[1:], "m.onnx"),
        "has 2 inputs (x, other); name one with --input",
    ),
    (
        "an input without values",
        with_two_inputs,
        ("other.onnx", *USUAL[1:], "m.onnx", "--input", "x"),
        "the model needs 'other' beside 'x', and only one input takes samples; make 'other' a constant",
    ),
    ("inputs of baseline", with_two_inputs, (*USUAL, "other.onnx"), "other.onnx has 2 inputs (x, other); name one"),
    (
        "outputs",
        with_two_outputs,
        ("other.onnx", *USUAL[1:], "m.onnx"),
        "2 outputs (logits, features); name one with --output-name",
    ),
    ("outputs of baseline", with_two_outputs, (*USUAL, "other.onnx"), "other.onnx has 2 outputs (logits, features)"),
    ("unknown input", core.mlp, (*USUAL, "m.onnx", "--input", "y"), "m.onnx has no input 'y'; it has x"),
    ("unknown output", core.mlp, (*USUAL, "m.onnx", "--output-name", "logit"), "did you mean 'logits'"),
]


@pytest.mark.parametrize(("make", "arguments", "said"), [c[1:] for c in OTHERS], ids=[c[0] for c in OTHERS])
def test_models_that_do_not_fit(
    run: Run, folder: Path, make: Callable[[], onnx.ModelProto], arguments: tuple[str, ...], said: str
) -> None:
    (folder / "other.onnx").write_bytes(make().SerializeToString())
    assert_refused(run, folder, ("evaluate", *arguments), said)


LONG = ("--attack", "square", "--max-iter", "20", "--batch-size", "2", "--eps", "0.1", "--data", "many.npz")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT and SIGKILL")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_resume_after_an_interrupt(run: Run, masked: Path, how: signal.Signals) -> None:
    """At whatever batch it comes, nothing is half-written and the resumed call ends with the same bytes."""
    x = np.random.default_rng(0).random((48, 4)).astype(np.float32)
    np.savez(masked / "many.npz", x=x, y=np.arange(48) % 3)
    options = ("evaluate", "m.hardened.onnx", *LONG)
    assert run(*options, "-o", "whole.json").code == 0
    before = set(files(masked))
    wanted = random.Random(int(how)).randrange(1, 16)
    command = [sys.executable, "-m", "cloakonnx", *options, "-o", "result.json", "--resume"]
    with subprocess.Popen(command, cwd=masked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        end = time.monotonic() + 60
        while len(parts(masked)) < wanted and child.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        child.send_signal(how)
        said = child.communicate()[1]
    if how is signal.SIGKILL:
        assert child.returncode == -how
    else:
        assert child.returncode == 130
        assert (
            said.splitlines()[-1]
            == "cloakonnx: interrupted; no output was left half-written; --resume goes on where this stopped"
        )
    assert not (masked / "result.json").exists()
    assert {name for name in files(masked) if ".result.json." not in name} == before
    kept = parts(masked)
    assert len(kept) >= wanted
    oldest = masked / ".result.json.parts" / kept[0]
    made = oldest.stat().st_mtime_ns
    assert run(*options, "-o", "result.json", "--resume", "--seed", "1").code == 2
    assert oldest.stat().st_mtime_ns == made
    assert run(*options, "-o", "result.json", "--resume").code == 0
    assert (masked / "result.json").read_bytes() == (masked / "whole.json").read_bytes()
    assert not [name for name in files(masked) if ".result.json." in name]


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".result.json.parts/0*.npz"))
