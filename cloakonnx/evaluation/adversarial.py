"""Adversarial inputs of an evaluation as files: those that won against the model, and those made elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import Norm, ball
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.arrays import load_arrays
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.given import Samples
from cloakonnx.data.samples import Dataset, SamplesLike
from cloakonnx.errors import DataError
from cloakonnx.evaluation.outcomes import Found
from cloakonnx.evaluation.per_sample import PerSample
from cloakonnx.evaluation.trial import Inputs
from cloakonnx.files import write_npz
from cloakonnx.remote import local
from cloakonnx.text import eps_text

GIVEN = "given inputs"
"""Name of the stage that tries inputs made elsewhere."""

_WITHIN = 1 + 1e-5
"""Of eps: rounding may carry an input a little out of its ball."""
_BATCH = 256


def save_won(path: Path, found: Found, dataset: Dataset, samples: PerSample, *, norm: Norm) -> None:
    """Write every input that won against the model, of every eps, as an ``.npz``.

    The arrays, a row for each input: ``x`` (K, ...) float32 as the samples are stored, ``y`` (K,) int64 labels,
    ``index`` (K,) int64 of the sample in the data, ``attack`` (the stage that won), ``eps``, ``norm``,
    ``predicted`` and ``adversarial_predicted`` (classes before and after), and ``name`` where samples are files.

    Raises:
        OutputError: it can't be written.
    """
    index, x, after, attack, eps = [], [], [], [], []
    for at, outcomes in zip(found.at, samples.outcomes, strict=True):
        won = at.hardened.won
        assert won is not None  # kept where they are saved
        index.append(won.index)
        x.append(dataset.arrangement.undo(won.x, dataset.stored_shape))
        after.append(won.predicted)
        attack.append(np.array(outcomes)[won.index])
        eps.append(np.full(len(won.index), at.eps))
    rows = np.concatenate(index)
    arrays = {
        "x": np.concatenate(x),
        "y": found.labels[rows],
        "index": rows,
        "attack": np.concatenate(attack),
        "eps": np.concatenate(eps),
        "norm": np.full(len(rows), norm),
        "predicted": found.decided[0][rows],
        "adversarial_predicted": np.concatenate(after),
        **({"name": np.array(samples.names)[rows]} if samples.names else {}),
    }
    write_npz(path, arrays)


@dataclass(frozen=True, eq=False)
class GivenInputs:
    """Inputs that were made elsewhere, any number of one sample.

    Attributes:
        name: Name of their source, for messages.
        index: (K,) int64, the sample that each was made from.
        x: (K, ...) float32 pixels in the model's layout.
    """

    name: str
    index: NDArray[np.int64]
    x: NDArray[np.float32]

    @classmethod
    def of(cls, adversarial: SamplesLike, clean: Dataset, classifier: Classifier) -> GivenInputs:
        """Read inputs and fit them to the model.

        Args:
            adversarial: The inputs, in the order of the samples, or an ``.npz`` with an array ``index`` of the sample
                that each was made from.
            clean: The samples.
            classifier: The model.

        Raises:
            DataError: another shape than the samples', another number without ``index``, or an index of no sample.
        """
        fitted = Dataset.of(adversarial, classifier)
        name = fitted.source.name
        x = np.concatenate([batch.x for batch in fitted.batches(_BATCH)])
        if x.shape[1:] != clean.sample_shape:
            raise DataError(
                f"{name} has inputs of shape {x.shape[1:]}, {clean.source.name} samples of {clean.sample_shape}"
            )
        count = clean.count()
        index = _index(adversarial)
        if index is None:
            if count is not None and len(x) != count:
                raise DataError(
                    f"{name} has {len(x)} inputs for {count} samples; save the number of each input's sample, from 0 "
                    "on, as an array 'index' beside x"
                )
            index = np.arange(len(x))
        if index.dtype.kind not in "iu" or index.shape != (len(x),):
            raise DataError(
                f"{name}: index has type {index.dtype} and shape {index.shape}, not a number for each input"
            )
        low, high = int(index.min()), int(index.max())
        if low < 0 or (count is not None and high >= count):
            raise DataError(f"{name}: index has {low if low < 0 else high}, but there are {count} samples, from 0 on")
        return cls(name, index.astype(np.int64), x)

    @property
    def sha256(self) -> str:
        """Of the inputs and their samples' numbers."""
        return hashlib.sha256(self.index.tobytes() + np.ascontiguousarray(self.x).tobytes()).hexdigest()

    def _of_batch(self, batch: LabelledBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows of a batch that there are inputs of, with the inputs; a row may be there several times."""
        here = np.isin(self.index, batch.indices)
        return np.searchsorted(batch.indices, self.index[here]), self.x[here]

    def sizes(self, batch: LabelledBatch, norm: Norm) -> NDArray[np.float64]:
        """Return the sizes of the changes of a batch's inputs."""
        rows, x = self._of_batch(batch)
        return ball(norm, 0.0).measure(x - batch.x[rows])

    def inside(self, batch: LabelledBatch, eps: float, norm: Norm) -> Inputs:
        """Return the inputs that lie within a ball around the samples of a batch, each row once in an entry."""
        rows, x = self._of_batch(batch)
        within = ball(norm, eps).measure(x - batch.x[rows]) <= eps * _WITHIN
        rows, x = rows[within], x[within]
        return [(rows[turn], x[turn]) for turn in _turns(rows)]

    def note(self, sizes: NDArray[np.float64], eps: Sequence[float]) -> str:
        """Say how many of the inputs lie within each ball."""
        within = [
            f"{int((sizes <= each * _WITHIN).sum())} of {len(sizes)} inputs lie within eps {eps_text(each)}"
            for each in eps
        ]
        return f"{self.name}: {', '.join(within)} and are tried (the largest change is {sizes.max(initial=0.0):.4g})"


def _index(adversarial: SamplesLike) -> NDArray[np.int64] | None:
    """Return the array ``index`` of an ``.npz``; None where there is none."""
    path = adversarial.given if isinstance(adversarial, Samples) else adversarial
    if not isinstance(path, (str, PathLike)) or local(path).suffix.lower() != ".npz":
        return None
    return load_arrays(local(path), (), optional=("index",)).get("index")


def _turns(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the places of rows in groups that have each row once at most."""
    seen: dict[int, int] = {}
    turns: list[list[int]] = []
    for place, row in enumerate(map(int, rows)):
        turn = seen.get(row, 0)
        seen[row] = turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(place)
    return [np.array(each, np.int64) for each in turns]
