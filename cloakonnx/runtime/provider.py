"""Which execution provider runs the graphs: the one that was asked for, or the best that really loads, and no other."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import onnx
import onnxruntime as ort

from cloakonnx.errors import ProviderError, nearest
from cloakonnx.graph.build import Builder
from cloakonnx.runtime.packages import kept, versions

_SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "dml": "DmlExecutionProvider",
}
_BY_DEFAULT = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Tried in this order; the others compile each graph anew or compute in lower precision, so they are asked for."""


@dataclass(frozen=True)
class Provider:
    """An execution provider that loads on this machine.

    Attributes:
        name: ONNX Runtime's name for it.
        device_id: Which device of its kind; 0 on the CPU.
        threads: Intra-op threads of each session; None for ONNX Runtime's own choice.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.choose_provider("cpu").record
        {'provider': 'CPUExecutionProvider'}
    """

    name: str
    device_id: int = 0
    threads: int | None = None

    @property
    def device(self) -> str:
        """ONNX Runtime's name of the device that tensors live on."""
        return "cuda" if self.name in {"CUDAExecutionProvider", "TensorrtExecutionProvider"} else "cpu"

    @property
    def record(self) -> dict[str, Any]:
        """What records hold: the name, and the number of threads where it was chosen."""
        return {"provider": self.name, **({} if self.threads is None else {"threads": self.threads})}

    def with_threads(self, threads: int | None) -> Provider:
        """Return the provider with another number of threads; None leaves it."""
        return self if threads is None else replace(self, threads=threads)

    @property
    def session_arguments(self) -> list[tuple[str, dict[str, str]]]:
        """The ``providers`` argument of an InferenceSession; TF32 is off, for it changes the numbers we report."""
        if self.name == "CUDAExecutionProvider":
            return [(self.name, {"device_id": str(self.device_id), "use_tf32": "0"})]
        if self.name == "TensorrtExecutionProvider":
            return [(self.name, {"device_id": str(self.device_id)})]
        return [(self.name, {})]


def short_names() -> list[str]:
    """Return the short names of the execution providers that the installed ONNX Runtime has."""
    available = ort.get_available_providers()
    return [short for short, full in _SHORT_NAMES.items() if full in available]


def choose_provider(name: str | None = None, *, device_id: int = 0) -> Provider:
    """Return the provider of that name, or the best one that loads.

    Args:
        name: A short name (``cpu``, ``cuda``, ``tensorrt``, ...) or ONNX Runtime's; None for the best.
        device_id: Which device.

    Raises:
        ProviderError: it is unknown, not part of the installed ONNX Runtime, or does not load.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.choose_provider("cpu").name
        'CPUExecutionProvider'
    """
    available = ort.get_available_providers()
    if name is None:
        for full in _BY_DEFAULT:
            if full in available and _loads(full, device_id):
                return Provider(full, device_id if full != "CPUExecutionProvider" else 0)
        raise ProviderError("not even ONNX Runtime's CPU provider loads: 'cloakonnx doctor' says what to install")
    full = _SHORT_NAMES.get(name.lower(), name)
    if full not in available:
        short = short_names()
        raise ProviderError(
            f"{{provider}} {name}: the installed ONNX Runtime has no {full}; it has {', '.join(short or available)}"
            f"{nearest(name, short)}",
            parameter="provider",
        )
    if not _loads(full, device_id):
        raise ProviderError(
            f"{{provider}} {name}: {full} does not load on this machine for device {device_id} (no such device or "
            "driver, or its libraries are missing: pip install 'onnxruntime-gpu[cuda,cudnn]'); {provider} cpu runs "
            "anywhere",
            parameter="provider",
        )
    return Provider(full, device_id)


@cache
def _loads(full_name: str, device_id: int) -> bool:
    """Whether a session really gets the provider; when not, ONNX Runtime only prints and falls back to the CPU."""
    if full_name != "CPUExecutionProvider" and hasattr(ort, "preload_dlls"):
        with _silenced():
            ort.preload_dlls()
    with _silenced():
        try:
            session = ort.InferenceSession(
                _probe().SerializeToString(), providers=Provider(full_name, device_id).session_arguments
            )
        except Exception:  # providers raise types of their own; any failure means that it does not load
            return False
    return bool(session.get_providers()[0] == full_name)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep ONNX Runtime from printing while a provider is tried: its default logger, and preload_dlls's prints."""
    ort.set_default_logger_severity(4)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        ort.set_default_logger_severity(2)


def _probe() -> onnx.ModelProto:
    build = Builder.alone(opset=13)
    return build.model(build.input("x", shape=[1]).op("Relu"))


def installation_warning() -> str | None:
    """Return a warning where two ONNX Runtime packages are installed over one another, with the way to mend it."""
    found = versions()
    if len(found) < 2:
        return None
    both = " and ".join(f"{name} {number}" for name, number in found.items())
    return (
        f"{both} are both installed and overwrite each other's files; mend it with: {sys.executable} -m pip uninstall "
        f"-y {' '.join(found)} && {sys.executable} -m pip install {kept([*found])}"
    )
