"""What an interrupted learning goes on from: its state, in the folder of unfinished work."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.masked import Weights
from cloakonnx.engine.folder import DAMAGED, Folder
from cloakonnx.selection.learn.adam import Adam

_STATE = "state.npz"


@dataclass
class Tally:
    """Sums over the samples of the epoch so far."""

    loss: float = 0.0
    start: int = 0
    adversarial: int = 0
    samples: int = 0


@dataclass
class State:
    """Everything that learning goes on from.

    Attributes:
        adam: Masks, moments and the number of steps taken.
        tally: Of the epoch at hand.
        curve: One record for each epoch whose masks were tried on the select part.
        learned: The masks at the end of these epochs, by number.
    """

    adam: Adam
    tally: Tally = field(default_factory=Tally)
    curve: list[dict[str, Any]] = field(default_factory=list)
    learned: dict[int, Weights] = field(default_factory=dict)


def save(folder: Folder, state: State) -> None:
    """Keep the state, in place of the last one; raises OutputError where that fails."""
    adam, tally = state.adam, state.tally
    arrays: dict[str, NDArray[Any]] = {}
    for index, tap in enumerate(adam.values):
        arrays[f"value{index}"] = adam.values[tap]
        arrays[f"first{index}"] = adam.first[tap]
        arrays[f"second{index}"] = adam.second[tap]
        for number, masks in state.learned.items():
            arrays[f"learned{number}_{index}"] = masks[tap]
    rest = {"steps": adam.steps, "tally": vars(tally), "curve": state.curve, "epochs": list(state.learned)}
    folder.write(_STATE, {**arrays, "rest": np.array(json.dumps(rest))})


def load(folder: Folder, state: State) -> None:
    """Bring a fresh state to where the kept one was; one that is missing or damaged leaves it fresh."""
    try:
        arrays = folder.read(_STATE)
        rest = json.loads(str(arrays["rest"]))
        adam = Adam({tap: arrays[f"value{index}"] for index, tap in enumerate(state.adam.values)})
        for index, tap in enumerate(adam.values):
            adam.first[tap], adam.second[tap] = arrays[f"first{index}"], arrays[f"second{index}"]
        learned = {
            int(number): {tap: arrays[f"learned{number}_{index}"] for index, tap in enumerate(adam.values)}
            for number in rest["epochs"]
        }
        adam.steps = int(rest["steps"])
        tally = Tally(**rest["tally"])
    except DAMAGED:
        return
    state.adam, state.tally, state.curve, state.learned = adam, tally, list(rest["curve"]), learned
