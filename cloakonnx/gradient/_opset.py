"""The version of the default operator set that backward graphs are written in."""

from __future__ import annotations

import onnx

OPSET = 18
"""Models of an older opset are converted to this one."""


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 1)
