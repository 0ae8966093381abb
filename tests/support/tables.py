"""A classifier of a table whose columns differ in size by a factor of 100,000, and its rows as CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def write_table(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], list[str]]:
    """Write tab.onnx, which takes 30 raw columns with values up to 3,234, and tab.csv.

    Returns:
        The rows, their labels and the names of the columns.
    """
    data = load_breast_cancer()
    x, y, names = data.data[::2], data.target[::2], [str(name) for name in data.feature_names]
    scaler = StandardScaler().fit(x)
    fitted = LogisticRegression(max_iter=500).fit(scaler.transform(x), y)
    weights = (fitted.coef_ / scaler.scale_).T
    half = np.concatenate([-weights, weights], axis=1) / 2
    bias = np.array([-1, 1]) * (fitted.intercept_ - scaler.mean_ @ weights) / 2
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["columns", "w", "b"], ["logits"])],
        "g",
        [helper.make_tensor_value_info("columns", TensorProto.FLOAT, ["N", 30])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in (("w", half), ("b", bias))],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, folder / "tab.onnx")
    rows = [",".join(map(repr, map(float, row))) + f",{label}" for row, label in zip(x, y, strict=True)]
    (folder / "tab.csv").write_text("\n".join([",".join([*names, "label"]), *rows]) + "\n")
    return x, y, names
