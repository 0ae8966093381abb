"""``analyze`` against its floor, the two forward passes alone, and against a PyTorch user's forward hook.

python benchmarks/analyze.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import onnx
import onnxruntime as ort
import peak
import torch
from numpy.typing import NDArray
from onnx.utils import Extractor
from resnet20 import ResNet, from_onnx

import cloakonnx as ck

MODEL, CLEAN, ADVERSARIAL = "cifar10_resnet20.onnx", "cifar10_train4000.npz", "cifar10_resnet20_train2000_fgsm4.npz"
TAPS = {"/Flatten_output_0": "flatten", "/Relu_output_0": "relu"}
"""The default tap and, as the worst case, the first Relu; each with the PyTorch module that gives the same tensor."""

Pixels = NDArray[np.float32]
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Setup:
    """The same pairs as everyone wants them: stored images for those who do the whole job, pixels for the floor."""

    model: Path
    clean: Images
    adversarial: Images
    clean_pixels: Pixels
    adversarial_pixels: Pixels


def setup(pairs: int) -> Setup:
    folder = common.assets()
    clean, adversarial = (np.load(folder / "data" / name)["x"][:pairs] for name in (CLEAN, ADVERSARIAL))
    return Setup(folder / "models" / MODEL, clean, adversarial, pixels(clean), pixels(adversarial))


def pixels(images: Images) -> Pixels:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)


def ours(model: Path, clean: Path | Images, adversarial: Path | Images, tap: str, batch: int) -> NDArray[np.float64]:
    """The whole call: load the model, check and convert the images, both passes, sums, sample hashes, the scores."""
    classifier = ck.Classifier(model, provider=ck.choose_provider("cpu"))
    pairs = ck.Pairs(*(ck.records.Dataset.of(source(data), classifier) for data in (clean, adversarial)))
    scores = ck.analyze(classifier, pairs, tap=tap, batch_size=batch).scores
    assert scores is not None
    return scores.scores


def source(data: Path | Images) -> Any:
    from cloakonnx.data.sources import ArraySource

    return data if isinstance(data, Path) else ArraySource("images", data, None)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def backbone(path: Path, tap: str) -> onnx.ModelProto:
    """The part of the model up to the tap."""
    whole = onnx.shape_inference.infer_shapes(onnx.load(path))
    part = Extractor(whole).extract_model([whole.graph.input[0].name], [tap])
    part.ir_version = whole.ir_version
    return part


def two_passes(run: ort.InferenceSession, data: Setup, batch: int) -> None:
    """The floor: nothing but the forward passes, on pixels that lie ready in memory."""
    name = run.get_inputs()[0].name
    for start in range(0, len(data.clean_pixels), batch):
        run.run(None, {name: data.clean_pixels[start : start + batch]})
        run.run(None, {name: data.adversarial_pixels[start : start + batch]})


def hooked(net: ResNet, module: str, clean: Images, adversarial: Images, batch: int) -> NDArray[np.float64]:
    """The same job as a PyTorch user writes it, in the layout that is PyTorch's faster one here: channels last."""
    kept: list[torch.Tensor] = []
    handle = net.get_submodule(module).register_forward_hook(lambda _, __, output: kept.append(output))
    total: torch.Tensor | float = 0.0
    with torch.no_grad():
        for start in range(0, len(clean), batch):
            kept.clear()
            for images in (clean, adversarial):
                x = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2).float().div(255)
                net(x)
            difference = (kept[1] - kept[0]).abs().double()
            total = total + difference.sum([axis for axis in range(difference.ndim) if axis != 1])
    handle.remove()
    assert isinstance(total, torch.Tensor)
    return total.numpy()


def check(data: Setup, net: ResNet) -> None:
    """Exit unless PyTorch's network is the file's, and both ways give the same scores."""
    x = data.clean_pixels[:64]
    expected = session(onnx.load(data.model)).run(None, {"image": x})[0]
    with torch.no_grad():
        found = net(torch.from_numpy(x)).numpy()
    if not np.allclose(found, expected, rtol=1e-4, atol=1e-4):
        sys.exit("the PyTorch network's logits are not the file's")
    clean, adversarial = data.clean[:64], data.adversarial[:64]
    for tap, module in TAPS.items():
        scores = ours(data.model, clean, adversarial, tap, 64), hooked(net, module, clean, adversarial, 64)
        if not np.allclose(*scores, rtol=1e-3):
            sys.exit(f"the scores of {tap} differ")


def measure(data: Setup, net: ResNet, tap: str, batch: int, rounds: int) -> list[str]:
    """Return one row of the table."""
    jobs: dict[str, Callable[[], object]] = {
        "ours": partial(ours, data.model, data.clean, data.adversarial, tap, batch),
        "backbone": partial(two_passes, session(backbone(data.model, tap)), data, batch),
        "whole": partial(two_passes, session(onnx.load(data.model)), data, batch),
        "torch": partial(hooked, net, TAPS[tap], data.clean, data.adversarial, batch),
    }
    seconds = common.alternate(jobs, rounds)
    times = [f"{statistics.median(seconds[name]):.2f}" for name in jobs]
    found = [common.spread(common.ratios(seconds["ours"], seconds[name])) for name in ("backbone", "whole", "torch")]
    return [f"`{tap}`", str(batch), *times, *found]


def memory(model: Path, clean: Images, adversarial: Images, counts: list[int]) -> list[list[str]]:
    """Peak memory of processes that do the job once, fed from mapped ``.npy`` files of so many pairs."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            files = [Path(name) / "clean.npy", Path(name) / "adversarial.npy"]
            for file, images in zip(files, (clean, adversarial), strict=True):
                np.save(file, np.resize(images, (count, *images.shape[1:])))
            for what in ("imports", "ours", "torch"):
                found = peak.run([sys.executable, __file__, "--child", what, str(model), *map(str, files)])
                rows.append([what, str(count), f"{found.resident:.0f}", f"{found.anonymous:.0f}"])
    return rows


def child(what: str, model: str, clean: str, adversarial: str) -> None:
    """Do the job once; every kind of process has imported the same."""
    start = time.perf_counter()
    if what == "ours":
        ours(Path(model), Path(clean), Path(adversarial), "/Flatten_output_0", 64)
    elif what == "torch":
        images = np.load(clean, mmap_mode="c"), np.load(adversarial, mmap_mode="c")
        hooked(from_onnx(Path(model)), "flatten", *images, 64)
    print(json.dumps({"seconds": time.perf_counter() - start}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000, help="2000 at most  [2000]")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--taps", nargs="+", choices=TAPS, default=list(TAPS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-pairs", type=int, nargs="*", default=[500, 2000], help="none: skip the memory table")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    data = setup(options.pairs)
    net = from_onnx(data.model)
    check(data, net)
    print(common.machine("numpy", "onnx", "onnxruntime-gpu", "onnxruntime", "torch"))
    print(f"\n{len(data.clean)} pairs, median of {options.rounds} alternating rounds, ratios [quartiles]:\n")
    rows = [measure(data, net, tap, batch, options.rounds) for tap in options.taps for batch in options.batch_sizes]
    head = ["tap", "batch", "analyze, s", "backbone twice, s", "whole model twice, s", "PyTorch hook, s"]
    print(common.table([*head, "analyze / backbone", "analyze / whole model", "analyze / PyTorch"], rows))
    if options.memory_pairs:
        print("\nPeak memory, batches of 64, mapped `.npy` files:\n")
        rows = memory(data.model, data.clean, data.adversarial, options.memory_pairs)
        print(common.table(["process", "pairs", "resident, MiB", "of it anonymous, MiB"], rows))


if __name__ == "__main__":
    main()
