"""The one exception family of cloakonnx.

Every message is a single line that says what was wrong, where, and what to do next. The command line prints it and
exits with :attr:`CloakError.exit_code`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable

from cloakonnx.urls import shown


class CloakError(Exception):
    """Base of every error that cloakonnx raises on purpose.

    Args:
        message: One line; ``{name}`` stands for a parameter's name, whatever the caller knows it by.
        parameter: The parameter, or the parameters, that the message names: ``eps_step``, or with its class
            ``Recipe.bounds``.

    Examples:
        >>> str(OptionError("{eps_step} must be above 0", parameter="eps_step"))
        'eps_step must be above 0'
    """

    exit_code = 2

    def __init__(self, message: str = "", *, parameter: str | Iterable[str] = ()) -> None:
        super().__init__(message)
        self.parameters = (parameter,) if isinstance(parameter, str) else tuple(parameter)

    @property
    def parameter(self) -> str | None:
        """Python name of the parameter that was wrong, or of the first one; None where it is none."""
        return self.parameters[0].rpartition(".")[2] if self.parameters else None

    def said(self, name_of: Callable[[str], str]) -> str:
        """Return the message with parameters named by a function of their names here."""
        text = str(self.args[0])
        known = "|".join(map(re.escape, self.parameters))
        return shown(re.sub(rf"\{{({known})\}}", lambda found: name_of(found[1]), text) if known else text)

    def __str__(self) -> str:
        """Return the message with the Python names of parameters."""
        return self.said(lambda name: name.rpartition(".")[2])

    @property
    def kind(self) -> str:
        """What kind of error it is, in words with dashes: that of OutOfMemoryError is ``out-of-memory``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower().removesuffix("-error")


class ModelError(CloakError):
    """The model cannot be read, or is not one that cloakonnx can work with."""


class TapError(CloakError):
    """The named tensor cannot be scored or masked."""


class MaskError(CloakError):
    """The mask does not fit the tap or the model."""


class DataError(CloakError):
    """Input data, labels or pairs are unusable."""


class AnalysisError(CloakError):
    """An analysis file is missing, malformed, or made for another model."""


class AttestationError(CloakError):
    """An attestation is missing, malformed, or not of a hardened model."""


class KeyFileError(CloakError):
    """A key or certificate is missing, damaged, expired, or of a kind that does not fit."""


class OptionError(CloakError):
    """An option has a value that makes no sense here, or contradicts another one."""


class OutputError(CloakError):
    """An output cannot be written where it was asked for."""


class RemoteError(CloakError):
    """A file on another machine cannot be read."""


class ProviderError(CloakError):
    """The execution provider that was asked for is not there."""


class InferenceError(CloakError):
    """ONNX Runtime refused the model, or gave values that are not finite."""


class ResourceError(InferenceError):
    """A run needs more time or memory than the limits allow, whatever the samples are."""


class OutOfMemoryError(ResourceError):
    """ONNX Runtime could not get the memory that a run needs."""


class WorkerError(InferenceError):
    """Workers on other machines, or in other processes, do not start, end again and again, or have other versions."""


class SmallerRuns(UserWarning):
    """A batch goes through the model in several runs, because memory does not suffice for one."""


class DifferentiationError(CloakError):
    """The model, or an op in it, has no gradient here."""


class ZeroGradientError(DifferentiationError):
    """Every way from the input to the output passes an op whose gradient is zero everywhere, such as Round."""


class MissingDependencyError(CloakError):
    """A package is missing; the message has the command that installs it."""


class CheckError(CloakError):
    """A check ran and failed: the model is not what it should be.

    Examples:
        >>> import cloakonnx as ck
        >>> try:
        ...     ck.strip("samples/digits_cnn.onnx")
        ... except ck.CheckError:
        ...     print("changed since it was hardened")
        ... except ck.CloakError as error:
        ...     print(str(error)[:41])
        digits_cnn.onnx carries no cloakonnx mask
    """

    exit_code = 1


class NoGainError(CheckError):
    """No masks within the budget gain robust accuracy.

    Args:
        message: As of any error.
        parameter: As of any error.
        tried: What was tried, a line each, with its figures.
    """

    def __init__(self, message: str = "", *, parameter: str | Iterable[str] = (), tried: Iterable[str] = ()) -> None:
        super().__init__(message, parameter=parameter)
        self.tried = tuple(tried)


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return a clause that names the known names closest to ``name``, or an empty string.

    >>> nearest("relu1", ["relu_1", "conv"])
    "; did you mean 'relu_1'?"
    """
    found = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    if not found:
        return ""
    return "; did you mean " + " or ".join(repr(n) for n in found) + "?"
