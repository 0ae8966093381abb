"""The same scores in plain numpy from raw ONNX Runtime activations; nothing of cloakonnx is used here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray


def activations(model: onnx.ModelProto, tap: str, input_name: str, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return a tap's values for the model's own inputs, as many at a time as its batch dimension says."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if tap not in {o.name for o in copy.graph.output}:
        copy.graph.output.append(onnx.ValueInfoProto(name=tap))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    batch = next(i for i in session.get_inputs() if i.name == input_name).shape[0]
    size = batch if isinstance(batch, int) else 16
    parts = []
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        fill = np.repeat(part[-1:], (size if isinstance(batch, int) else len(part)) - len(part), axis=0)
        (found,) = session.run([tap], {input_name: np.concatenate([part, fill])})
        parts.append(found[: len(part)].astype(np.float64))
    return np.concatenate(parts)


def by_feature(activation: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return (values, features)."""
    return np.moveaxis(activation, axis, -1).reshape(-1, activation.shape[axis])


def scores(
    clean: NDArray[np.float64], adversarial: NDArray[np.float64], axis: int, criterion: str
) -> NDArray[np.float64]:
    """Return each feature's score."""
    h, g = by_feature(clean, axis), by_feature(adversarial, axis)
    above = np.abs(g - h).sum(axis=0)
    if criterion == "deepcloak":
        return np.asarray(above)
    below = np.abs(h).sum(axis=0) if criterion == "relative" else len(h) * h.std(axis=0)
    return np.where(above == 0, 0.0, above / np.where(below == 0, np.nan, below))


def with_noise(images: NDArray[np.uint8], seed: int = 0) -> NDArray[np.uint8]:
    """Return images with seeded noise of up to 4 levels either way."""
    noise = np.random.default_rng(seed).integers(-4, 5, images.shape)
    adversarial: NDArray[np.uint8] = np.clip(images.astype(np.int64) + noise, 0, 255).astype(np.uint8)
    return adversarial


def relative_difference(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Return the largest difference over the wanted value; 0 where both are 0."""
    scale = np.where(wanted == 0, 1.0, np.abs(wanted))
    return float((np.abs(found - wanted) / scale).max())


CRITERIA: Sequence[str] = ("deepcloak", "relative", "standardised")
