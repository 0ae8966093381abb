"""APGD-T beside torchattacks' from the same starts: the same samples are fooled, with one check of the peer mended.

torchattacks 3.5.1, as the code that the authors published, compares the loss after the first step with entry -1 of the
losses, which is still 0, where condition 1 (arXiv 2003.01690, section 3.3) has the loss of the start. The targeted DLR
loss is negative until a sample is fooled, so a first step never counts as progress there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.methods.apgd import APGDT
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.runtime.provider import choose_provider
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.peers.attacks.test_evaluate_and_autoattack import network

torchattacks = pytest.importorskip("torchattacks")
EPS = 0.125
CLASSES = 10


def right_ones() -> tuple[NDArray[np.float32], NDArray[np.int64], Victim]:
    """Return the first images that are classified as labelled, and what classifies them."""
    x, y = (each[:100] for each in digits_arrays())
    classifier = Classifier(DIGITS, provider=choose_provider("cpu"))
    classifier.prepare(x.shape[1:])
    victim = Victim(classifier)
    right = victim.predict(x) == y
    return x[right], y[right].astype(np.int64), victim


def by_torchattacks(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    steps: int,
    seed: int,
    mended: bool,
    patch: pytest.MonkeyPatch,
) -> NDArray[np.bool_]:
    """Return (N,) which samples torchattacks' APGD-T fools from the starts that ours takes."""
    net = network()
    peer: Any = torchattacks.APGDT(net, norm="Linf", eps=EPS, steps=steps, n_classes=CLASSES)
    loss_of, starts = peer.dlr_loss_targeted, []

    def loss(logits: torch.Tensor, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = loss_of(logits, y, target)
        starts.append(found.detach().numpy())
        return found

    def oscillates(losses: Any, last: int, count: int, best: Any, k3: float) -> Any:
        whole = np.concatenate([starts[0][None], losses[: last + 1]])
        return (np.diff(whole[-count - 1 :], axis=0) > 0).sum(axis=0) <= count * k3

    patch.setattr(peer, "dlr_loss_targeted", loss)
    if mended:
        patch.setattr(peer, "check_oscillation", oscillates)
    standing = np.ones(len(x), np.bool_)
    for rank in range(CLASSES - 1):
        rows = np.flatnonzero(standing)
        starts.clear()
        edge = ball("linf", EPS).edge(Stream.of(seed, "apgd-t", rank, rows), x[rows])
        share = torch.from_numpy((edge.astype(np.float64) - x[rows]) / EPS).float()
        patch.setattr(torch, "rand", lambda *_, share=share, **__: (share + 1) / 2)
        peer.target_class = rank + 2  # the label is the most likely class
        held = peer.attack_single_run(torch.from_numpy(x[rows]), torch.from_numpy(y[rows]))[1].numpy()
        standing[rows[~held]] = False
    return ~standing


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [5, 25])
def test_the_same_samples_are_fooled(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, victim = right_ones()
    threads, as_is = torch.get_num_threads(), 0
    torch.set_num_threads(1)  # faster for so small a network
    for seed in range(2):
        ours = APGDT(eps=EPS, max_iter=steps, seed=seed).run(victim, x, y).success
        found = by_torchattacks(x, y, steps=steps, seed=seed, mended=True, patch=monkeypatch)
        np.testing.assert_array_equal(ours, found)
        assert 20 <= ours.sum() <= len(x) - 20  # where all or none are fooled, nothing is compared
        found = by_torchattacks(x, y, steps=steps, seed=seed, mended=False, patch=monkeypatch)
        as_is += int((ours != found).sum())
    torch.set_num_threads(threads)
    assert (as_is > 0) == (steps == 5)  # with few steps the check decides; or the mended one would show nothing
