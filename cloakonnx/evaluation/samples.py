"""Samples whose fate the masks turn: an attack wins against one of the two models, and none against the other.

A few of them are kept as they are, with the input that won, so that people can look at them. The file is an ``.npz``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.arrays import load_arrays
from cloakonnx.data.samples import Dataset
from cloakonnx.errors import DataError
from cloakonnx.files import write_npz
from cloakonnx.remote import local

FORMAT, VERSION = "cloakonnx.samples", 1

MOST = 6
"""How many of each kind are kept: the first in the order of the data, so that nobody picks."""

_SINGLE = {"format": "U", "version": "iu", "evaluation": "U", "eps": "f"}
_CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False)
class Turned:
    """Samples that one model loses to an attack and the other does not; K of them are kept.

    Samples that the losing model gets wrong without any attack do not count, nor those that only a control fooled:
    nobody tried its inputs on the other model.

    Attributes:
        index: (K,) int64, of the sample in the data.
        x: (K, ...) float32 pixels, the clean sample.
        adversarial: The same shape, the input that won.
        y: (K,) int64 labels; without an attack both models predict them.
        hardened: (K,) int64, what the hardened model predicts on the adversarial input.
        baseline: (K,) int64, what the baseline predicts on it.
        gained: (K,) bool, True where the baseline loses and the hardened model stands.
        counts: (2,) int64, how many were gained and lost in all.
    """

    index: NDArray[np.int64]
    x: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    y: NDArray[np.int64]
    hardened: NDArray[np.int64]
    baseline: NDArray[np.int64]
    gained: NDArray[np.bool_]
    counts: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Turned]) -> Turned:
        """Join batches, in order; of each kind the first :data:`MOST` are kept."""
        joined = {
            each.name: np.concatenate([getattr(part, each.name) for part in parts])
            for each in fields(cls)
            if each.name != "counts"
        }
        gained = joined["gained"]
        first = np.where(gained, np.cumsum(gained), np.cumsum(~gained)) <= MOST
        kept = {name: values[first] for name, values in joined.items()}
        return cls(**kept, counts=np.sum([part.counts for part in parts], axis=0, dtype=np.int64))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the attributes by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, eq=False)
class TurnedSamples:
    """What a file of samples holds.

    Attributes:
        evaluation: sha256 of the evaluation's file that they belong to.
        eps: The radius of the ball that they were attacked in, in pixel space.
        turned: The samples: images as (K, H, W, C), others as the model takes them.
    """

    evaluation: str
    eps: float
    turned: Turned

    @classmethod
    def of(cls, turned: Turned, dataset: Dataset, *, evaluation: str, eps: float) -> TurnedSamples:
        """Return samples in the model's layout as a file holds them."""
        x, adversarial = (_as_images(each, dataset) for each in (turned.x, turned.adversarial))
        return cls(evaluation, eps, replace(turned, x=x, adversarial=adversarial))

    @property
    def are_images(self) -> bool:
        """Whether the samples have two axes of pixels and 1 or 3 channels."""
        return self.turned.x.ndim == 4 and self.turned.x.shape[-1] in _CHANNELS

    def save(self, path: str | Path) -> None:
        """Write the file atomically: the same samples always give the same bytes.

        Raises:
            OutputError: it can't be written.
        """
        head = {"format": FORMAT, "version": VERSION, "evaluation": self.evaluation, "eps": self.eps}
        write_npz(
            local(path, writes=True),
            {**{name: np.array(value) for name, value in head.items()}, **self.turned.arrays()},
        )


def _as_images(x: NDArray[np.float32], dataset: Dataset) -> NDArray[np.float32]:
    """Return samples of the model's layout as (K, H, W, C) where they are images there or as they are stored."""
    channels = dataset.arrangement.channel_axis
    if x.ndim == 4 and x.shape[channels] in _CHANNELS:
        return np.moveaxis(x, channels, -1)
    stored = dataset.arrangement.undo(x, dataset.stored_shape)
    if stored.ndim == 4 and stored.shape[-1] in _CHANNELS:
        return stored
    if stored.ndim == 4 and stored.shape[1] in _CHANNELS:
        return np.moveaxis(stored, 1, -1)
    return x


def load_samples(path: str | Path) -> TurnedSamples:
    """Read what ``evaluate(keep=path)`` wrote.

    Raises:
        DataError: missing, damaged, or something else.
    """
    names = [each.name for each in fields(Turned)]
    found = load_arrays(local(path), ["format", "version"], optional=["evaluation", "eps", *names])
    if found["format"].dtype.kind != "U" or str(found["format"]) != FORMAT or not found["version"].shape == ():
        raise DataError(f"{path} holds no samples of an evaluation; 'cloakonnx evaluate --samples' writes them")
    if found["version"].dtype.kind not in "iu" or int(found["version"]) != VERSION:
        raise DataError(f"{path} has version {found['version']}, this cloakonnx reads {VERSION}; use the newer one")
    why = _fault(found, names)
    if why is not None:
        raise DataError(f"{path} is damaged: {why}; 'cloakonnx evaluate --samples' writes it again")
    turned = Turned(**{name: found[name] for name in names})
    return TurnedSamples(str(found["evaluation"]), float(found["eps"]), turned)


def _fault(found: Mapping[str, NDArray[Any]], names: Sequence[str]) -> str | None:
    """Return what is wrong with the arrays of a file."""
    missing = [name for name in ("evaluation", "eps", *names) if name not in found]
    if missing:
        return f"{', '.join(missing)} is missing"
    for name, kinds in _SINGLE.items():
        if found[name].shape != () or found[name].dtype.kind not in kinds:
            return f"{name} has type {found[name].dtype} and shape {found[name].shape}"
    count = len(found["y"]) if found["y"].ndim else 0
    shapes = dict.fromkeys(names, (count,)) | dict.fromkeys(("x", "adversarial"), found["x"].shape) | {"counts": (2,)}
    for name in names:
        wanted = np.float32 if name in ("x", "adversarial") else np.bool_ if name == "gained" else np.int64
        if found[name].shape != shapes[name] or found[name].dtype != wanted:
            return f"{name} has type {found[name].dtype} and shape {found[name].shape}"
    if found["x"].ndim < 2 or len(found["x"]) != count:
        return f"x has shape {found['x'].shape} with {count} labels"
    if not all(np.isfinite(found[name]).all() for name in ("x", "adversarial", "eps")):
        return "it has values that are no numbers"
    return None
