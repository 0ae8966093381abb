"""Small valid inputs of each kind, most of them made by the tool itself."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.bombs import array, model

ROOT = Path(__file__).parents[2]
WHEEL = Path(onnx.__file__).parent / "backend" / "test" / "data"
TAP = "/6/Relu_output_0"
LARGEST = 20_000
"""Bytes of the wheel's models that are taken: larger ones make fewer inputs a second."""

TOML = b'eps = "2/255"\nseed = 1\n[evaluate]\nattack = "quick"\n[harden]\nrequire = ["robust>=1%"]\n'


def write_seeds(folder: Path, call: Callable[[list[str]], object]) -> None:
    """Write what the commands read beside the input that was changed: a model, a hardened one, samples, results."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 1, 8, 8), np.uint8)
    np.savez(folder / "d.npz", x=x, y=np.arange(12) % 10)
    np.savez_compressed(folder / "packed.npz", x=x.astype(np.float32) / 255, y=np.arange(12) % 10)
    np.save(folder / "m.npy", np.where(np.arange(64) % 7, 1, 0).astype(np.float32))
    shutil.copy(ROOT / "samples" / "digits_cnn.onnx", folder / "m.onnx")
    data = ["--data", "d.npz", "--eps", "0.1", "--attack", "fgsm"]
    for arguments in (
        ["analyze", "m.onnx", *data, "-o", "a.json"],
        ["apply", "m.onnx", "--mask", "m.npy", "--tap", TAP, "-o", "h.onnx", "--attestation", "t.json"],
        ["evaluate", "h.onnx", *data, "-o", "e.json", "--no-sanity"],
    ):
        call(arguments)


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Return the inputs to change, by kind; ``folder`` is what :func:`write_seeds` has filled."""
    small = [path.read_bytes() for path in sorted(WHEEL.rglob("*.onnx")) if path.stat().st_size < LARGEST][:400]
    own = [(folder / name).read_bytes() for name in ("m.onnx", "h.onnx")] + tiny()
    return {
        "model": [*own * max(1, len(small) // len(own)), *small],  # half of either
        "npz": [(folder / name).read_bytes() for name in ("d.npz", "packed.npz")],
        "image": images(),
        "analysis": [(folder / "a.json").read_bytes()],
        "attestation": [(folder / "t.json").read_bytes()],
        "evaluation": [(folder / "e.json").read_bytes()],
        "toml": [TOML],
    }


def images() -> list[bytes]:
    """One picture in each format that is read, and two that are not."""
    from PIL import Image

    pixels = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
    made = []
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "ICO", "TGA"):
        for mode in ("L", "RGB"):
            out = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(out, kind)
            made.append(out.getvalue())
    return made


def tiny() -> list[bytes]:
    """Models of a few nodes with activations, control flow, a function, shape arithmetic and quantisation."""
    made = [
        model([helper.make_node(op, ["f"], ["t"], **settings)])
        for op, settings in (("Relu", {}), ("Softmax", {"axis": 1}), ("LeakyRelu", {"alpha": 0.1}), ("Clip", {}))
    ]
    sets = [helper.make_opsetid("", 17)]
    body = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], sets)
    made.append(model([helper.make_node("F", ["f"], ["t"], domain="own")], functions=[body]))
    output = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["f"], ["o"])], "b", [], [output])
    chosen = helper.make_node("If", ["flag"], ["t"], then_branch=branch, else_branch=branch)
    made.append(model([chosen], [array("flag", True, np.bool_)]))
    shape = array("s", [1, 64])
    filled = [helper.make_node("ConstantOfShape", ["s"], ["k"]), helper.make_node("Add", ["f", "k"], ["t"])]
    made += [model(filled, [shape]), model([helper.make_node("Expand", ["f", "s"], ["t"])], [shape])]
    scale, zero = array("scale", 0.1, np.float32), array("zero", 3, np.uint8)
    quantised = [
        helper.make_node("QuantizeLinear", ["f", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["t"]),
    ]
    made.append(model(quantised, [scale, zero]))
    outside = numpy_helper.from_array(np.zeros(64, np.float32), "b")
    onnx.external_data_helper.set_external_data(outside, "w.bin", offset=0, length=256)
    outside.ClearField("raw_data")
    made.append(model([helper.make_node("Add", ["f", "b"], ["t"])], [outside]))
    return made
