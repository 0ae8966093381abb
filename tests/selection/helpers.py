"""The sample classifier on digits, with data to learn masks on."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.graph.file.model import Model, load
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.learn.learn import learn
from cloakonnx.selection.learn.recipe import Recipe
from tests.attacks.helpers import DIGITS, ROOT, digits_arrays
from tests.support.classifiers import cpu

CPU = choose_provider("cpu")
EPS = 2 / 16
QUICK = Recipe(eps=EPS, budget=0.04, epochs=2, batch_size=50, learning_rate=0.05)


@cache
def model() -> Model:
    return load(DIGITS)


@cache
def training_arrays() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    spec = importlib.util.spec_from_file_location("samples_digits", ROOT / "samples" / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parts = list(module.train())
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def dataset(x: NDArray[Any], y: NDArray[np.int64] | None, name: str = "digits") -> Dataset:
    return Dataset(ArraySource(name, x, y), Preprocessing(), input_shape(model()), classes=10)


def learning_data(count: int = 300) -> Dataset:
    x, y = training_arrays()
    return dataset(x[:count], y[:count], "train")


def select_data(count: int = 150) -> Dataset:
    x, y = digits_arrays()
    return dataset(x[:count], y[:count], "select")


def learned(recipe: Recipe = QUICK, **options: Any) -> Analysis:
    options = {"select": select_data(60), "over_budget": True, "samples": learning_data(150)} | options
    return learn(cpu(model()), recipe=recipe, **options)


class StoppedError(Exception):
    """As if killed."""
