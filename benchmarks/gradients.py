"""Input gradients per second: the backward graph in ONNX Runtime against torch eager, torch.compile and onnx-ad.

    python benchmarks/gradients.py [--rounds 9] [--compile]

Each round times every contender once, in an order that turns. A gradient is the cross-entropy's by the image, rounded
as frameworks do (onnx-ad: of a random combination of the logits, which is less work). ResNet-50's weights are random,
its batch norms are folded into the convolutions for every contender. Needs the environment of `make test-peers`.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import torch
from common import alternate, assets, machine, ratios, spread, table
from resnet20 import from_onnx
from resnet50 import folded_resnet50
from torch import nn
from torch.nn import functional

from cloakonnx.gradient.differentiate import differentiate

Job = Callable[[], object]


def main() -> None:
    """Run both models and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="add torch.compile (needs a C++ compiler)")
    options = parser.parse_args()
    print(machine("onnxruntime-gpu", "onnxruntime", "torch", "onnx-ad", "numpy"), "\n")
    path = assets() / "models" / "cifar10_resnet20.onnx"
    compare("ResNet-20, batch 128", from_onnx(path), onnx.load(path), (128, 3, 32, 32), options)
    net = folded_resnet50()
    compare("ResNet-50, batch 8", net, exported(net, (8, 3, 224, 224)), (8, 3, 224, 224), options)


def exported(net: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return the model as torch's TorchScript exporter writes it, with a symbolic batch."""
    stream = io.BytesIO()
    torch.onnx.export(
        net, torch.rand(shape), stream, opset_version=17, dynamo=False,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip
    return onnx.load_from_string(stream.getvalue())


def compare(
    title: str, net: nn.Module, model: onnx.ModelProto, shape: tuple[int, ...], options: argparse.Namespace
) -> None:
    """Time all contenders on one model."""
    x = np.random.default_rng(0).random(shape, np.float32)
    y = np.random.default_rng(1).integers(0, 10, shape[0])
    start = time.perf_counter()
    graph = differentiate(model, loss="ce-softmax", input_shape=(None, *shape[1:]))
    built = time.perf_counter() - start
    ours = session(graph.proto)
    forward = session(model)
    jobs: dict[str, Job] = {
        "cloakonnx": lambda: ours.run([graph.loss, graph.gradient], {graph.image: x, graph.labels: y}),
        "torch eager": torch_gradient(net, x, y),
        "ONNX Runtime forward only": lambda: forward.run(None, {forward.get_inputs()[0].name: x}),
    }
    check(jobs["torch eager"], jobs["cloakonnx"])
    if options.compile:
        jobs["torch.compile"] = torch_gradient(torch.compile(net), x, y)  # type: ignore[arg-type]
    other = onnx_ad_job(model, x)
    if other is not None:
        jobs["onnx-ad"] = other
    seconds = alternate(jobs, options.rounds)
    rows = [
        [name, spread([shape[0] / s for s in found], 1), spread(ratios(found, seconds["cloakonnx"]))]
        for name, found in seconds.items()
    ]
    print(f"{title}: backward graph built in {built:.2f} s\n")
    print(table(["", "images/s", "cloakonnx, times as fast"], rows), "\n")


def check(torch_job: Job, our_job: Job) -> None:
    """Stop where the contenders don't compute the same."""
    theirs, ours = np.asarray(torch_job()), our_job()[1]  # type: ignore[index]
    error = np.linalg.norm(theirs - ours) / np.linalg.norm(theirs)
    if error > 2e-2:  # ReLUs near 0 flip with the order of summation
        raise SystemExit(f"the gradients differ by {error:.2g}")


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Return a session on the CPU with default options."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def torch_gradient(net: nn.Module, x: np.ndarray, y: np.ndarray) -> Job:
    """Return what a PyTorch user writes: weights frozen, gradient by the image."""
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    labels = torch.tensor(y)

    def job() -> np.ndarray:
        image = torch.tensor(x).requires_grad_()
        loss = functional.cross_entropy(net(image), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, image)
        return gradient.numpy()

    return job


def onnx_ad_job(model: onnx.ModelProto, x: np.ndarray) -> Job | None:
    """Return onnx-ad's gradient graph as a job, or None where it is not installed or fails on the model."""
    try:
        import onnx_ad

        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(x)
        reverse = onnx_ad.reverse(onnx.shape_inference.infer_shapes(fixed), layout="onnx")
        run = session(reverse)
        names = [i.name for i in run.get_inputs()]
        seed_shape = [d if isinstance(d, int) else len(x) for d in run.get_inputs()[-1].shape]
        seed = np.random.default_rng(2).random(seed_shape, np.float32)
        run.run(None, {names[0]: x, names[-1]: seed})
    except Exception as error:  # a peer that can't is worth a line, not a crash
        print(f"onnx-ad: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
        return None
    return lambda: run.run(None, {names[0]: x, names[-1]: seed})


if __name__ == "__main__":
    main()
