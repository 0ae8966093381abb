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
from cloakonnx.errors import DifferentiationError, TapError, ZeroGradientError
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

    Attributes:
        passes_straight: Whether gradients go straight through rounding and quantisation: where there are no others.
    """

    def __init__(self, classifier: Classifier, masks: Sequence[Mask]) -> None:
        super().__init__(
            classifier.model,
            **{**classifier._settings, "provider": classifier.provider},
            masks=masks,
        )
        self.passes_straight = False

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds; see :class:`Classifier`."""
        return {**super().__getstate__(), "passes_straight": self.passes_straight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the model again; raises ModelError where the file has other bytes than it had."""
        super().__setstate__(state)
        self.passes_straight = state["passes_straight"]

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

    def mask_gradients(self, x: Value, given: NDArray[Any], *, loss: Loss, by_input: bool = False) -> MaskAnswer:
        """Return the loss of each sample and the gradient of their sum by each mask, and by the input if wanted.

        A graph with a fixed batch takes a whole number of batches only, for a filler would count.

        Args:
            x: The batch.
            given: What the loss takes of each sample: labels (N,), or (N, classes) soft targets or cotangents.
            loss: The loss.
            by_input: Whether to differentiate by the input too.
        """
        asked = self._asked(loss, by_input=by_input)
        graph = self._for(asked, x)
        name = graph.labels or graph.soft_targets or graph.cotangent
        assert name is not None  # each loss asks for its own
        assert graph.loss is not None
        outputs = [graph.logits, graph.loss, *(graph.mask_gradients[key] for key in self._weights)]
        outputs += [graph.gradient] if by_input else []
        size = self.fixed_batch or len(given)
        images = to_numpy(x) if size < len(given) else x
        answers = []
        for start in range(0, len(given), size):
            part = images if size == len(given) else images[start : start + size]
            feed = {name: self.sessions.wide(given[start : start + size])}
            answers.append(self._run(asked, part, outputs, feed))
        logits, losses = (np.concatenate([to_numpy(a[i]) for a in answers]).astype(np.float32) for i in (0, 1))
        sums = {
            key: np.sum([to_numpy(a[2 + i]).astype(np.float64) for a in answers], axis=0)
            for i, key in enumerate(self._weights)
        }
        found: Value | None = None
        if by_input:
            one = len(answers) == 1
            found = self.sessions.narrow(answers[0][-1] if one else np.concatenate([to_numpy(a[-1]) for a in answers]))
        return MaskAnswer(logits, losses, sums, found)

    def prepare_masks(self, loss: Loss, *, by_input: bool = False, sample: Sample = None) -> None:
        """Make the graph of the mask gradients; straight through rounding where they are 0 otherwise.

        Raises:
            TapError: the output does not depend on a tap, or not in a way that can be differentiated.
        """
        try:
            self.graph(self._asked(loss, by_input=by_input), sample)
        except (TapError, ZeroGradientError):
            self.passes_straight = True
            try:
                self.graph(self._asked(loss, by_input=by_input), sample)
                return
            except DifferentiationError:
                self.passes_straight = False
            raise

    def _asked(self, loss: Loss, *, by_input: bool) -> Asked:
        return Asked(loss, by_masks=True, by_input=by_input, straight_through=self.passes_straight)


def ones(place: Place, unit: str = FEATURE) -> Mask:
    """Return the mask of a granularity that changes nothing; raises TapError where the model leaves its size open."""
    axis = place.feature_axis if isinstance(place, Tap) else None
    return Mask(place.name, np.ones(granularity(unit).shape(place), np.float32), axis, unit)
