"""How a flag's row reads."""

from __future__ import annotations

import pytest

from cloakonnx.evaluation.sanity.flags import Flag
from cloakonnx.reporting.tables import bound, status


def flag(name: str, *, fired: bool | None, value: float | None, threshold: float) -> Flag:
    return Flag(name, fired, value, "points", threshold, 0.1, "counts")


@pytest.mark.parametrize(
    ("name", "fired", "value", "threshold", "said"),
    [
        ("iterations", True, 3.0, 1.0, "FIRED"),
        ("iterations", False, 0.0, 1.0, "ok"),
        ("iterations", False, 1.5, 1.0, "ok, may be chance"),
        ("iterations", None, None, 1.0, "not measured"),
        ("static-gain", True, -5.4, 0.0, "FIRED"),
        ("static-gain", False, 5.4, 0.0, "ok"),
        ("static-gain", False, -5.4, 0.0, "ok: no sure static gain"),
    ],
)
def test_status(name: str, fired: bool | None, value: float | None, threshold: float, said: str) -> None:
    assert status(flag(name, fired=fired, value=value, threshold=threshold)) == said


def test_what_fires() -> None:
    assert bound(flag("static-gain", fired=False, value=0.0, threshold=0.0)) == "up to 0.0 points"
    assert bound(flag("eps-curve", fired=True, value=0.0, threshold=1.0)) == "above 1.0 points, or never falls"
    assert bound(flag("iterations", fired=True, value=2.0, threshold=1.0)) == "above 1.0 points"
