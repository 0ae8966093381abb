"""The command `evaluate --attack standard` on a bare model beside torchattacks' AutoAttack: 100 images, whole budgets.

`python -m tests.peers.attacks.test_evaluate_and_autoattack` from the root of the checkout does it for more radii and
seeds, and prints what each left standing, as docs/attacks.md has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from cloakonnx.text import parse_number
from tests.attacks.helpers import DIGITS, ROOT, digits_arrays
from tests.peers.attacks import autoattack

pytest.importorskip("torchattacks")
IMAGES = 100
EPS = "2/16"


def network() -> nn.Module:
    """Return the sample classifier of digits in torch, with the file's weights."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Dropout(),  # not in the file, which is for inference; the names of the weights count it
        nn.Linear(64, 10),
    )
    tensors = onnx.load(DIGITS).graph.initializer
    net.load_state_dict({each.name: torch.tensor(numpy_helper.to_array(each)) for each in tensors})
    return net.eval()


def by_command(folder: Path, *, eps: str = EPS, seed: int = 0) -> NDArray[np.bool_]:
    """Return (N,) which images are robust by what the command line writes."""
    x, y = digits_arrays()
    np.savez(folder / "images.npz", x=x[:IMAGES], y=y[:IMAGES])
    asked = ["--data", "images.npz", "--attack", "standard", "--eps", eps, "--seed", str(seed), "--no-sanity"]
    command = [sys.executable, "-m", "cloakonnx", "evaluate", str(DIGITS), *asked, "-o", f"{seed}.json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    content = json.loads((folder / f"{seed}.json").read_text(encoding="utf-8"))
    assert (content["attack"], content["masks"], content["baseline"]) == ("standard", [], None)
    (outcomes,) = content["samples"]["outcomes"]
    stands = np.array([each == "robust" for each in outcomes])
    assert stands.sum() == content["results"][0]["hardened"]["robust"]["correct"]
    assert (np.array(content["samples"]["predicted"]) == y[:IMAGES])[stands].all()
    return stands


def by_torchattacks(*, eps: str = EPS, seed: int = 0) -> NDArray[np.bool_]:
    """Return (N,) which images are robust by torchattacks, on one thread, which is faster for so small a network."""
    x, y = digits_arrays()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = autoattack.Task("digits_cnn", parse_number(eps))
        return autoattack.autoattack(network(), x[:IMAGES], y[:IMAGES], task, seed=seed).stands
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
def test_within_an_image_of_a_hundred(tmp_path: Path) -> None:
    """100 steps, 9 targets and 5,000 queries on both sides."""
    ours, theirs = by_command(tmp_path), by_torchattacks()
    assert 20 <= theirs.sum() <= 80  # where all or none stand, nothing is compared
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 1
    assert (ours != theirs).sum() <= 2


def main() -> None:
    """Print how many images stand, and on how many the two differ."""
    print("| eps | seed | cloakonnx | torchattacks | images that differ |\n|---|---:|---:|---:|---:|")
    for eps in ("1/16", "2/16"):
        for seed in range(3):
            with tempfile.TemporaryDirectory() as folder:
                ours = by_command(Path(folder), eps=eps, seed=seed)
            theirs = by_torchattacks(eps=eps, seed=seed)
            print(f"| {eps} | {seed} | {ours.sum()} | {theirs.sum()} | {(ours != theirs).sum()} |", flush=True)


if __name__ == "__main__":
    main()
