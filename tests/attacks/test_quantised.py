"""A model that ONNX Runtime's own quantiser has made: plain gradients are 0, straight-through ones find the attacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from cloakonnx.attacks.base import make
from cloakonnx.errors import ZeroGradientError
from cloakonnx.graph.file.model import load

from .helpers import DIGITS, Images, digits, digits_arrays, victim_of

EPS = 2 / 16


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Gives one batch."""

    def __init__(self, x: Images) -> None:
        self._batches = iter([{"image": x}])

    def get_next(self) -> dict[str, Images] | None:
        return next(self._batches, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("quantised")
    x, _ = digits_arrays()
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        quantize_static(
            DIGITS,
            made / f"{form.name}.onnx",
            Calibration(x[-100:]),
            quant_format=form,
            per_channel=form is QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return made


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_straight_through(folder: Path, form: str) -> None:
    plain, x, y = digits(60)
    quantised = victim_of(load(folder / f"{form}.onnx"), sample_shape=(1, 8, 8))
    right = quantised.predict(x) == y
    assert abs(int(right.sum()) - int((plain.predict(x) == y).sum())) <= 2
    with pytest.raises(ZeroGradientError, match="QuantizeLinear"):
        make("pgd", eps=EPS).run(quantised, x, y)
    through = make("pgd", eps=EPS, straight_through=True).run(quantised, x, y)
    wanted = make("pgd", eps=EPS).run(plain, x, y)
    assert np.abs(through.x - x).max() <= EPS + 1e-6
    np.testing.assert_array_equal(through.success, quantised.predict(through.x) != y)
    assert abs(int(through.success.sum()) - int(wanted.success.sum())) <= 3
    blind = make("square", eps=EPS, max_iter=200).run(quantised, x, y)
    assert through.success.sum() >= blind.success.sum() + 5
