"""An ``.npy`` file that is cut while it is read is an error: reading on in its mapping would end the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloakonnx.data.sources import open_source
from cloakonnx.errors import DataError


def test_a_file_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    x = np.arange(40_000, dtype=np.float32).reshape(100, 400)
    np.save(path, x)
    batches = open_source(path).batches(10)
    assert np.array_equal(next(batches).x, x[:10])
    with path.open("r+b") as stream:
        stream.truncate(8192)
    with pytest.raises(DataError, match=r"x\.npy was cut while it was read"):
        next(batches)
