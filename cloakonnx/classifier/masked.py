"""A classifier whose masks change while it is attacked: inputs of its graphs, so one session serves every mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.answer import MaskAnswer
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.sessions import Asked, Sample
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.masks.granularity import Place, granularity
from cloakonnx.graph.masks.mask import FEATURE, Mask
from cloakonnx.graph.masks.taps import Tap
from cloakonnx.runtime.session import Value, to_numpy

Weights = dict[str, NDArray[np.float32]]
"""The weights of each mask, by its key."""


class MaskedClassifier(Classifier):
    """A classifier whose masks are inputs and can be set anew, with gradients by the masks; all 1 at first.

    Args:
        classifier: The classifier without masks.
        masks: The masks to begin with; see :func:`ones`.
    """

    def __init__(self, classifier: Classifier, masks: Sequence[Mask]) -> None:
        super().__init__(
            classifier.model,
            **{**classifier._settings, "provider": classifier.provider},
            masks=masks,
        )

    @property
    def rounds_in_use(self) -> bool:
        """False: a float16 model in use would have to be written anew for every step."""
        return False

    @property
    def decides_by_itself(self) -> bool:
        """False, for the same reason."""
        return False

    @property
    def fixed_batch(self) -> int | None:
        """How many samples the model takes at a time, where it fixes that."""
        return self.sessions.of(Asked())[1].fixed_batch

    @property
    def masks(self) -> tuple[Mask, ...]:
        """The masks that are set; raises MaskError where they hold what is no finite number."""
        return tuple(replace(mask, weights=self._weights[mask.key]) for mask in self._masks)

    @property
    def weights(self) -> Weights:
        """The masks that are set."""
        return {key: weights.astype(np.float32) for key, weights in self._weights.items()}

    @weights.setter
    def weights(self, weights: Mapping[str, NDArray[np.floating]]) -> None:
        self._weights = {t: weights[t].astype(np.float32).astype(w.dtype) for t, w in self._weights.items()}
        self.__dict__.pop("_own", None)

    def mask_gradients(self, x: Value, y: NDArray[np.int64]) -> MaskAnswer:
        """Return the cross-entropy of each sample and the gradient of their sum by each mask.

        A graph with a fixed batch takes a whole number of batches only, for a filler would count.
        """
        return self._pull_to_masks(Loss.CE, x, y)

    def pull_to_masks(self, x: Value, cotangent: NDArray[np.float32]) -> MaskAnswer:
        """Return the gradient of the sum of logits times ``cotangent`` (N, classes) by each mask; as above."""
        return self._pull_to_masks(Loss.COTANGENT, x, cotangent)

    def prepare_masks(self, loss: Loss, sample: Sample = None) -> None:
        """Make the graph of the mask gradients.

        Raises:
            TapError: the output does not depend on a tap, or not in a way that can be differentiated.
        """
        self.graph(Asked(loss, by_masks=True), sample)

    def _pull_to_masks(self, loss: Loss, x: Value, per_sample: NDArray[Any]) -> MaskAnswer:
        asked = Asked(loss, by_masks=True)
        graph = self._for(asked, x)
        name = graph.labels if loss is Loss.CE else graph.cotangent
        assert name is not None  # each loss asks for its own
        assert graph.loss is not None
        outputs = [graph.logits, graph.loss, *(graph.mask_gradients[key] for key in self._weights)]
        size = self.fixed_batch or len(per_sample)
        images = to_numpy(x) if size < len(per_sample) else x
        answers = []
        for start in range(0, len(per_sample), size):
            part = images if size == len(per_sample) else images[start : start + size]
            feed = {name: self.sessions.wide(per_sample[start : start + size])}
            answers.append([to_numpy(v) for v in self._run(asked, part, outputs, feed)])
        logits, losses = (np.concatenate([a[i] for a in answers]).astype(np.float32) for i in (0, 1))
        sums = {key: np.stack([a[2 + i] for a in answers]).astype(np.float64) for i, key in enumerate(self._weights)}
        return MaskAnswer(logits, losses, {key: np.asarray(parts.sum(axis=0)) for key, parts in sums.items()})


def ones(place: Place, unit: str = FEATURE) -> Mask:
    """Return the mask of a granularity that changes nothing; raises TapError where the model leaves its size open."""
    axis = place.feature_axis if isinstance(place, Tap) else None
    return Mask(place.name, np.ones(granularity(unit).shape(place), np.float32), axis, unit)
