"""What an interrupted learning goes on from: its state, in a folder beside the output."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.masked import Weights
from cloakonnx.errors import OutputError
from cloakonnx.files import write_npz, write_text
from cloakonnx.selection.learn.adam import Adam

_DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
_SETTINGS, _STATE = "settings.json", "state.npz"


@dataclass
class Tally:
    """Sums over the samples of the epoch so far."""

    loss: float = 0.0
    clean: int = 0
    adversarial: int = 0
    samples: int = 0


@dataclass
class State:
    """Everything that learning goes on from.

    Attributes:
        adam: Masks, moments and the number of steps taken.
        tally: Of the epoch at hand.
        curve: One record for each finished epoch.
        learned: The masks at the end of each.
    """

    adam: Adam
    tally: Tally = field(default_factory=Tally)
    curve: list[dict[str, Any]] = field(default_factory=list)
    learned: list[Weights] = field(default_factory=list)


def forget(output: Path) -> None:
    """Remove what was kept for an output, once that is written."""
    shutil.rmtree(_folder(output), ignore_errors=True)


def _folder(output: Path) -> Path:
    return output.absolute().parent / f".{output.name}.parts"


class Memory:
    """Keeps the state of one learning.

    Args:
        output: The file that it is for.
        record: Everything that the result depends on.
    """

    def __init__(self, output: Path, record: dict[str, Any]) -> None:
        self._folder = _folder(output)
        self._output = output
        self._record = json.dumps(record, sort_keys=True)
        self._holds_work = False

    @contextmanager
    def opened(self, *, resume: bool) -> Iterator[None]:
        """Make the folder, or with ``resume`` take the one that is there; where the block ends early, work stays.

        Raises:
            OutputError: it was left by other settings or data, or can't be made.
        """
        settings = self._folder / _SETTINGS
        if resume and settings.is_file():
            if settings.read_bytes() != self._record.encode():
                raise OutputError(
                    f"{self._folder} was left by a call with another model, other samples or settings; start again "
                    "without --resume"
                )
            self._holds_work = True
        else:
            self._make()
        try:
            yield
        except BaseException:
            if not self._holds_work:
                forget(self._output)
            raise

    def _make(self) -> None:
        forget(self._output)
        try:
            self._folder.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write {self._output}: {error.strerror or error}") from None
        write_text(self._folder / _SETTINGS, self._record)

    def save(self, state: State) -> None:
        """Keep the state, in place of the last one."""
        adam, tally = state.adam, state.tally
        arrays: dict[str, NDArray[Any]] = {}
        for index, tap in enumerate(adam.values):
            arrays[f"value{index}"] = adam.values[tap]
            arrays[f"first{index}"] = adam.first[tap]
            arrays[f"second{index}"] = adam.second[tap]
            for number, masks in enumerate(state.learned):
                arrays[f"learned{number}_{index}"] = masks[tap]
        rest = {"steps": adam.steps, "tally": vars(tally), "curve": state.curve, "epochs": len(state.learned)}
        write_npz(self._folder / _STATE, {**arrays, "rest": np.array(json.dumps(rest))})
        self._holds_work = True

    def load(self, state: State) -> None:
        """Bring a fresh state to where the kept one was; one that is missing or damaged leaves it fresh."""
        try:
            with np.load(self._folder / _STATE, allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in kept.files}
            rest = json.loads(str(arrays["rest"]))
            adam = Adam({tap: arrays[f"value{index}"] for index, tap in enumerate(state.adam.values)})
            for index, tap in enumerate(adam.values):
                adam.first[tap], adam.second[tap] = arrays[f"first{index}"], arrays[f"second{index}"]
            learned = [
                {tap: arrays[f"learned{number}_{index}"] for index, tap in enumerate(adam.values)}
                for number in range(rest["epochs"])
            ]
            adam.steps = int(rest["steps"])
            tally = Tally(**rest["tally"])
        except _DAMAGED:
            return
        state.adam, state.tally, state.curve, state.learned = adam, tally, list(rest["curve"]), learned
