"""What the stages of a hardening work with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

from cloakonnx.data.samples import Dataset
from cloakonnx.graph.file.diff import external_digests
from cloakonnx.graph.file.model import Model
from cloakonnx.pipeline._parts import Parts
from cloakonnx.pipeline.settings import Settings
from cloakonnx.pipeline.stage import Folder
from cloakonnx.runtime.provider import Provider


class Observer(Protocol):
    """Is told how far a hardening is."""

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


class Names(TypedDict):
    """The input and the output, as functions take them."""

    input_name: str | None
    output_name: str | None


@dataclass(frozen=True)
class Work:
    """Everything that stages work with.

    Attributes:
        model: The source.
        parts: The samples.
        settings: What is asked for.
        folder: Where results go.
        provider: Where everything runs.
        input_name: The data input, where there are several.
        output_name: The class scores, where there are several outputs.
        observer: Is told how far it is.
        command: The command line that does it again, for the page.
    """

    model: Model
    parts: Parts
    settings: Settings
    folder: Folder
    provider: Provider
    input_name: str | None = None
    output_name: str | None = None
    observer: Observer = field(default_factory=Silence)
    command: str | None = None

    @property
    def names(self) -> Names:
        """The input and the output, as functions take them."""
        return {"input_name": self.input_name, "output_name": self.output_name}

    def source_record(self) -> dict[str, Any]:
        """Return what tells the model from others: digests of its file and its external data."""
        return {"sha256": self.model.sha256, "external": external_digests(self.model)}

    def running_record(self, data: Dataset) -> dict[str, Any]:
        """Return what decides numbers everywhere: how data is fed, and where it runs."""
        return {
            "preprocessing": data.preprocessing.as_dict(),
            "provider": self.provider.name,
            "input": self.input_name,
            "output": self.output_name,
        }
