"""The nine light models of the onnx wheel: real architectures of 2014 to 2017, opsets 3 to 9, Caffe's operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from cloakonnx.gradient.differentiate import differentiate

from .harness import ort_run

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("light_*.onnx"))


def test_all_nine_are_here() -> None:
    assert len(LIGHT) == 9


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in LIGHT])
def test_light_model_differentiates_and_runs(path: Path) -> None:
    graph = differentiate(onnx.load(path))
    assert graph.classes == 1000
    shape = [d.dim_value for d in graph.proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    gradient = ort_run(graph.proto)({graph.image: x, graph.labels or "": np.zeros(1, np.int64)})[-1]
    assert gradient.shape == x.shape
    assert np.isfinite(gradient).all()
