"""A classifier with masks that change while it is attacked: inputs of its graphs, so one session serves every mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.victim import Victim
from cloakonnx.errors import TapError
from cloakonnx.gradient.differentiate import GradientGraph
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import Tap
from cloakonnx.graph.subgraphs.cut import Normalisation
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Session, Value, to_numpy

Weights = dict[str, NDArray[np.float32]]
"""The weights of the mask at each tap."""


@dataclass(frozen=True)
class MaskAnswer:
    """What a request for mask gradients gives.

    Attributes:
        logits: (N, classes) float32.
        loss: (N,) float32.
        gradients: For each tap, of the mask's shape, float64: the gradient of the sum of the losses.
    """

    logits: NDArray[np.float32]
    loss: NDArray[np.float32]
    gradients: dict[str, NDArray[np.float64]]


class MaskedVictim(Victim):
    """A classifier whose masks are inputs and can be set anew, with gradients by the masks; all 1 at first.

    Every attack on a Victim works on it, with the masks that are set.

    Args:
        model: The model.
        taps: Where the masks are.
        provider: Where it runs.
        elements: Whether a mask has a weight for every element of a sample, not one a feature.
        normalisation: From pixel space to the model's input.
        input_name: The data input, where there are several.
        output_name: The class scores, where there are several outputs.
        sample_shape: Shape of a sample in the model's layout.
        bounds: Smallest and largest value of pixel space.

    Raises:
        DifferentiationError, InferenceError: as Victim.
        TapError: the model leaves a tap's size open.
    """

    def __init__(
        self,
        model: Model,
        taps: Sequence[Tap],
        *,
        provider: Provider,
        elements: bool = False,
        normalisation: Normalisation | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
        sample_shape: tuple[int, ...] | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._by_mask: dict[Loss, tuple[GradientGraph, Session]] = {}
        super().__init__(
            model,
            provider=provider,
            normalisation=normalisation,
            input_name=input_name,
            output_name=output_name,
            sample_shape=sample_shape,
            bounds=bounds,
            masks=[
                Mask(tap.name, np.ones(_shape(tap, elements=elements), np.float32), tap.feature_axis) for tap in taps
            ],
        )
        self._in_use = None  # a float16 model in use would have to be written anew for every step
        self.fixed_batch = self._graph(None, targeted=False)[1].fixed_batch

    @property
    def masks(self) -> Weights:
        """The masks that are set."""
        return {tap: weights.astype(np.float32) for tap, weights in self._weights.items()}

    @masks.setter
    def masks(self, masks: Mapping[str, NDArray[Any]]) -> None:
        # Rounded as the masks of a file are, float64 models' too.
        self._weights = {t: masks[t].astype(np.float32).astype(w.dtype) for t, w in self._weights.items()}

    def mask_gradients(self, x: Value, y: NDArray[np.int64]) -> MaskAnswer:
        """Return the cross-entropy of each sample and the gradient of their sum by each mask.

        A graph with a fixed batch takes a whole number of batches only, for a filler would count.
        """
        return self._pull_to_masks(Loss.CE, x, y)

    def pull_to_masks(self, x: Value, cotangent: NDArray[np.float32]) -> MaskAnswer:
        """Return the gradient of the sum of logits times ``cotangent`` (N, classes) by each mask; as above."""
        return self._pull_to_masks(Loss.COTANGENT, x, cotangent)

    def pull_to_input(self, x: Value, cotangent: NDArray[np.float32]) -> Value:
        """Return the gradient of the sum of logits times ``cotangent`` (N, classes) by the input."""
        graph, session = self._graph(Loss.COTANGENT, targeted=False)
        assert graph.cotangent is not None  # it was asked for
        (gradient,) = self._run(session, graph, x, {graph.cotangent: self._wide(cotangent)}, [graph.gradient])
        self.counts.gradients += len(cotangent)
        return to_numpy(gradient).astype(np.float32) if self._is_double else gradient

    def by_mask(self, loss: Loss) -> tuple[GradientGraph, Session]:
        """Return the graph of the mask gradients and its session.

        Raises:
            TapError: the output does not depend on a tap, or not in a way that can be differentiated.
        """
        if loss not in self._by_mask:
            self._by_mask[loss] = self._built(loss=loss, wrt=(), mask_gradients=True)
        return self._by_mask[loss]

    def _pull_to_masks(self, loss: Loss, x: Value, per_sample: NDArray[Any]) -> MaskAnswer:
        graph, session = self.by_mask(loss)
        name = graph.labels if loss is Loss.CE else graph.cotangent
        assert name is not None  # each loss asks for its own
        assert graph.loss is not None
        outputs = [graph.logits, graph.loss, *(graph.mask_gradients[tap] for tap in self._taps)]
        size = session.fixed_batch or len(per_sample)
        images = to_numpy(x) if size < len(per_sample) else x
        answers = []
        for start in range(0, len(per_sample), size):
            part = images if size == len(per_sample) else images[start : start + size]
            image = to_numpy(part).astype(np.float64) if self._is_double else part
            feed = {graph.image: image, name: self._wide(per_sample[start : start + size]), **self._masks_fed(graph)}
            answers.append([to_numpy(v) for v in session.run(feed, outputs)])
        self.counts.gradients += len(per_sample)
        logits, losses = (np.concatenate([a[i] for a in answers]).astype(np.float32) for i in (0, 1))
        sums = {tap: np.stack([a[2 + i] for a in answers]).astype(np.float64) for i, tap in enumerate(self._taps)}
        return MaskAnswer(logits, losses, {tap: np.asarray(parts.sum(axis=0)) for tap, parts in sums.items()})

    def _wide(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.astype(np.float64) if self._is_double and values.dtype == np.float32 else values


def _shape(tap: Tap, *, elements: bool) -> tuple[int, ...]:
    shape = tap.shape[1:] if elements else (tap.features,)
    sizes = tuple(size for size in shape if isinstance(size, int))
    if len(sizes) < len(shape):
        what = "shape" if elements else "number of features"
        other = "; choose another tap, or --granularity channel" if elements else "; choose another tap"
        raise TapError(
            f"the model leaves the {what} of tap {tap.name!r} open, so the size of its mask is not known{other}"
        )
    return sizes
