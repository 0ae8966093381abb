"""Which torch function stands for which ONNX op, and what such functions have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

OPS: dict[str, Callable[..., Any]] = {}


def op(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        OPS[name] = function
        return function

    return register


def tensor(t: onnx.TensorProto, dtype: torch.dtype) -> torch.Tensor:
    value = torch.from_numpy(np.array(numpy_helper.to_array(t)))
    return value.to(dtype) if value.is_floating_point() else value


def ints(x: Any) -> list[int]:
    return [int(v) for v in torch.as_tensor(x).reshape(-1)]
