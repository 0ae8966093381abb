"""A small real classifier with its data, and the two hardenings that the demonstration makes of it.

The classifier is the repository's sample: a CNN of 38,282 weights. The images are scikit-learn's handwritten digits
(UCI "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak 1998, CC BY 4.0, doi 10.24432/C50P49): 1,797
of 8x8 pixels with levels from 0 to 16, divided by 16 here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import open_source
from cloakonnx.errors import OutputError
from cloakonnx.files import atomic, check_folder, check_output, write_npz
from cloakonnx.pipeline.harden import Task
from cloakonnx.pipeline.settings import HardenSettings, Method
from cloakonnx.remote import local
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.text import parse_number
from cloakonnx.urls import url_of

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[float], None]]]
"""Takes the name of a stage and its total; gives what is called with the amount of work that is done."""

EPS_TEXT = "2/16"
"""Radius of the L-infinity ball: two of the sixteen levels of a pixel."""

MODEL = "model.onnx"
_LEVELS = 16
_SCORED, _SELECTED = 500, 200
"""Training images in ``clean.npz``, and test images in ``val.npz``."""


@dataclass(frozen=True)
class Act:
    """One hardening of the sample.

    Attributes:
        title: What it shows.
        method: How the masks are made.
        data: The file to learn or score on.
        folder: Where its results go, inside the demonstration's folder.
    """

    title: str
    method: Method
    data: str
    folder: str

    @property
    def command(self) -> str:
        """The command line that does the same in the demonstration's folder."""
        words = ["cloakonnx harden", MODEL, "--data", self.data, "--select-data val.npz --report-data test.npz"]
        words += ["--eps", EPS_TEXT]
        return " ".join(words if self.method == "learn" else [*words, "--method", self.method, "-o", self.folder])

    def task(self, folder: Path, *, progress: Progress = lambda what, total: nullcontext(lambda done: None)) -> Task:
        """Return the hardening, ready to run on the files of :func:`write_sample`."""
        classifier = Classifier(folder / MODEL, provider=choose_provider("cpu"))

        def samples(name: str) -> Dataset:
            return Dataset.of(open_source(folder / name), classifier)

        return Task(
            classifier,
            samples(self.data),
            HardenSettings(eps=(parse_number(EPS_TEXT),), method=self.method),
            select=samples("val.npz"),
            report=samples("test.npz"),
            output=folder / self.folder,
            observer=_OnlyProgress(progress),
            command=self.command,
        )


ACTS = (
    Act("Masks that cloakonnx learns: a constant for each weight", "learn", "train.npz", "model-hardened"),
    Act("DeepCloak's mask: remove the features that attacks move most", "score", "clean.npz", "model-deepcloak"),
)


@dataclass(frozen=True)
class _OnlyProgress:
    """Passes on the progress of a hardening's stages, and drops its lines of text."""

    progress: Progress

    def stage(self, name: str, number: int, count: int, *, cached: bool) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""


def write_sample(folder: str | Path, *, force: bool = False) -> None:
    """Write the model and its data: ``model.onnx``, ``train.npz``, ``val.npz``, ``test.npz`` and ``clean.npz``.

    Args:
        folder: Where; made if it is missing.
        force: Whether to overwrite files of these names.

    Raises:
        OutputError: the folder is not empty and ``force`` is not given, or it can't be written.
    """
    folder = local(folder, writes=True)
    if url_of(folder) is not None:
        raise OutputError(f"cannot write {folder}: the demo's files go to a folder of this machine")
    check_folder(folder)
    if folder.is_dir() and not force and any(folder.iterdir()):
        raise OutputError(
            f"{folder} is not empty; overwrite the demonstration in it with {{force}}, or name another ({{output}})",
            parameter=("force", "output"),
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error.strerror}") from None
    parts = _parts()
    for name in (MODEL, *parts):
        check_output(folder / name, force=True)
    with atomic(folder / MODEL) as stream:
        stream.write(_bundled("digits_cnn.onnx").read_bytes())
    for name, arrays in parts.items():
        write_npz(folder / name, arrays)


def _parts() -> dict[str, Arrays]:
    """Return the files of samples: ``x`` float32 (N, 1, 8, 8) in [0, 1], ``y`` int64 (N,).

    Every third image was not trained on.
    """
    with _bundled("digits.npz").open("rb") as stream, np.load(stream) as stored:
        x, y = (stored["x"] / _LEVELS).astype(np.float32), stored["y"].astype(np.int64)
    tested = np.arange(len(x)) % 3 == 2
    rows = {"train": np.flatnonzero(~tested), "val": np.flatnonzero(tested)[:_SELECTED]}
    rows |= {"test": np.flatnonzero(tested)[_SELECTED:], "clean": rows["train"][:_SCORED]}
    return {f"{name}.npz": {"x": x[chosen], "y": y[chosen]} for name, chosen in rows.items()}


def _bundled(name: str) -> Any:
    return resources.files("cloakonnx.demo").joinpath(name)
