"""Command lines that read a changed input, which lies in the current folder: f.onnx, f.npz, ..., f-images."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import click

from tests.fuzz.seeds import TAP

OPTIONS = (
    "--eps", "--seed", "--batch-size", "--limit", "--mean", "--std", "--scale", "--bounds", "--norm", "--attack",
    "--layout", "--max-iter", "--restarts", "--tap", "--feature-axis", "--remove", "--threshold", "--require",
    "--classes", "--resize", "--crop", "--input", "--output-name", "--provider", "--device-id", "--labels",
    "--analysis", "--mask", "--json", "--force", "--criterion", "--dry-run", "--fold", "--budget", "--adaptive-at",
    "-o", "--markdown", "--data", "--source", "--confidence", "--like", "--task", "--workers", "--config",
)  # fmt: skip
VALUES = (
    "0", "-1", "1", "2", "1e400", "nan", "inf", "-inf", "1/0", "0/0", "2/255", "5%", "100%", "101%", "1,2,3", ",", "",
    "0..8", "0%..200%:0%", "0..1000000000", "9" * 400, "fgsm", "pgd", "quick", "square", "linf", "l2", "robust>=1%",
    "clean>=nan%", "robust>=0@1e999", "cpu", "cuda", "/", ".", "m.npy", "d.npz", "a.json", "image", "logits", "\n",
    "\x1b[2J", "é" * 50, TAP, "1e-320", "0x10", "\u0663", "1_000", "\udcff", "::error::x", "a" * 5_000,
)  # fmt: skip
FILES = {"model": "f.onnx", "bomb": "f.onnx", "npz": "f.npz", "toml": "f.toml", "image": "f-images/1/a.png"}

_DATA = ["--data", "d.npz"]
_FGSM = ["--attack", "fgsm", "--eps", "0.1"]
_OUT = ["-o", "out.onnx", "--force"]
_ATTACK = [*_FGSM, "-o", "o.npz", "--force"]


def file_of(kind: str) -> Path:
    """Return where a changed input of a kind is written."""
    return Path(FILES.get(kind, "f.json"))


def command(kind: str, rng: random.Random) -> list[str]:  # noqa: PLR0911
    """Return a command line that reads it."""
    plain = ["attack", "m.onnx", *_DATA, *_ATTACK]
    match kind:
        case "model":
            return rng.choice(_of_model())
        case "bomb":
            return rng.choice([["inspect", "f.onnx"], ["attack", "f.onnx", *_DATA, "--limit", "4", *_ATTACK]])
        case "npz":
            scored = ["analyze", "m.onnx", *_DATA, "--adversarial", "f.npz", "-o", "o.json", "--force"]
            return rng.choice([["attack", "m.onnx", "--data", "f.npz", *_ATTACK]] * 2 + [scored])
        case "image":
            return ["attack", "m.onnx", "--data", "f-images", *rng.choice([[], ["--resize", "8"]]), *_ATTACK]
        case "analysis":
            checked = ["verify", "h.onnx", "--source", "m.onnx", "--analysis", "f.json"]
            return rng.choice([["apply", "m.onnx", "--analysis", "f.json", "--remove", "5%", *_OUT], checked])
        case "attestation":
            return ["verify", "h.onnx", "--attestation", "f.json"]
        case "evaluation":
            gates = [part for gate in ("robust>=1%", "clean-drop<=5%", "flags==0") for part in ("--require", gate)]
            return rng.choice([["gate", "f.json", *gates], ["report", "f.json", "-o", "r.html", "--force"]])
        case "toml":
            judged = ["gate", "e.json", "--require", "robust>=1%"]
            return [*rng.choice([["config", "--show"], plain, judged]), "--config", "f.toml"]
        case _:
            base = rng.choice(
                [
                    plain,
                    ["inspect", "m.onnx"],
                    ["apply", "m.onnx", "--analysis", "a.json", *_OUT],
                    ["gate", "e.json", "--require", "robust>=1%"],
                    ["verify", "h.onnx", "--source", "m.onnx"],
                    ["strip", "h.onnx", *_OUT],
                    ["sweep", "m.onnx", *_DATA, "--analysis", "a.json"],
                ]
            )
            return [*base, *_more(base[0], rng)]


def _more(verb: str, rng: random.Random) -> list[str]:
    """Return options of the verb with odd values; now and then a row of anything."""
    if rng.random() < 0.2:
        return [rng.choice([*OPTIONS, *VALUES]) for _ in range(rng.choice([1, 2, 2, 4]))]
    found = []
    known = [each for each in importlib.import_module(f"cloakonnx.cli.{verb}").command.params if each.opts]
    for option in rng.choices([each for each in known if isinstance(each, click.Option)], k=rng.choice([1, 1, 2, 3])):
        found.append(option.opts[-1])
        if not option.is_flag:
            found.append(rng.choice(VALUES))
    return found


def _of_model() -> list[list[str]]:
    return [
        ["inspect", "f.onnx", "--json"],
        ["inspect", "f.onnx"],
        ["apply", "f.onnx", "--mask", "m.npy", "--tap", TAP, *_OUT],
        ["strip", "f.onnx", *_OUT],
        ["verify", "f.onnx", "--attestation", "t.json"],
        ["verify", "f.onnx", "--source", "m.onnx"],
        ["verify", "f.onnx"],
        ["attack", "f.onnx", *_DATA, *_ATTACK],
        ["attack", "f.onnx", *_DATA, "--attack", "noise", "--eps", "0.1", "-o", "o.npz", "--force"],
        ["analyze", "f.onnx", *_DATA, *_FGSM, "-o", "o.json", "--force"],
    ]
