"""Reads any file that cloakonnx writes, by what the file says that it is."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, overload

from cloakonnx.data.arrays import SETTINGS_KEY, load_arrays, missing
from cloakonnx.data.given import Samples
from cloakonnx.errors import AttestationError, DataError
from cloakonnx.evaluation.evaluation import load_evaluation
from cloakonnx.evaluation.samples import load_samples
from cloakonnx.evaluation.sweeps.record import load_sweep
from cloakonnx.evaluation.verification.attestation import STATEMENT_TYPE, load_attestation
from cloakonnx.evaluation.verification.signing import VerificationKey
from cloakonnx.graph.file.model import load
from cloakonnx.json_files import parsed, read_text
from cloakonnx.remote import fetched
from cloakonnx.scoring.analysis import load_analysis

T = TypeVar("T")

_READERS: dict[str, Callable[[Path], Any]] = {
    "cloakonnx.analysis": load_analysis,
    "cloakonnx.evaluation": load_evaluation,
    "cloakonnx.sweep": load_sweep,
}


@overload
def read(path: str | PathLike[str], *, key: VerificationKey | None = None) -> Any: ...


@overload
def read(path: str | PathLike[str], kind: type[T], *, key: VerificationKey | None = None) -> T: ...


def read(path: str | PathLike[str], kind: type[Any] = object, *, key: VerificationKey | None = None) -> Any:
    """Read a file of cloakonnx by what it says that it is.

    Args:
        path: An analysis, an evaluation, a sweep, an attestation, the samples of an evaluation or adversarial inputs
            (``.npz``), or a model (``.onnx``).
        kind: The type that it has to be, such as ``ck.Evaluation``; any where left out.
        key: What an attestation must be signed by; None checks no signature.

    Returns:
        An Analysis, Evaluation, Sweep, Attestation, TurnedSamples, Samples or Model.

    Raises:
        DataError: none of these, or another kind than the one asked for.
        CloakError: missing or damaged; its children say what.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.read("samples/digits_cnn.onnx", ck.Model).opset
        17
    """
    path = fetched(path)
    found = _found(path, key)
    if not isinstance(found, kind):
        raise DataError(f"{path} holds {type(found).__name__}, not {kind.__name__}")
    return found


def _found(path: Path, key: VerificationKey | None) -> Any:
    if not path.exists():
        raise missing(path)
    if zipfile.is_zipfile(path):
        return _arrays(path)
    if path.suffix != ".json":
        return load(path)
    content = parsed(read_text(path, kind="file", error=DataError), name=str(path), error=DataError)
    if isinstance(content, dict) and (content.get("_type") == STATEMENT_TYPE or "payload" in content):
        return load_attestation(path, key=key)
    if key is not None:
        raise AttestationError(f"{path} is no attestation, so it has no signature to check")
    name = content.get("format") if isinstance(content, dict) else None
    if name not in _READERS:
        raise DataError(f"{path} is no file of cloakonnx: its entry 'format' is none of {', '.join(_READERS)}")
    return _READERS[name](path)


def _arrays(path: Path) -> Any:
    there = load_arrays(path, [], optional=["format", SETTINGS_KEY])
    if "format" in there:
        return load_samples(path)
    if SETTINGS_KEY in there:
        return Samples(path)
    raise DataError(f"{path} is no file of cloakonnx; samples of your own are given as they are, by path")
