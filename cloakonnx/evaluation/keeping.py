"""Keeps what was found on each batch while an evaluation runs, so that an interrupted one can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.batch import Batch
from cloakonnx.engine.folder import Checkpoints
from cloakonnx.evaluation.outcomes import Found, FoundAtEps, FoundOfModel, Outcomes
from cloakonnx.evaluation.results import Stage
from cloakonnx.evaluation.samples import MOST, Turned
from cloakonnx.graph.file.diff import external_digests
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.strip import read_masks

_FOUND = "found"
_TURNED = tuple(each.name for each in fields(Turned))


class Keeper:
    """Finds what a batch comes to, or takes what an interrupted evaluation has found.

    Args:
        checkpoints: The finished batches; None to keep nothing.
        name: Of the samples' source, for messages.
        samples: Whether samples that were gained and lost are kept, too, with or without checkpoints.

    Attributes:
        room: How many samples, gained and lost, are still to be kept; None where none are.
    """

    def __init__(self, checkpoints: Checkpoints | None, *, name: str, samples: bool = False) -> None:
        self._checkpoints, self._name = checkpoints, name
        self.room: tuple[int, int] | None = (MOST, MOST) if samples else None
        self._number = 0

    def found(self, batch: Batch, find: Callable[[tuple[int, int] | None], Found]) -> Found:
        """Return what the next batch comes to; ``find`` is told the :attr:`room`.

        Raises:
            DataError: the evaluation that is resumed had other samples.
            OutputError: it can't be written.
        """
        found = self._found(batch, find)
        if self.room is not None and found.turned is not None:
            gained = int(found.turned.gained.sum())
            self.room = self.room[0] - gained, self.room[1] - (len(found.turned.gained) - gained)
        return found

    def _found(self, batch: Batch, find: Callable[[tuple[int, int] | None], Found]) -> Found:
        number, kept = self._number, self._checkpoints
        self._number += 1
        if kept is None:
            return find(self.room)
        if kept.holds(number, batch, name=self._name):
            found = _read(str(kept.read(number, _FOUND)))
            if self.room is None:
                return found
            return replace(found, turned=Turned(**{key: kept.read(number, key) for key in _TURNED}))
        found = find(self.room)
        turned = {} if found.turned is None else found.turned.arrays()
        kept.save(number, batch, {_FOUND: np.array(_text(found)), **turned})
        return found


def model_digests(model: Model) -> dict[str, str]:
    """Return the sha256 of a model's file, of each file of external data, and of each mask: one in memory has them."""
    masks = {f"mask of {m.tap}": hashlib.sha256(m.weights.tobytes()).hexdigest() for m in read_masks(model)}
    return {model.name: model.sha256, **external_digests(model), **masks}


def _text(found: Found) -> str:
    return json.dumps(asdict(replace(found, turned=None)), default=lambda outcomes: outcomes.astype(int).tolist())


def _read(text: str) -> Found:
    content = json.loads(text)
    return Found(
        _outcomes(content["clean"]),
        _outcomes(content["clean_baseline"]),
        tuple(map(_outcomes, content["clean_random"])),
        tuple(map(_read_at_eps, content["at"])),
        (int(content["unscored"][0]), int(content["unscored"][1])),
    )


def _read_at_eps(content: dict[str, Any]) -> FoundAtEps:
    hardened, baseline = (_read_model(content[key]) for key in ("hardened", "baseline"))
    random = tuple(map(_outcomes, content["random_masks"]))
    static, beside = (_outcomes(content[key]) for key in ("static", "static_baseline"))
    return FoundAtEps(static, beside, hardened, baseline, random)


def _read_model(content: dict[str, Any]) -> FoundOfModel:
    robust, noise, control = (_outcomes(content[key]) for key in ("robust", "noise", "control"))
    return FoundOfModel(robust, noise, control, tuple(Stage(**stage) for stage in content["stages"]))


def _outcomes(values: list[int]) -> Outcomes:
    found: NDArray[np.bool_] = np.array(values, np.bool_)
    return found
