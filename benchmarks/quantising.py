"""Harden and quantise, in either order: clean and robust accuracy of what comes out.

    python benchmarks/quantising.py --folder OUT [--images 100] [--eps 1/255]

ResNet-20 on CIFAR-10. Masks on weights are learned on 1,000 training images in three epochs: enough to see what
quantising does to them, not the best that they can be. int8 is made by onnxruntime.quantization, calibrated on 100
training images. Attacks: PGD-40, its gradients straight through rounding where there is any; Square with 200 queries;
the inputs that PGD makes on the model before it was quantised, replayed, and on models in integer ops, which have no
gradient, those that it makes on the QDQ model too. The last column counts samples that withstand all of these.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import assets, machine, progress, table
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import cloakonnx as ck

LEARNING = ("--eps", "2/255", "--granularity", "kernel", "--epochs", "3", "--batch-size", "50", "--budget", "6%")
PGD, SQUARE = ("pgd", "--max-iter", "40"), ("square", "--max-iter", "200")


class Reader(CalibrationDataReader):
    """Hands out images one by one."""

    def __init__(self, x: np.ndarray) -> None:
        self._images: Iterator[dict[str, np.ndarray]] = iter({"image": each[None]} for each in x)

    def get_next(self) -> Any:
        """Return the next image, None after the last."""
        return next(self._images, None)


def cloakonnx(*arguments: object, refused: bool = False) -> str:
    """Run a verb, which has to be refused or not; return what it says on stderr."""
    command = [sys.executable, "-m", "cloakonnx", *map(str, arguments)]
    progress(" ".join(map(str, arguments[:2])))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != (2 if refused else 0):
        raise SystemExit(f"{' '.join(command)}: {done.returncode}: {done.stderr}")
    return done.stderr


def pixels(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images as NCHW in [0, 1], and labels."""
    with np.load(name) as data:
        x, y = data["x"], data["y"]
    x = x / np.float32(255) if x.dtype == np.uint8 else x
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32), y


def quantised(source: Path, target: Path, images: np.ndarray, kind: str, *, prepared: bool = True) -> Path:
    """Write a model in int8: ``QDQ``, ``QOperator`` or ``dynamic``, constants folded before or not."""
    if prepared:
        ready = target.with_suffix(".prepared.onnx")
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        source = ready
    if kind == "dynamic":
        quantize_dynamic(str(source), str(target))
    else:
        quantize_static(str(source), str(target), Reader(images), quant_format=QuantFormat[kind], per_channel=True)
    return target


def withstood(model: Path, adversarial: Path) -> np.ndarray:
    """Return (N,) which samples of a file a model gets right, each scored alone: some models see the batch."""
    classifier = ck.Classifier(model, provider=ck.choose_provider("cpu"))
    x, y = pixels(str(adversarial))
    return np.array([classifier.predict(each[None])[0] for each in x]) == y


def measured(model: Path, data: Path, options: argparse.Namespace, others: Sequence[Path]) -> list[str]:
    """Return the cells of a model's row.

    Args:
        model: The model.
        data: The report images.
        options: What the script was asked for.
        others: The models whose inputs are replayed; none where the model is one in floats.
    """
    holds = {"clean": withstood(model, data)}
    ops = {node.op_type for node in onnx.load(model).graph.node}
    given = ["--data", data, "--eps", options.eps, "--workers", "1", "--force"]
    attacks = {"pgd": PGD, "square": SQUARE}
    if ops & {"QLinearConv", "ConvInteger"}:
        del attacks["pgd"]
    elif "QuantizeLinear" in ops:
        attacks["pgd"] = (*PGD, "--straight-through")
    for name, attack in attacks.items():
        adversarial = model.with_suffix(f".{name}.npz")
        cloakonnx("attack", model, *given, "--attack", *attack, "-o", adversarial)
        holds[name] = withstood(model, adversarial)
    if others:
        replayed = [withstood(model, each.with_suffix(".pgd.npz")) for each in others]
        holds["replayed"] = np.logical_and.reduce(replayed)
    holds["all"] = np.logical_and.reduce(list(holds.values()))
    shown = ("clean", "pgd", "square", "replayed", "all")
    return [str(int(holds[name].sum())) if name in holds else "-" for name in shown]


def contents(model: Path) -> str:
    """Return a model's size and its Mul and QuantizeLinear nodes."""
    ops = Counter(node.op_type for node in onnx.load(model).graph.node)
    return f"{model.stat().st_size / 1e6:.2f} MB, {ops['Mul']} Mul, {ops['QuantizeLinear']} QuantizeLinear"


def main() -> None:
    """Make every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--eps", default="1/255")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)  # it advises to pre-process
    print(machine("onnxruntime-gpu", "onnx"), "\n")
    folder: Path = options.folder
    train = assets() / "data" / "cifar10_train4000.npz"
    calibration = pixels(str(train))[0][:100]
    with np.load(assets() / "data" / "cifar10_test600.npz") as data:
        for name, rows in (("select", slice(200)), ("report", slice(200, 200 + options.images))):
            np.savez(folder / f"{name}.npz", x=data["x"][rows], y=data["y"][rows])
    select, report = folder / "select.npz", folder / "report.npz"
    source, masks, hardened = folder / "source.onnx", folder / "masks.json", folder / "hardened.onnx"
    source.write_bytes((assets() / "models" / "cifar10_resnet20.onnx").read_bytes())

    learning = ["--data", train, "--limit", "1000", "--select-data", select, *LEARNING, "--workers", "1", "--force"]
    cloakonnx("learn", source, *learning, "-o", masks)
    cloakonnx("apply", source, "--analysis", masks, "-o", hardened, "--force")
    first = quantised(source, folder / "source.qdq.onnx", calibration, "QDQ")
    for granularity in ("kernel", "feature"):
        changed = [granularity if each == "kernel" else each for each in learning]
        print(granularity, cloakonnx("learn", first, *changed, "-o", folder / "none.json", refused=True).strip())
    scores, masked = folder / "scores.json", folder / "source.qdq.masked.onnx"
    pairs = ["--data", select, "--attack", "pgd", "--straight-through", "--eps", options.eps, "--force"]
    cloakonnx("analyze", first, *pairs, "-o", scores)
    cloakonnx("apply", first, "--analysis", scores, "--remove", "5%", "-o", masked, "--force")

    qdq, raw = (
        quantised(hardened, folder / f"hardened.{name}.onnx", calibration, "QDQ", prepared=name == "qdq")
        for name in ("qdq", "raw")
    )
    integers = [
        quantised(hardened, folder / f"hardened.{kind}.onnx", calibration, kind) for kind in ("QOperator", "dynamic")
    ]
    made: dict[str, tuple[Path, Sequence[Path]]] = {
        "source": (source, ()),
        "hardened": (hardened, ()),
        "source, quantised (QDQ)": (first, (source,)),
        "hardened, then quantised (QDQ)": (qdq, (hardened,)),
        "the same without folding constants first": (raw, (hardened,)),
        "hardened, then quantised (QOperator)": (integers[0], (hardened, qdq)),
        "hardened, then quantised (dynamic)": (integers[1], (hardened, qdq)),
        "quantised (QDQ), then 5% of the features removed": (masked, (source,)),
    }
    rows = [
        [name, contents(model), *measured(model, report, options, others)] for name, (model, others) in made.items()
    ]
    head = ["model", "file", "clean", "PGD-40", "Square", "replayed", "all"]
    print(f"\nof {options.images} samples, at {options.eps}:\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
