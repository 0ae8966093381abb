"""Verifies the files of several hardened models: an error of one keeps no other from being verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.samples import Dataset
from cloakonnx.errors import CheckError, CloakError, ModelError
from cloakonnx.evaluation.verification.verify import Verification, verify
from cloakonnx.graph.file.model import Model, load
from cloakonnx.remote import local


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        path: The file.
        verification: Its checks; None where it could not be verified.
        error: Why it could not be.
    """

    path: Path
    verification: Verification | None = None
    error: CloakError | None = None

    @property
    def passed(self) -> bool:
        """Whether it was verified and no check failed."""
        return self.verification is not None and self.verification.passed

    @property
    def exit_code(self) -> int:
        """0 where it passed, 1 where a check failed, 2 where it could not be verified."""
        return self.error.exit_code if self.error is not None else 0 if self.passed else 1


def verify_files(
    paths: Sequence[str | Path],
    *,
    classifier: Callable[[Model], Classifier] = Classifier,
    samples: Callable[[Classifier], Dataset | None] = lambda classifier: None,
    reading: Callable[[Model], AbstractContextManager[Callable[[float], None]]] = lambda model: nullcontext(_nowhere),
    **settings: Any,
) -> Iterator[Outcome]:
    """Verify the files of hardened models, one after the other.

    Args:
        paths: The files.
        classifier: Makes the classifier of a model.
        samples: Gives the samples that a classifier's numbers are compared on; None for random inputs.
        reading: Surrounds the verification of a model, and gives what is called with the bytes read of external data.
        settings: As :func:`~cloakonnx.verify` takes them: ``source``, ``attestation``, ``analysis``, ...

    Yields:
        What became of each file.
    """
    is_referred = settings.get("source") is not None or settings.get("attestation") is not None
    for path in map(local, paths):
        try:
            model = _loaded(path, is_referred=is_referred)
            made = classifier(model)
            given = samples(made)
            with reading(model) as on_read:
                found = verify(made, samples=given, on_read=on_read, **settings)
        except CloakError as error:
            yield Outcome(path, error=error)
        else:
            yield Outcome(path, found)


def _nowhere(read: float) -> None:
    """Show nothing."""


def _loaded(path: Path, *, is_referred: bool) -> Model:
    """Load a model; a file that is damaged fails the verification where there is a trusted reference.

    Raises:
        CheckError: it is damaged, and what it should be is known.
        ModelError: it can't be read.
    """
    try:
        return load(path)
    except ModelError as error:
        if is_referred and path.is_file():
            raise CheckError(f"{path.name} failed verification: {error.args[0]}", parameter=error.parameters) from None
        raise
