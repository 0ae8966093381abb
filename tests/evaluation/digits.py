"""What the tests of evaluations on the sample digits share."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper

from cloakonnx.attacks.presets import plan
from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.results import Robustness
from cloakonnx.graph.file.model import Model, load_bytes
from cloakonnx.preprocessing import Preprocessing
from tests.attacks.helpers import DIGITS, ROOT, digits_arrays
from tests.support.classifiers import cpu

SCHEMA = json.loads((ROOT / "docs" / "evaluation.schema.json").read_text(encoding="utf-8"))
EPS = (1 / 16, 2 / 16)
COUNT = 48


def evaluated(model: Model, *, count: int = COUNT, **options: Any) -> Evaluation:
    return evaluate(cpu(model), dataset(model, count), **{"eps": EPS[1:], **options})


def dataset(model: Model, count: int, *, labels: bool = True) -> Dataset:
    x, y = digits_arrays()
    source = ArraySource("digits.npz", x[:count], y[:count] if labels else None)
    return Dataset(source, Preprocessing(), input_shape(model), classes=10)


def sides(found: Evaluation) -> list[Robustness]:
    return [side for each in found.results for side in (each.hardened, each.baseline)]


def quantised() -> Model:
    """The sample model behind rounding, less a trace of the input: its gradient points backwards. A false defence."""
    made = onnx.load(DIGITS)
    entry = made.graph.input[0].name
    for node in made.graph.node:
        for i, name in enumerate(node.input):
            if name == entry:
                node.input[i] = "levels"
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array(16, np.float32), "sixteen"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.001, np.float32), "trace"))
    steps = [
        helper.make_node("Mul", [entry, "sixteen"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Div", ["rounded", "sixteen"], ["steps"]),
        helper.make_node("Mul", [entry, "trace"], ["slight"]),
        helper.make_node("Sub", ["steps", "slight"], ["levels"]),
    ]
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*steps, *nodes])
    return load_bytes(made.SerializeToString())


@cache
def known(name: str) -> tuple[str, ...]:
    return tuple(each.name for each in plan(name, eps=0.1))


def flat_data(model: Model) -> Dataset:
    x = np.random.default_rng(0).random((10, 12)).astype(np.float32)
    return Dataset(ArraySource("flat.npz", x, np.arange(10) % 3), Preprocessing(), input_shape(model), classes=3)
