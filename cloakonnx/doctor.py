"""Checks an installation: packages, ONNX Runtime and its providers, the machine, and a gradient that is compared.

ONNX Runtime and onnx are imported inside functions: a check must also run where they are missing or broken.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass, field
from importlib import resources

from cloakonnx.errors import CloakError
from cloakonnx.runtime.machine import cores
from cloakonnx.runtime.packages import RUNTIMES, kept, versions

REQUIRED = ("click", "jinja2", "msgspec", "numpy", "onnx", "onnx-graphsurgeon", "pillow", "rich")
"""Distributions that cloakonnx needs beside ONNX Runtime."""

EXTRAS = {
    "parquet": ("pyarrow",),
    "ray": ("ray[client]",),
    "remote": ("fsspec", "aiohttp", "s3fs"),
    "sign": ("cryptography", "securesystemslib"),
}
"""Optional features to what they need, by name: cloakonnx[...] would put onnxruntime-gpu over onnxruntime."""

_REMOTE = "AzureExecutionProvider"
"""Listed by ONNX Runtime everywhere; it calls a service instead of computing."""

_STEP, _TOLERANCE = 1e-2, 5e-2
"""Of the finite difference, and its largest relative deviation from the gradient in float32."""


@dataclass(frozen=True)
class ProviderState:
    """An execution provider of the installed ONNX Runtime.

    Attributes:
        name: ONNX Runtime's name.
        loads: Whether a session really runs on it.
    """

    name: str
    loads: bool


@dataclass(frozen=True)
class Gradient:
    """The test gradient on the bundled classifier.

    Attributes:
        passed: Whether it agrees with a finite difference.
        detail: Both numbers, or why it could not be computed.
    """

    passed: bool
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """What an installation can do.

    Attributes:
        python: Its version.
        executable: The interpreter.
        system: Operating system and processor.
        cores: Processors that this process may use.
        memory: Bytes of the machine's memory; None where the system does not tell.
        packages: Versions of the required packages; None for a missing one.
        runtimes: Versions of the ONNX Runtime packages that are installed.
        providers: Execution providers, and which of them load.
        provider: The provider that is used by default; None where none loads.
        gradient: The test gradient; None where ONNX Runtime can't be imported.
        extras: Optional features, and whether their packages are installed.
        ray: Version of Ray; None where it is not installed.
        problems: What makes the installation unusable, a sentence each.
        warnings: What should be mended, a sentence each.
        install: Commands that would mend or extend it.
    """

    python: str
    executable: str
    system: str
    cores: int
    memory: int | None
    packages: dict[str, str | None]
    runtimes: dict[str, str]
    providers: list[ProviderState]
    provider: str | None
    gradient: Gradient | None
    extras: dict[str, bool]
    ray: str | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    install: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether nothing stands in the way of evaluating and hardening a model."""
        return not self.problems


def examine() -> Diagnosis:
    """Check this installation; takes a second or two.

    Examples:
        >>> examine().usable
        True
    """
    failure = _import_failure()
    providers, default = ([], None) if failure else _providers()
    found = Diagnosis(
        python=platform.python_version(),
        executable=sys.executable,
        system=f"{platform.system()} {platform.machine()}",
        cores=cores(),
        memory=_memory(),
        packages={name: versions((name,)).get(name) for name in ("cloakonnx", *REQUIRED)},
        runtimes=versions(RUNTIMES),
        providers=providers,
        provider=default,
        gradient=None if failure or default is None else _gradient(),
        extras={name: _has(needed) for name, needed in EXTRAS.items()},
        ray=versions(("ray",)).get("ray"),
    )
    _judge(found, failure)
    return found


def _import_failure() -> str | None:
    """Return why onnx or ONNX Runtime can't be imported; None where both can."""
    for module in ("numpy", "onnx", "onnxruntime"):
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken binary raises whatever it likes
            return f"{module} can't be imported ({type(error).__name__}: {' '.join(str(error).split())})"
    return None


def _providers() -> tuple[list[ProviderState], str | None]:
    import onnxruntime  # noqa: PLC0415

    from cloakonnx.runtime.provider import choose_provider  # noqa: PLC0415

    def loads(name: str | None) -> str | None:
        try:
            return choose_provider(name).name
        except CloakError:
            return None

    names = [name for name in onnxruntime.get_available_providers() if name != _REMOTE]
    return [ProviderState(name, loads(name) is not None) for name in names], loads(None)


def _gradient() -> Gradient:
    """Compare the gradient of the bundled classifier with a central difference along its own direction."""
    import numpy as np  # noqa: PLC0415

    from cloakonnx.classifier.classifier import Classifier  # noqa: PLC0415

    def loss(x: np.ndarray) -> float:
        logits = clf.logits(x)[0].astype(np.float64)
        return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[0])

    try:
        with resources.as_file(resources.files("cloakonnx.demo").joinpath("digits_cnn.onnx")) as path:
            clf = Classifier(path)
            x = np.random.default_rng(0).random((1, 1, 8, 8), dtype=np.float32)
            gradient = clf.gradient(x, np.array([0]), loss="ce")
            length = float(np.linalg.norm(gradient))
            way = gradient / np.float32(length)
            slope = (loss(x + _STEP * way) - loss(x - _STEP * way)) / (2 * _STEP)
    except Exception as error:  # whatever it is, it is the answer
        return Gradient(False, " ".join(f"{type(error).__name__}: {error}".split()))
    passed = length > 0 and abs(slope - length) <= _TOLERANCE * length
    return Gradient(passed, f"length {length:.4f}, finite difference {slope:.4f}")


def _memory() -> int | None:
    """Return the bytes of the machine's memory, as the system tells them without another package."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _memory_of_windows()


def _memory_of_windows() -> int | None:
    import ctypes  # noqa: PLC0415

    kernel = getattr(getattr(ctypes, "windll", None), "kernel32", None)
    if kernel is None:
        return None
    kilobytes = ctypes.c_ulonglong()
    known = kernel.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
    return kilobytes.value * 1024 if known else None


def _judge(found: Diagnosis, failure: str | None) -> None:
    """Fill in problems, warnings and what to install."""
    missing = [name for name in REQUIRED if found.packages[name] is None]
    if missing:
        found.problems.append(f"missing: {', '.join(missing)}")
        found.install.append(f"pip install {' '.join(missing)}")
    if not found.runtimes:
        found.problems.append("ONNX Runtime is not installed")
        found.install.append("pip install onnxruntime")
    elif failure:
        found.problems.append(failure)
    elif found.provider is None:
        found.problems.append("not even ONNX Runtime's CPU provider loads")
        found.install.append(f"pip install --force-reinstall {next(iter(found.runtimes))}")
    if found.gradient is not None and not found.gradient.passed:
        found.problems.append(f"the test gradient is wrong: {found.gradient.detail}")
    if len(found.runtimes) > 1:
        names = list(found.runtimes)
        found.warnings.append(f"{' and '.join(names)} are both installed and overwrite each other's files")
        found.install.append(f"pip uninstall -y {' '.join(names)} && pip install {kept(names)}")
    _judge_gpu(found)
    found.install.extend(_install(EXTRAS[name]) for name, there in found.extras.items() if not there)


def _has(needed: tuple[str, ...]) -> bool:
    names = tuple(each.partition("[")[0] for each in needed)
    return len(versions(names)) == len(names)


def _install(needed: tuple[str, ...]) -> str:
    """Return the command; double quotes are right in every shell."""
    return f"pip install {' '.join(f'{chr(34)}{each}{chr(34)}' if '[' in each else each for each in needed)}"


def _judge_gpu(found: Diagnosis) -> None:
    """Name what a graphics card that is there would need."""
    if shutil.which("nvidia-smi") is None or "CUDAExecutionProvider" in {p.name for p in found.providers if p.loads}:
        return
    found.warnings.append("there is an NVIDIA driver, but ONNX Runtime does not load CUDA")
    others = [name for name in found.runtimes if name != "onnxruntime-gpu"]
    first = f"pip uninstall -y {' '.join(others)} && " if others else ""
    found.install.append(f'{first}pip install "onnxruntime-gpu[cuda,cudnn]"')
