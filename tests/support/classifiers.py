"""Classifiers on the CPU, for tests of any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.graph.file.model import Model
from cloakonnx.runtime.provider import choose_provider

CPU = choose_provider("cpu")


def cpu(model: Model | str | Path, **options: Any) -> Classifier:
    """Return a classifier on the CPU; ``options`` are its own."""
    return Classifier(model, provider=CPU, **options)
