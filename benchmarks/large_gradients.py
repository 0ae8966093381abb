"""Memory of gradients of a model whose weights are over 2 GB: FGSM, a step of learning, masks written and folded.

    python benchmarks/large_gradients.py [--size BYTES] [--folder DIR]

A chain of a few wide layers with external data is made in a temporary folder. What counts is anonymous memory: pages of
a mapped file belong to the system, which drops them when it needs room.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from common import table
from onnx import TensorProto, helper
from peak import run

LAYERS, CLASSES, SAMPLES = 3, 10, 2


def main() -> None:
    """Make the model, run each job in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=2.5 * 2**30, help="Bytes of weights.  [2.5 GiB]")
    parser.add_argument("--folder", help="Where the model is made.")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job is not None:
        do(args.job[0], Path(args.job[1]))
        return
    width = round((args.size / LAYERS / 4) ** 0.5)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "large.onnx"
        write(path, width)
        rows = []
        for job in JOBS:
            found = run([sys.executable, __file__, "--job", job, str(path)])
            rows.append([job, f"{found.seconds:.1f}", f"{found.anonymous:.0f}", f"{found.resident:.0f}"])
    print(f"{LAYERS} layers of {width} x {width}, {4 * width * width / 2**20:.0f} MiB each; {SAMPLES} samples\n")
    print(table(["", "seconds", "anonymous MiB", "resident MiB"], rows))


def do(job: str, path: Path) -> None:
    """Do one job."""
    start = time.perf_counter()
    JOBS[job](path)
    print(json.dumps({"seconds": time.perf_counter() - start}))


def write(path: Path, width: int) -> None:
    """Write the model, some rows of a weight in memory at a time."""
    weights, nodes, before = [], [], "x"
    rng = np.random.default_rng(0)
    with (path.parent / "large.data").open("wb") as stream:
        for i in range(LAYERS + 1):
            columns = width if i < LAYERS else CLASSES
            tensor = TensorProto(
                name=f"w{i}", data_type=TensorProto.FLOAT, dims=[width, columns], data_location=TensorProto.EXTERNAL
            )
            entries = {"location": "large.data", "offset": stream.tell(), "length": 4 * width * columns}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            for first in range(0, width, 1024):
                rows = min(1024, width - first)
                values = rng.normal(size=(rows, columns)) * (2 / width) ** 0.5
                stream.write(values.astype(np.float32).tobytes())
            weights.append(tensor)
            last = "logits" if i == LAYERS else f"z{i}"
            nodes.append(helper.make_node("MatMul", [before, f"w{i}"], [last]))
            if i < LAYERS:
                nodes.append(helper.make_node("Relu", [last], [f"h{i}"]))
            before = f"h{i}"
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "chain", [entry], [output], weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())


def samples(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and labels."""
    width = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    return np.random.default_rng(1).random((SAMPLES, width)).astype(np.float32), np.array([3, 5])


def nothing(path: Path) -> None:
    """Load the file: what Python and the libraries take."""
    import cloakonnx as ck

    ck.load(path)


def predict(path: Path) -> None:
    """Run the model."""
    import cloakonnx as ck

    ck.Classifier(path, provider=ck.Provider("CPUExecutionProvider")).predict(samples(path)[0])


def fgsm(path: Path) -> None:
    """Attack two samples from the command line."""
    from click.testing import CliRunner

    import cloakonnx as ck
    from cloakonnx.cli.attack import command

    x, _ = samples(path)
    np.savez(path.with_suffix(".npz"), x=x, y=ck.Classifier(path).predict(x))
    words = [str(path), "--attack", "fgsm", "--eps", "4/255", "--data", str(path.with_suffix(".npz")), "--force"]
    found = CliRunner().invoke(command, [*words, "-o", str(path.with_suffix(".adv.npz"))])
    assert found.exit_code == 0, found.output
    print(found.output, file=sys.stderr)


def step(path: Path) -> None:
    """Run a model with masks on its weights, forward and back to the masks, twice, with other masks."""
    import cloakonnx as ck
    from cloakonnx.classifier.masked import MaskedClassifier
    from cloakonnx.gradient.losses import Loss
    from cloakonnx.selection.learn.places import first_masks

    x, y = samples(path)
    classifier = ck.Classifier(path, provider=ck.Provider("CPUExecutionProvider"))
    learner = MaskedClassifier(classifier, first_masks(classifier.model, "weight-channel"))
    for _ in range(2):
        learner.mask_gradients(x, y, loss=Loss.CE, by_input=True)
        learner.weights = {name: values * 1.01 for name, values in learner.weights.items()}


JOBS = {"load": nothing, "predict": predict, "fgsm": fgsm, "masks": step}


if __name__ == "__main__":
    main()
