"""Which models an interrupted check has finished, and what each evaluation was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloakonnx.errors import OutputError

if TYPE_CHECKING:
    from cloakonnx.cli._evaluation import Asked
    from cloakonnx.evaluation.evaluation import Evaluation

_NAME = ".check.json"


class Finished:
    """The record of a check's folder, there from its first finished model until all are finished.

    Args:
        folder: Where evaluations are written; None keeps no record.
        resume: Whether to take what an interrupted check has left.
    """

    def __init__(self, folder: Path | None, *, resume: bool) -> None:
        self._path = None if folder is None else folder / _NAME
        self._known: dict[str, Any] = {}
        if resume and self._path is not None:
            from cloakonnx.remote import fetched

            with suppress(OSError, ValueError):
                found = json.loads(fetched(self._path).read_bytes())
                self._known = found if isinstance(found, dict) else {}

    def holds(self, output: Path | None) -> bool:
        """Whether an interrupted check has finished this file, and nobody has changed it since."""
        if output is None or output.name not in self._known:
            return False
        with suppress(OSError, TypeError, KeyError):
            return bool(self._known[output.name]["sha256"] == _digest(output.read_bytes()))
        return False

    def load(self, output: Path, key: str) -> Evaluation:
        """Return a finished evaluation.

        Raises:
            OutputError: it was made with other settings, models, samples or versions.
        """
        from cloakonnx.evaluation.evaluation import load_evaluation

        if self._known[output.name].get("key") != key:
            raise OutputError(
                f"{output} was finished with other settings, models, samples or versions; start again without "
                "{resume}, with {force}",
                parameter=("resume", "force"),
            )
        return load_evaluation(output)

    def add(self, output: Path, key: str) -> None:
        """Put a finished evaluation on record; only where there is a folder."""
        assert self._path is not None  # it has the output
        from cloakonnx.files import write_text

        self._known[output.name] = {"key": key, "sha256": _digest(output.read_bytes())}
        write_text(self._path, json.dumps(self._known))

    def remove(self) -> None:
        """Remove the record: every model has had its turn."""
        if self._path is not None:
            from cloakonnx.remote import remove

            remove(self._path)


def key_of(asked: Asked, parameters: Mapping[str, Any]) -> str:
    """Return the digest of everything that an evaluation's numbers follow from."""
    from cloakonnx.json_files import installed_versions

    gates = {"require", "allow_inconclusive", "junit"}  # which judge the numbers
    content = {
        "settings": {name: repr(value) for name, value in parameters.items() if name not in gates},
        "model": asked.classifier.model.sha256,
        "baseline": None if asked.other is None else asked.other.sha256,
        "analysis": None if asked.known is None else _digest(asked.known.to_json().encode()),
        "adversarial": None if asked.adversarial is None else _digest(asked.adversarial.read_bytes()),
        "samples": [batch.digest() for batch in asked.samples.batches(asked.runs.batch_size)],
        "versions": installed_versions(),
    }
    return _digest(json.dumps(content, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
