"""Which packages of ONNX Runtime are installed. ONNX Runtime itself is not imported: it may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-rocm",
    "onnxruntime-qnn",
    "onnxruntime-training",
)
"""Packages that all install the module ``onnxruntime``, over one another."""


def kept(installed: Sequence[str]) -> str:
    """Return which of several installed packages to keep: one that runs on more than the CPU."""
    return next((name for name in installed if name != "onnxruntime"), installed[0])


def versions(names: tuple[str, ...] = RUNTIMES) -> dict[str, str]:
    """Return the versions of those packages that are installed, by name."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
