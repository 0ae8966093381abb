"""Whether a sample's scores depend on the other samples of its batch, found by scoring a few in several batches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.declared import batch_axis, fixed_batch
from cloakonnx.errors import InferenceError, ModelError, ResourceError
from cloakonnx.graph.index.randomness import random_ops
from cloakonnx.runtime.session import filled_up

SAMPLES = 8
"""How many samples are scored alone, together and in another order."""

_NARROW = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
_USUAL, _COARSE = 1e-3, 1e-2
"""Shares of the scores' spread that rounding explains: in float32, and in the narrow types or to fixed levels."""

_SAME = 1e-5
"""Share of the spread below which another class is a tie, not a difference."""

_SIZES: tuple[int, ...] = (*range(2, 17), 32, 64)


class Settled(NamedTuple):
    """A classifier that scores each sample as it would alone.

    Attributes:
        classifier: The classifier as it was, or one that takes some samples at a time.
        notes: Why it is another one, for people; none where it is as it was.
    """

    classifier: Classifier
    notes: tuple[str, ...]


def settled(classifier: Classifier, x: NDArray[np.float32]) -> Settled:
    """Score the first samples alone, together and in another order, and settle how many go into a run.

    Args:
        classifier: The classifier.
        x: (N, ...) float32 pixels in the model's layout; the first :data:`SAMPLES` are used.

    Raises:
        InferenceError: the model gives another number of rows than samples, whatever their number.
        ModelError: the scores depend on the batch, and the file fixes its size above 1; or on what ran before.
    """
    _check_batch_axis(classifier)
    if classifier.at_a_time is not None or len(x) < 2:
        return Settled(classifier, ())
    x = x[:SAMPLES]
    together = _attempted(classifier, x)
    alone = [_attempted(classifier, each[None]) for each in x]
    if together is None or any(each is None for each in alone):
        return _of_a_size(classifier, x, takes_one=all(each is not None for each in alone))
    if _differ(classifier, together, classifier.scores(x)) is not None:
        _check_random(classifier)
        return Settled(classifier, ())
    wanted = np.concatenate([each for each in alone if each is not None])
    turned = classifier.scores(x[::-1])[::-1]
    found = max(_differ(classifier, wanted, each) or 0.0 for each in (together, turned))
    if not found:
        return Settled(classifier, ())
    size = fixed_batch(classifier.model, classifier.input_name, classifier.batch_axis)
    if size is not None:
        raise ModelError(
            f"{classifier.name}: the scores of a sample depend on the other samples of its batch (by {found:.2g} of "
            f"the scores' spread), and the input takes {size} samples at a time: export the model with a batch of 1 or "
            "an open one, in inference mode"
        )
    return _taking(
        classifier,
        1,
        "the scores of a sample depend on the other samples of its batch "
        f"(by {found:.2g} of the scores' spread on {len(x)} samples)",
    )


def _of_a_size(classifier: Classifier, x: NDArray[np.float32], *, takes_one: bool) -> Settled:
    """Settle for a model that takes some numbers of samples only: for one, or for the first other that fits.

    Raises:
        InferenceError: it gives another number of rows than samples, whatever their number.
    """
    if takes_one:
        return _taking(classifier, 1, "it does not give a row of scores for each of several samples")
    size = next((size for size in _SIZES if _fits(classifier, x, size)), None)
    if size is None:
        scores = classifier.scores(x)
        raise InferenceError(
            f"output {classifier.output_name!r} has shape {scores.shape} for {len(x)} samples, but not one row of "
            "class scores for each of another number; a classifier gives one row of class scores a sample"
        )
    return _taking(classifier, size, f"it takes {size} samples at a time, although its input is open")


def _fits(classifier: Classifier, x: NDArray[np.float32], size: int) -> bool:
    """Return whether a model takes a number of samples and scores each as in a batch of its copies."""
    together = _attempted(classifier, filled_up(x[:size], size))
    if together is None:
        return False
    copies = [classifier.scores(np.repeat(each[None], size, axis=0))[:1] for each in x[:size]]
    return _differ(classifier, np.concatenate(copies), together[: len(copies)]) is None


def _check_random(classifier: Classifier) -> None:
    """Raise ModelError for a model whose scores change from run to run although it draws no random numbers."""
    if not random_ops(classifier.model.proto, classifier.output_name):
        raise ModelError(
            f"{classifier.name} gives other scores when it is run again on the same samples, and draws no random "
            "numbers: it changes while it runs (BatchNormalization in training mode?); export it in inference mode"
        )


def _check_batch_axis(classifier: Classifier) -> None:
    """Raise ModelError where nothing tells which axis of the input counts samples, or the input has no such axis."""
    value = classifier.model.input(classifier.input_name)
    dims = value.type.tensor_type.shape.dim
    shape = ", ".join(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims)
    asked = classifier.asked_axis
    if asked is not None:
        if not 0 <= asked < max(len(dims), 1):
            raise ModelError(
                f"{{batch_axis}} {asked}: input {value.name!r} of {classifier.name} has shape ({shape})",
                parameter="batch_axis",
            )
        return
    if batch_axis(classifier.model, *classifier.asked_names) is None:
        opened = next(axis for axis, dim in enumerate(dims) if dim.dim_value <= 0)
        raise ModelError(
            f"input {value.name!r} of {classifier.name} has shape ({shape}): its first axis is fixed at "
            f"{dims[0].dim_value} and axis {opened} is open, and the output does not tell which of them counts "
            f"samples; say so with {{batch_axis}} {opened} or {{batch_axis}} 0",
            parameter="batch_axis",
        )


def check_batch_first(classifier: Classifier, what: str) -> None:
    """Raise ModelError where another axis of the input than the first counts samples: tensors inside may differ."""
    if classifier.batch_axis:
        raise ModelError(
            f"{what} takes models whose batch is the first axis of the input; that of {classifier.name} is axis "
            f"{classifier.batch_axis}, and tensors inside may have it anywhere: export the model with the batch first"
        )


def _taking(classifier: Classifier, size: int, why: str) -> Settled:
    samples = "each sample was scored alone" if size == 1 else f"samples were scored {size} at a time"
    return Settled(classifier.changed(at_a_time=size), (f"{classifier.name}: {why}; {samples}",))


def _attempted(classifier: Classifier, x: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return the scores of some samples; None where the model does not take as many, or gives other rows."""
    try:
        return classifier.scores(x)
    except ResourceError:  # nothing that the model's shapes tell
        raise
    except InferenceError:
        return None


def _differ(classifier: Classifier, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float | None:
    """Return how far scores are apart, as a share of their spread; None where rounding or a tie explains it."""
    if not np.array_equal(np.isnan(wanted), np.isnan(found)):
        return np.inf
    finite = np.isfinite(wanted) & np.isfinite(found)
    if not finite.any():
        return None
    spread = float(np.ptp(wanted[finite])) or 1.0
    share = float(np.abs(wanted[finite].astype(np.float64) - found[finite]).max()) / spread
    others = (classifier.task.decide(wanted) != classifier.task.decide(found)).any()
    beyond = share > _USUAL and not (share <= _COARSE and _is_coarse(classifier))
    return share if beyond or (others and share > _SAME) else None


def _is_coarse(classifier: Classifier) -> bool:
    """Return whether a model computes in a narrow type, or rounds data to levels that do not depend on them."""
    model = classifier.model
    constants = model.structure.constants
    return model.input(classifier.input_name).type.tensor_type.elem_type in _NARROW or any(
        node.op_type == "QuantizeLinear" and node.input[0] not in constants and constants.issuperset(node.input[1:])
        for node in model.proto.graph.node
    )
