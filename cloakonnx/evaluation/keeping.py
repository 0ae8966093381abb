"""Keeps what was found on each batch while an evaluation runs, so that an interrupted one can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data import Batch, Checkpoints
from cloakonnx.evaluation.result import Stage
from cloakonnx.evaluation.tally import Found, FoundAtEps, FoundOfModel, Outcomes
from cloakonnx.graph import Model, file_sha256, read_masks

_FOUND = "found"


class Keeper:
    """Finds what a batch comes to, or takes what an interrupted evaluation has found.

    Args:
        checkpoints: The finished batches; None to keep nothing.
        name: Of the samples' source, for messages.
    """

    def __init__(self, checkpoints: Checkpoints | None, *, name: str) -> None:
        self._checkpoints, self._name = checkpoints, name
        self._number = 0

    def found(self, batch: Batch, find: Callable[[], Found]) -> Found:
        """Return what the next batch comes to.

        Raises:
            DataError: the evaluation that is resumed had other samples.
            OutputError: it can't be written.
        """
        number, kept = self._number, self._checkpoints
        self._number += 1
        if kept is None:
            return find()
        if kept.holds(number, batch, name=self._name):
            return _read(str(kept.read(number, _FOUND)))
        found = find()
        kept.save(number, batch, {_FOUND: np.array(_text(found))})
        return found


def model_digests(model: Model) -> dict[str, str]:
    """Return the sha256 of a model's file, of each file of external data, and of each mask: one in memory has them."""
    folder = model.folder
    external = {} if folder is None else {name: file_sha256(folder / name) for name in model.external_files}
    masks = {f"mask of {m.tap}": hashlib.sha256(m.weights.tobytes()).hexdigest() for m in read_masks(model)}
    return {model.name: model.sha256, **external, **masks}


def _text(found: Found) -> str:
    return json.dumps(asdict(found), default=lambda outcomes: outcomes.astype(int).tolist())


def _read(text: str) -> Found:
    content = json.loads(text)
    return Found(
        _outcomes(content["clean"]),
        _outcomes(content["clean_baseline"]),
        tuple(map(_outcomes, content["clean_random"])),
        tuple(map(_read_at_eps, content["at"])),
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
