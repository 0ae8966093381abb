"""Ties, noise inside the model and gradients of 0 are said in one line by every verb that attacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .conftest import Run

CLASSES, SIZE, COUNT = 5, 12, 70
RNG = np.random.default_rng(4)
W = RNG.normal(size=(SIZE, CLASSES)).astype(np.float32)
X = RNG.random((COUNT, SIZE)).astype(np.float32)
SCORES = np.maximum(X, 0) @ W
Y = SCORES.argmax(axis=1)
TIE, NOISE, STILL = "a tie for the largest score", "depend on random ops: RandomNormalLike (node 'r')", "gradient is 0"


def net(*tail: NodeProto, before: tuple[NodeProto, ...] = (), start: str = "x", **constants: float) -> ModelProto:
    """Relu and Gemm to ``logits``; the tail leads from there to ``z``."""
    body = [helper.make_node("Relu", [start], ["features"]), helper.make_node("Gemm", ["features", "w"], ["logits"])]
    weights = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        [*before, *body, *tail],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIZE])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(W, "w"), *weights],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four nets: plain, scores in steps, every score 0, noise on the input."""
    plain = helper.make_node("Identity", ["logits"], ["z"])
    noisy = (
        helper.make_node("RandomNormalLike", ["x"], ["noise"], name="r", scale=0.1),
        helper.make_node("Add", ["x", "noise"], ["f"]),
    )
    made = {
        "plain": net(plain),
        "steps": net(helper.make_node("Round", ["logits"], ["z"])),
        "nought": net(helper.make_node("Mul", ["logits", "c"], ["z"]), c=0),
        "noise": net(plain, before=noisy, start="f"),
    }
    for name, model in made.items():
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "test.npz", x=X, y=Y)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def warnings(run: Run, *arguments: str, code: int = 0) -> list[str]:
    """Run on the samples; return the doubts that are said."""
    given = ("--data", "test.npz", "--eps", "0.05", "--batch-size", "32")
    found = run(*arguments, *given)
    assert found.code == code, found.err
    lines = [line for line in (found.out + found.err).splitlines() if any(word in line for word in (TIE, NOISE, STILL))]
    assert all(line.startswith(("cloakonnx: warning: ", "Note: ")) for line in lines)
    return lines


def test_nothing_is_said_of_a_plain_net(run: Run, models: Path) -> None:
    assert warnings(run, "attack", "plain.onnx", "--attack", "pgd", "--max-iter", "2", "-o", "a.npz") == []
    assert warnings(run, "analyze", "plain.onnx", "--attack", "fgsm") == []


def test_ties(run: Run, models: Path) -> None:
    rounded = np.rint(SCORES)
    tied = int(((rounded == rounded.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    assert 10 < tied < COUNT
    said = f"cloakonnx: warning: {tied} samples have {TIE}; the first of the classes that share it counts"
    for attack in (("square", "--max-iter", "3"), ("pgd", "--max-iter", "2", "--straight-through")):
        assert warnings(run, "attack", "steps.onnx", "--attack", *attack, "-o", f"{attack[0]}.npz") == [said]
    assert warnings(run, "analyze", "steps.onnx", "--attack", "fgsm", "--straight-through") == [said]
    beside = ("--baseline", "steps.onnx", "--attack", "square", "--max-iter", "2", "--no-sanity", "-o", "e.json")
    warnings(run, "evaluate", "steps.onnx", *beside)
    notes = [note for note in json.loads((models / "e.json").read_text())["notes"] if TIE in note]
    assert [note.partition(" samples")[0] for note in notes] == [f"steps.onnx: {tied}", f"the baseline: {tied}"]


def test_a_gradient_of_0(run: Run, models: Path) -> None:
    """All scores are 0 as well, so every sample has a tie."""
    for verb in (("attack", "nought.onnx", "-o", "a.npz"), ("analyze", "nought.onnx")):
        tie, still = warnings(run, *verb, "--attack", "fgsm")
        assert f"{COUNT} samples have {TIE}" in tie
        assert f"the {STILL} for all of {COUNT} samples" in still
        assert "--attack square" in still
    (tie,) = warnings(run, "attack", "nought.onnx", "--attack", "square", "--max-iter", "2", "-o", "b.npz")
    assert TIE in tie


SAID = f"the {STILL} for all of the first 64 samples"


def flat() -> ModelProto:
    """Scores of the signs of pixels about 0.5: they differ, have no tie, and hang on x by no gradient but 0."""
    above = (helper.make_node("Greater", ["x", "half"], ["over"]), helper.make_node("Not", ["over"], ["under"]))
    picked = (helper.make_node("Where", ["under", "none", "one"], ["signs"]),)
    faint = (helper.make_node("Mul", ["x", "none"], ["faint"]), helper.make_node("Add", ["signs", "faint"], ["f"]))
    made = net(helper.make_node("Identity", ["logits"], ["z"]), before=(*above, *picked, *faint), start="f")
    made.graph.initializer.extend(
        numpy_helper.from_array(np.full(SIZE, value, np.float32), name)
        for name, value in (("half", 0.5), ("none", 0), ("one", 1))
    )
    return made


def test_a_gradient_of_0_under_verbs_that_choose_or_sweep(run: Run, models: Path) -> None:
    (models / "flat.onnx").write_bytes(flat().SerializeToString())
    y = ((X > 0.5).astype(np.float32) @ W).argmax(axis=1)
    np.savez(models / "flat.npz", x=X, y=y)
    np.savez(models / "moved.npz", x=np.clip(X + np.float32(0.05), 0, 1), y=y)
    given = ("flat.onnx", "--data", "flat.npz")

    def said(*arguments: str, code: int = 0) -> list[str]:
        done = run(arguments[0], *given, *arguments[1:])
        assert done.code == code, done.err
        return [line for line in done.err.splitlines() if SAID in line]

    learning = ("learn", "--eps", "0.05", "--budget", "50%", "--epochs", "1")
    (warned,) = said(*learning, "--force", "-o", "l.json")
    assert warned.startswith("cloakonnx: warning: ")
    (failed,) = said(*learning, "-o", "none.json", code=1)  # the attacks take nothing, so there is nothing to gain
    assert "no masks gain" in failed
    greedy = ("analyze", "--select", "greedy", "--budget", "60%", "--attack", "pgd", "--eps", "0.05", "-o", "g.json")
    assert len(said(*greedy, code=1)) == 1
    assert said("analyze", "--adversarial", "moved.npz", "-o", "s.json") == []
    sweeping = ("sweep", "--analysis", "s.json", "--adversarial", "moved.npz", "--eps", "0.05", "--force")
    assert len(said(*sweeping, "--attack", "pgd", "--max-iter", "2", "-o", "w.json")) == 1
    assert said(*sweeping, "--attack", "square", "--max-iter", "2", "-o", "v.json") == []
    beside = ("evaluate", "--baseline", "flat.onnx", "--eps", "0.05", "--max-iter", "2", "--no-sanity", "--force")
    for attack, count in (("pgd", 1), ("square", 0)):
        said(*beside, "--attack", attack, "-o", "e.json")
        notes = json.loads((models / "e.json").read_text())["notes"]
        assert sum(SAID in note for note in notes) == count


def test_noise_inside(run: Run, models: Path) -> None:
    attack = ("--attack", "fgsm")
    beside = ("--baseline", "noise.onnx", *attack, "--no-sanity")
    for verb in (("attack", "noise.onnx", *attack, "-o", "a.npz"), ("analyze", "noise.onnx", *attack)):
        (said,) = warnings(run, *verb)
        assert NOISE in said
    assert sum(NOISE in line for line in warnings(run, "evaluate", "noise.onnx", *beside)) == 1


def test_noise_behind_the_tap_changes_no_activation(run: Run, models: Path) -> None:
    """Pairs from files: scores of features are looked at, not those of classes."""
    tail = (
        helper.make_node("RandomNormalLike", ["logits"], ["noise"], name="r"),
        helper.make_node("Add", ["logits", "noise"], ["z"]),
    )
    (models / "late.onnx").write_bytes(net(*tail).SerializeToString())
    np.save(models / "moved.npy", np.clip(X + np.float32(0.05), 0, 1))
    given = ("--data", "test.npz", "--adversarial", "moved.npy")
    assert NOISE not in run("analyze", "late.onnx", *given).err
    assert NOISE in run("analyze", "noise.onnx", *given).err


def same() -> ModelProto:
    """Two columns of scores are equal."""
    made = net(helper.make_node("Gather", ["logits", "columns"], ["z"], axis=1))
    made.graph.initializer.append(numpy_helper.from_array(np.array([0, 1, 2, 3, 3]), "columns"))
    return made


def test_verbs_that_count_no_ties_look_at_the_first_samples(run: Run, models: Path) -> None:
    """There is a tie wherever the score of the two columns is the largest."""
    (models / "same.onnx").write_bytes(same().SerializeToString())
    tied = (SCORES[:, :4].argmax(axis=1) == 3).mean()
    assert 0.2 < tied < 0.8
    given = ("same.onnx", "--data", "test.npz", "--eps", "0.1")
    for verb in (
        ("analyze", *given, "--select", "greedy", "--budget", "60%", "--attack", "fgsm", "-o", "g.json"),
        ("learn", *given, "--budget", "5%", "--epochs", "1", "--force", "-o", "l.json"),
    ):
        done = run(*verb)
        assert done.code == 0, done.err
        (said,) = [line for line in done.err.splitlines() if TIE in line]
        assert said.startswith("cloakonnx: warning: of the first 64 samples ")
        assert abs(int(said.split("samples ")[1].split()[0]) - 64 * tied) < 12  # evenly by class or in order


@pytest.mark.parametrize(("name", "said"), [("same", TIE), ("noise", NOISE), ("flat", STILL)])
def test_harden_says_what_its_stages_see(run: Run, models: Path, name: str, said: str) -> None:
    for made in (flat, same):
        (models / f"{made.__name__}.onnx").write_bytes(made().SerializeToString())
    parts = ("--data", "test.npz", "--select-data", "test.npz", "--report-data", "test.npz", "--eps", "0.05")
    how = ("--attack", "pgd", "--method", "score", "--budget", "90%", "--no-report", "-o", "hardened")
    done = run("harden", f"{name}.onnx", *parts, *how, "--no-latency")
    lines = [line for line in done.err.splitlines() if line.startswith("      warning: ") and said in line]
    assert lines, done.err
