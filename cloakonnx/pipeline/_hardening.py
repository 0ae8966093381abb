"""What the stages of a hardening work with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.samples import Dataset
from cloakonnx.engine.batches import Engine
from cloakonnx.engine.choice import default_engine
from cloakonnx.evaluation.verification.signing import SigningKey
from cloakonnx.graph.file.diff import external_digests
from cloakonnx.graph.file.model import Model
from cloakonnx.pipeline._parts import DataParts
from cloakonnx.pipeline.settings import HardenSettings
from cloakonnx.pipeline.stage import ResultFolder


class Observer(Protocol):
    """Called with the progress of a hardening."""

    def stage(self, name: str, number: int, count: int, *, cached: bool) -> None:
        """Hear that a stage starts, or that its results are there."""

    def say(self, text: str) -> None:
        """Hear a line about the stage at hand."""

    def progress(self, what: str, total: int | None) -> AbstractContextManager[Callable[[float], None]]:
        """Return what is called with how much of the total is done."""


class Silence:
    """An observer that does nothing."""

    def stage(self, name: str, number: int, count: int, *, cached: bool) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def progress(self, what: str, total: int | None) -> AbstractContextManager[Callable[[float], None]]:
        """Do nothing."""
        return nullcontext(lambda done: None)


@dataclass(frozen=True)
class Hardening:
    """Everything that stages work with.

    Attributes:
        classifier: The source.
        parts: The samples.
        settings: What is asked for.
        folder: Where results go.
        engine: Where batches are handled; None chooses for each stage.
        observer: Called with the progress.
        command: The command line that does it again, for the page.
        sign_key: What signs the attestation.
    """

    classifier: Classifier
    parts: DataParts
    settings: HardenSettings
    folder: ResultFolder
    engine: Engine | None = None
    observer: Observer = field(default_factory=Silence)
    command: str | None = None
    sign_key: SigningKey | None = None

    @property
    def model(self) -> Model:
        """The source's file."""
        return self.classifier.model

    def engine_for(self, data: Dataset) -> Engine:
        """Return what handles the batches of some samples."""
        return self.engine or default_engine(self.classifier.provider, data, self.settings.batch_size)

    def threads_record(self, engine: Engine | None) -> dict[str, Any]:
        """Return the number of threads of each session where an engine chooses it; results hold it."""
        return {} if engine is None or engine.threads is None else {"threads": engine.threads}

    def source_record(self) -> dict[str, Any]:
        """Return what tells the model from others: digests of its file and its external data."""
        return {"sha256": self.model.sha256, "external": external_digests(self.model)}

    def running_record(self, data: Dataset) -> dict[str, Any]:
        """Return what decides numbers everywhere: how data is fed, and where it runs."""
        input_name, output_name = self.classifier.asked_names
        return {
            "preprocessing": data.preprocessing.as_dict(),
            "provider": self.classifier.provider.name,
            "input": input_name,
            "output": output_name,
        }
