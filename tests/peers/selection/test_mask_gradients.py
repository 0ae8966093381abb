"""One step's mask gradients beside torch's autograd on the same network, masks of features and of elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.masks.taps import activation_taps
from cloakonnx.graph.masks.weights import list_weights
from cloakonnx.runtime.provider import choose_provider

DIGITS = Path(__file__).parents[3] / "samples" / "digits_cnn.onnx"


def masked(x: Tensor, *, after: Sequence[Tensor] = (), on: Mapping[str, Tensor] | None = None) -> Tensor:
    """The sample classifier in torch, in the precision of ``x``.

    Args:
        x: The samples.
        after: A factor for what each ReLU gives.
        on: A factor for each of some weights, by name.
    """
    graph = onnx.load(DIGITS).graph
    weights = {t.name: torch.tensor(numpy_helper.to_array(t)).to(x.dtype) for t in graph.initializer}
    weights = {name: value * (on or {}).get(name, 1) for name, value in weights.items()}
    rest = iter(after)
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            x = functional.conv2d(
                x, weights[node.input[1]], weights[node.input[2]], attributes["strides"], attributes["pads"][:2]
            )
        elif node.op_type == "Relu":
            x = functional.relu(x) * (next(rest) if after else 1)
        elif node.op_type == "Flatten":
            x = x.flatten(1)
        elif node.op_type == "Gemm":
            assert attributes.get("transB") == 1
            x = functional.linear(x, weights[node.input[1]], weights[node.input[2]])
        else:
            raise AssertionError(node.op_type)
    return x


@pytest.mark.parametrize("unit", ["kernel", "weight", "output-channel", "input-channel"])
def test_mask_gradients_on_weights(unit: str) -> None:
    """Each layer's weight times its mask, by torch's autograd in float64."""
    classifier = Classifier(DIGITS, provider=choose_provider("cpu"))
    under = MaskedClassifier(classifier, [ones(place, unit) for place in list_weights(classifier.model)])
    rng = np.random.default_rng(0)
    under.weights = {key: rng.uniform(0.2, 1.5, mask.shape) for key, mask in under.weights.items()}
    x, y = rng.random((20, 1, 8, 8), np.float32), rng.integers(0, 10, 20)
    found = under.mask_gradients(x, y, loss=Loss.CE)
    leaves = {m.key: torch.tensor(m.weights.astype(np.float64), requires_grad=True) for m in under.masks}
    by_weight = {mask.tap: leaves[mask.key] for mask in under.masks}
    logits = masked(torch.tensor(x).double(), on=by_weight)
    functional.cross_entropy(logits, torch.tensor(y), reduction="sum").backward()
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        np.testing.assert_allclose(found.gradients[key], leaf.grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("elements", [False, True])
def test_mask_gradients(elements: bool) -> None:
    classifier = Classifier(DIGITS, provider=choose_provider("cpu"))
    taps = activation_taps(classifier.model)
    under = MaskedClassifier(classifier, [ones(tap, "element" if elements else "feature") for tap in taps])
    rng = np.random.default_rng(0)
    under.weights = {tap: rng.uniform(0.2, 1.5, mask.shape) for tap, mask in under.weights.items()}
    x, y = rng.random((20, 1, 8, 8), np.float32), rng.integers(0, 10, 20)
    found = under.mask_gradients(x, y, loss=Loss.CE)
    forms = [(-1, *(1,) * (len(tap.shape) - 2)) if not elements else under.weights[tap.name].shape for tap in taps]
    leaves = [
        torch.tensor(under.weights[tap.name].reshape(form), requires_grad=True)
        for tap, form in zip(taps, forms, strict=True)
    ]
    loss = functional.cross_entropy(masked(torch.tensor(x), after=leaves), torch.tensor(y), reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(found.loss, loss.detach().numpy(), rtol=1e-4, atol=1e-6)
    for tap, leaf in zip(taps, leaves, strict=True):
        assert leaf.grad is not None
        wanted = leaf.grad.numpy().reshape(under.weights[tap.name].shape)
        np.testing.assert_allclose(found.gradients[tap.name], wanted, rtol=1e-3, atol=1e-4)
