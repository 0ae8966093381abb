"""Wrong options and outputs are refused before any work: no session is made, no file or folder is left."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.runtime.session import Session

from .conftest import Run, files

HARDEN = "harden m.onnx --data many.npz"
ATTACK = "attack m.onnx --data clean.npz --attack pgd"
ANALYZE = "analyze m.onnx --data clean.npz"
LEARN = "learn m.onnx --data many.npz --budget 4%"
APPLY = "apply m.onnx --mask mask.npy --tap features"
EVALUATE = "evaluate h.onnx --data many.npz"
SWEEP = "sweep m.onnx --analysis a.json --data clean.npz --adversarial adversarial.npz"

OPTIONS = [
    (f"{HARDEN} --eps 2", "--eps 2 is wider than pixel space"),
    (f"{HARDEN} --eps 0.1,2", "--eps 2 is wider than pixel space"),
    (f"{HARDEN} --eps 0", "--eps 0 must be above 0"),
    (f"{HARDEN} --eps 0.1 --tap nope -o new/folder", "tensor 'nope' does not exist"),
    (f"{HARDEN} --eps 0.1 --method score --tap nope", "tensor 'nope' does not exist"),
    (f"{HARDEN} --eps 0.1 --attack nope", "there is no attack or preset 'nope'"),
    (f"{HARDEN} --eps 0.1 --require nope", "there is no gate 'nope'"),
    (f"{HARDEN} --eps 0.1 --budget 2", "--budget 2 must be a share"),
    (f"{ATTACK} --eps 2 -o o.npz", "--eps 2 is wider than pixel space"),
    (f"{ATTACK} --eps 0.1 --loss nope -o o.npz", "'nope' is not one of"),
    (f"{ATTACK} --eps 0.1 -o o.npy", "give it the suffix .npz"),
    (f"{ANALYZE} --attack pgd --eps 2 -o o.json", "--eps 2 is wider than pixel space"),
    (f"{ANALYZE} --adversarial adversarial.npz --tap nope -o o.json", "tensor 'nope' does not exist"),
    (f"{ANALYZE} --adversarial adversarial.npz --criterion nope -o o.json", "there is no criterion 'nope'"),
    (f"{ANALYZE} --attack pgd --eps 0.1 --select greedy --budget 2 -o o.json", "--budget 2 must be a share"),
    (f"{ANALYZE} --attack pgd --eps 0.1 --select greedy --budget 1% --tap nope -o o.json", "'nope' does not exist"),
    (f"{LEARN} --eps 2 -o o.json", "--eps 2 is wider than pixel space"),
    (f"{LEARN} --eps 0.1 --mask-bounds 2,3 -o o.json", "--mask-bounds 2,3 must hold 1"),
    (f"{LEARN} --eps 0.1 --tap nope -o o.json", "tensor 'nope' does not exist"),
    (f"{APPLY} --tap nope -o o.onnx", "--mask and --tap go together"),
    ("apply m.onnx --mask mask.npy --tap nope -o o.onnx", "tensor 'nope' does not exist"),
    ("apply m.onnx --analysis a.json --remove 99 -o o.onnx", "this would remove all 6 features"),
    ("strip m.onnx -o o.onnx", "carries no cloakonnx masks"),
    (f"{EVALUATE} --eps 2 -o o.json", "--eps 2 is wider than pixel space"),
    (f"{EVALUATE} --eps 0.1 --attack nope -o o.json", "there is no attack or preset 'nope'"),
    (f"{EVALUATE} --eps 0.1 --attack fgsm --restarts 3 -o o.json", "fgsm takes no --restarts"),
    (f"{EVALUATE} --eps 0.1 --require robust>=5%@0.2 -o o.json", "eps 0.2 is not among 0.1"),
    (f"{SWEEP} --eps 2 -o o.json", "--eps 2 is wider than pixel space"),
    (f"{SWEEP} --remove 99 -o o.json", "this would remove all 6 features"),
    (f"{SWEEP} --attack nope -o o.json", "there is no attack or preset 'nope'"),
]
VERBS = {
    "attack": f"{ATTACK} --eps 0.1",
    "analyze": f"{ANALYZE} --adversarial adversarial.npz",
    "learn": f"{LEARN} --eps 0.1",
    "apply": APPLY,
    "attestation": f"{APPLY} -o o.onnx --attestation",
    "strip": "strip h.onnx",
    "evaluate": f"{EVALUATE} --eps 0.1",
    "samples": f"{EVALUATE} --eps 0.1 --samples",
    "sweep": SWEEP,
    "harden": f"{HARDEN} --eps 0.1",
}
OUTPUTS = {
    "nothing/o.npz": "there is no folder",
    "folder.npz": "it is a folder",
    "pipe.npz": "it is a pipe",
    "socket.npz": "it is a socket",
    "link.npz": "it is a symbolic link",
    "dangling.npz": "it is a symbolic link",
    "m.onnx/o.npz": "there is no folder",
    "there.npz": "exists already",
}


@pytest.fixture
def ready(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder with what the verbs read; a session that is made is an error from now on."""
    rng = np.random.default_rng(0)
    np.savez("many.npz", x=rng.random((60, 4)).astype(np.float32), y=np.arange(60) % 3)
    np.save("mask.npy", np.array([0, 1, 1, 1, 1, 1], np.float32))
    assert run(*ANALYZE.split(), "--adversarial", "adversarial.npz", "-o", "a.json").code == 0
    assert run(*APPLY.split(), "-o", "h.onnx").code == 0

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a session was made")

    monkeypatch.setattr(Session, "__init__", refuse)
    return folder


@pytest.mark.parametrize(("line", "said"), OPTIONS, ids=[line for line, _ in OPTIONS])
def test_options(line: str, said: str, ready: Path, run: Run) -> None:
    before = files(ready)
    result = run(*line.split())
    assert (result.code, result.out) == (2, ""), result.err
    assert said in result.err.splitlines()[-1]
    assert files(ready) == before


@pytest.mark.parametrize("verb", VERBS)
def test_outputs(verb: str, ready: Path, run: Run) -> None:
    for suffix in (".npz", ".out"):
        (ready / f"folder{suffix}").mkdir()
        os.mkfifo(f"pipe{suffix}")
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"socket{suffix}")
        Path(f"there{suffix}").write_bytes(b"there")
        Path(f"link{suffix}").symlink_to("there.npz")
        Path(f"dangling{suffix}").symlink_to("nowhere")
    before = {name: content for name, content in files(ready).items() if not name.startswith(("pipe", "socket"))}
    line = VERBS[verb].split()
    target = [] if line[-1] in {"--attestation", "--samples"} else ["-o"]
    for name, said in OUTPUTS.items():
        output = name if verb == "attack" else name.replace(".npz", ".out")
        if verb == "harden" and output in {
            "nothing/o.out",
            "folder.out",
        }:  # it makes folders, and takes those there are
            continue
        for force in ([], ["--force"]) if not output.startswith("there") else ([],):
            result = run(*line, *target, output, *force)
            assert (result.code, result.out) == (2, ""), (output, result.err)
            said_here = "is not a folder" if verb == "harden" else said
            assert said_here in result.err.splitlines()[-1], result.err
            now = {name: content for name, content in files(ready).items() if not name.startswith(("pipe", "socket"))}
            assert now == before, output
