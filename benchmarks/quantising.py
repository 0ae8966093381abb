"""Harden and quantise, in either order: clean and robust accuracy of what comes out.

    python benchmarks/quantising.py --folder OUT [--images 100] [--eps 1/255]

ResNet-20 on CIFAR-10. Masks on weights are learned on 1,000 training images in two epochs: enough to see what
quantising does to them, not the best that they can be. int8 is made by onnxruntime.quantization, calibrated
on 100 training images. Robust: PGD-20 with the log odds, its gradients straight through rounding where there
is any; Square with 500 queries where there is no gradient at all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import assets, machine, table
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16


class Reader(CalibrationDataReader):
    """Hands out images one by one."""

    def __init__(self, x: np.ndarray) -> None:
        self._images: Iterator[dict[str, np.ndarray]] = iter({"image": each[None]} for each in x)

    def get_next(self) -> Any:
        """Return the next image, None after the last."""
        return next(self._images, None)


def cloakonnx(*arguments: object) -> str:
    """Run a verb and return what it prints."""
    command = [sys.executable, "-m", "cloakonnx", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def quantised(source: Path, target: Path, kind: str) -> Path:
    """Write another form of a model: ``float16``, ``qdq``, ``qoperator`` or ``dynamic``."""
    if kind == "float16":
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)
        return target
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    if kind == "dynamic":
        quantize_dynamic(str(prepared), str(target))
        return target
    with np.load(assets() / "data" / "cifar10_train4000.npz") as data:
        x = np.ascontiguousarray(data["x"][:100].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    form = QuantFormat.QDQ if kind == "qdq" else QuantFormat.QOperator
    quantize_static(str(prepared), str(target), Reader(x), quant_format=form, per_channel=True)
    return target


def measured(model: Path, kind: str, options: argparse.Namespace) -> list[str]:
    """Return clean and robust accuracy, and how the latter was found."""
    by_gradient = {"float": ["pgd"], "float16": ["pgd"], "qdq": ["pgd", "--straight-through"]}
    way = by_gradient.get(kind, ["square", "--max-iter", "500"])
    steps = ["--max-iter", "20", "--loss", "log-odds"] if way[0] == "pgd" else []
    data = assets() / "data" / "cifar10_test600.npz"
    given = ["--data", data, "--limit", options.images, "--eps", options.eps, "--workers", "1"]
    out = ["-o", options.folder / "adversarial.npz", "--force", "--json"]
    found = json.loads(cloakonnx("attack", model, *given, "--attack", *way, *steps, *out))
    total = found["count"]
    return [f"{100 * found[key] / total:.1f}%" for key in ("correct", "robust")] + [" ".join(way[:2])]


def main() -> None:
    """Make every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--eps", default="1/255")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(machine("onnxruntime-gpu", "onnx"), "\n")
    source = assets() / "models" / "cifar10_resnet20.onnx"
    train = ["--data", assets() / "data" / "cifar10_train4000.npz", "--limit", "1000"]
    masks, hardened = options.folder / "masks.json", options.folder / "hardened.onnx"
    learning = ["--eps", "2/255", "--budget", "6%", "--granularity", "kernel", "--epochs", "2", "--batch-size", "50"]
    cloakonnx("learn", source, *train, *learning, "-o", masks, "--force", "--workers", "1")
    cloakonnx("apply", source, "--analysis", masks, "-o", hardened, "--force")
    rows = []
    for name, model in (("source", source), ("hardened", hardened)):
        rows.append([name, *measured(model, "float", options)])
        for kind in ("float16", "qdq", "qoperator", "dynamic"):
            made = quantised(model, options.folder / f"{name}.{kind}.onnx", kind)
            rows.append([f"{name}, then {kind}", *measured(made, kind, options)])
    print(table(["model", "clean", f"robust at {options.eps}", "attack"], rows))


if __name__ == "__main__":
    main()
