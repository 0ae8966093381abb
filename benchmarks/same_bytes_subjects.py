"""The models that same_bytes.py runs, with their data and the command lines for each."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import assets
from numpy.typing import NDArray
from same_bytes_models import dense, halved, quantise
from same_bytes_steps import CPU, Sizes, Step, a_few, attacks, everything, more, own_mask, step

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
DIGITS = SAMPLES / "digits_cnn.onnx"
VERBS = (
    *("analyze", "apply", "attack", "config", "evaluate", "gate", "harden", "inspect", "learn", "report", "strip"),
    *("sweep", "verify"),
)


@dataclass(frozen=True)
class Subject:
    """A model with its data, and what is done with it, in order."""

    name: str
    fill: Callable[[Path], object]
    steps: tuple[Step, ...]

    def files(self, folder: Path) -> dict[str, Path]:
        """Make what lies in the folder that every command starts in."""
        folder.mkdir()
        self.fill(folder)
        return {path.name: path for path in sorted(folder.iterdir())}


def subjects(*, quick: bool) -> Iterator[Subject]:
    """Yield all models, or those of the quick run."""
    yield _command_line()
    yield from _digits(quick=quick)
    yield from _images(quick=quick)
    if not quick:
        yield from _others()


def _filler(model: Path, data: Callable[[], Mapping[str, NDArray[Any]]], mask: int = 0) -> Callable[[Path], None]:
    """Return what puts a model, its samples, and a mask of a number of weights into a folder."""

    def fill(folder: Path) -> None:
        shutil.copy(model, folder / "model.onnx")
        np.savez(folder / "clean.npz", **data())  # type: ignore[arg-type]
        if mask:
            np.save(folder / "mask.npy", np.linspace(0, 1, mask, dtype=np.float32))

    return fill


def _asset(model: str, data: Callable[[], Mapping[str, NDArray[Any]]], mask: int = 0) -> Callable[[Path], None]:
    return _filler(assets() / "models" / model, data, mask)


def _command_line() -> Subject:
    def fill(folder: Path) -> None:
        _filler(DIGITS, lambda: {"x": np.zeros((4, 1, 8, 8), np.float32)})(folder)
        settings = '[attack]\nattack = "pgd"\neps = 0.1\n[evaluate]\neps = "1/255,2/255"\n'
        (folder / "cloakonnx.toml").write_text(settings)

    attack = f"attack model.onnx --data clean.npz{CPU} --attack pgd -o out.npz"
    provider = "attack model.onnx --data clean.npz --attack pgd --eps 0.1 --provider no -o out.npz"
    return Subject(
        "command line",
        fill,
        (
            step("--help", "--help"),
            *(step(f"{verb} --help", f"{verb} --help") for verb in VERBS),
            step("config --show", "config --show --json"),
            step("settings from a file", f"attack model.onnx --data clean.npz{CPU} -o out.npz --json"),
            step("bad eps", f"{attack} --eps 8"),
            step("bad --std", f"{attack} --eps 0.1 --std 1,2"),
            step("bad --input", f"{attack} --eps 0.1 --input nothing"),
            step("bad --output-name", f"{attack} --eps 0.1 --output-name nothing"),
            step("bad --bounds", f"{attack} --eps 0.1 --bounds 1,0"),
            step("bad --provider", provider),
            step("bad --tap", f"analyze model.onnx --data clean.npz --adversarial clean.npz --tap nothing{CPU}"),
            step("no labels", f"evaluate model.onnx --data clean.npz --eps 0.1 --baseline model.onnx{CPU}"),
            step("no masks", f"evaluate model.onnx --data clean.npz --eps 0.1{CPU}"),
            step("no analysis", "apply model.onnx"),
            step("no model", "inspect nothing.onnx"),
        ),
    )


def _digits_data() -> dict[str, NDArray[Any]]:
    x, y = _digits_module().test_arrays()
    return {"x": x, "y": y}


def _digits_module() -> Any:
    sys.path.insert(0, str(SAMPLES))
    return importlib.import_module("digits")


def _digits(*, quick: bool) -> Iterator[Subject]:
    tap, scaled = "/3/Relu_output_0", "--scale 2 --mean 0.3 --std 0.7"
    sizes = Sizes(40 if quick else 150, "0.125", "1.0", learned=200, tap=tap, queries=60)

    def with_script(folder: Path) -> None:
        _filler(DIGITS, _digits_data, mask=32)(folder)
        shutil.copy(SAMPLES / "digits.py", folder)

    def quantised(folder: Path) -> None:
        _filler(DIGITS, _digits_data)(folder)
        quantise(folder / "model.onnx", _digits_module().training_arrays()[0][-100:])

    def converted(convert: Callable[[onnx.ModelProto], onnx.ModelProto]) -> Callable[[Path], None]:
        def fill(folder: Path) -> None:
            _filler(DIGITS, _digits_data)(folder)
            onnx.save(convert(onnx.load(str(DIGITS))), str(folder / "model.onnx"))

        return fill

    def grey() -> dict[str, NDArray[Any]]:
        x, y = _digits_data().values()
        return {"x": np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1), "y": y}

    yield Subject("digits_cnn", with_script, (*everything(sizes), *own_mask(tap), *more(sizes)))
    uint8 = Sizes(30, "8/255", "0.5", checks=not quick)
    rounded = f"attack model.onnx {uint8.data} --attack pgd {uint8.ball} --round -o rounded.npz --json"
    yield Subject("digits_uint8", _filler(DIGITS, grey), (*a_few(uint8), step("attack --round", rounded)))
    wide = Sizes(30, "0.125", "1.0", options=scaled, learned=100, tap="hidden2", checks=not quick)
    yield Subject("digits_float64", converted(dense), tuple(everything(wide, sanity=not quick)))
    half = Sizes(30, "0.125", "1.0", options=scaled, learned=100, checks=not quick)
    yield Subject("digits_float16", converted(halved), tuple(a_few(half, learn=True)))
    steps = a_few(Sizes(30, "0.125", "1.0", attacking="--straight-through", checks=not quick))
    plain = Sizes(30, "0.125", "1.0")
    zero = step("attack pgd, gradient 0", f"attack model.onnx {plain.data} --attack pgd {plain.ball} -o none.npz")
    words = f"evaluate hardened.onnx {plain.data} --attack quick --eps 0.125 --no-sanity --json -o quick.json"
    preset = step("evaluate quick", words, "hardened.onnx")
    yield Subject("digits_quantised", quantised, (*steps, zero, preset))
    if not quick:
        robust = _filler(SAMPLES / "digits_robust.onnx", _digits_data)
        yield Subject("digits_robust", robust, tuple(everything(Sizes(40, "0.125", "1.0", learned=200))))


def _stored(file: str, *, count: int = 600, nchw: bool = False) -> Callable[[], dict[str, NDArray[Any]]]:
    def read() -> dict[str, NDArray[Any]]:
        with np.load(assets() / "data" / file) as found:
            x, y = found["x"][:count], found["y"][:count]
        return {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if nchw else x, "y": y}

    return read


def _images(*, quick: bool) -> Iterator[Subject]:
    cifar = _stored("cifar10_test600.npz")
    few, tap = 6 if quick else 24, "/layer1/layer1.0/Relu_output_0"
    resnet = Sizes(few, "1/255", "0.2", iterations=3, queries=10, learned=32, tap=tap)
    steps = a_few(resnet, learn=True) if quick else everything(resnet, sanity=False)
    yield Subject("cifar10_resnet20", _asset("cifar10_resnet20.onnx", cifar), tuple(steps))
    raw = "--mean .485,.456,.406 --std .229,.224,.225"
    normalised = Sizes(few, "1/255", "0.2", options=raw, iterations=3, queries=10, learned=32, checks=not quick)
    fill = _asset("cifar10_resnet20_raw.onnx", _stored("cifar10_test600.npz", nchw=True))
    yield Subject("cifar10_resnet20_raw", fill, tuple(a_few(normalised, learn=not quick)))
    if quick:
        return
    grey = Sizes(20, "0.1", "1.0", options="--mean .1307 --std .3081", iterations=3, learned=64)
    fill = _asset("mnist_cnn_raw.onnx", _stored("mnist_test5000.npz"))
    yield Subject("mnist_cnn_raw", fill, tuple(everything(grey)))
    dynamo = Sizes(12, "1/255", "0.2", iterations=3, queries=10, learned=32)
    fill = _asset("cifar10_resnet20_dynamo.onnx", cifar)
    yield Subject("cifar10_resnet20_dynamo", fill, tuple(a_few(dynamo, learn=True)))
    deep = Sizes(6, "1/255", "0.2", iterations=2, queries=6)
    yield Subject("cifar10_resnet56", _asset("cifar10_resnet56.onnx", cifar), tuple(a_few(deep)))
    fixed = Sizes(10, "0.1", "1.0", options="--scale 255", iterations=3, learned=32)
    fill = _asset("mnist_cntk_ir3.onnx", _stored("mnist_test5000.npz"))
    yield Subject("mnist_cntk_ir3", fill, tuple(everything(fixed, sanity=False)))


def _others() -> Iterator[Subject]:
    def random(*shape: int) -> Callable[[], dict[str, NDArray[Any]]]:
        return lambda: {"x": np.random.default_rng(0).random(shape, dtype=np.float32)}

    def codes() -> dict[str, NDArray[Any]]:
        return {"x": np.random.default_rng(0).integers(0, 256, (4, 2048)).astype(np.int32)}

    inspect = step("inspect", "inspect model.onnx --json")
    text = Sizes(4, "0.02", "1.0", options="--mean .5 --std .5", iterations=2, queries=6, labels=False, targets=False)
    fill = _asset("text_direction_rapidocr.onnx", random(4, 3, 48, 192))
    yield Subject("text_direction", fill, tuple(everything(text)))
    word = Sizes(8, "0.1", "1.0", labels=False, targets=False)
    yield Subject("wakeword", _asset("wakeword_hello_deepa.onnx", random(8, 25, 96)), tuple(everything(word)))
    # Models that no attack takes: what is said of it, and masks of one's own.
    tap = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/LayerNorm_1/AddV2_1:0"
    steps = (*attacks(Sizes(4, "1", "1"), every=False), *own_mask(tap))
    yield Subject("magika", _asset("filetype_magika.onnx", codes, mask=512), (inspect, *steps))
    steps = (*attacks(Sizes(4, "0.1", "1.0"), every=False), *own_mask("/model/encoder/1/activation/Relu_output_0"))
    yield Subject("vad", _asset("vad_silero_16k.onnx", random(4, 576), mask=64), (inspect, *steps))
