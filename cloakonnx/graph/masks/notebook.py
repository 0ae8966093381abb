"""Models as users load them: a notebook shows where masks are and where they can go, as ``cloakonnx inspect`` does."""

from __future__ import annotations

from cloakonnx.graph.file.model import Model as Model  # noqa: PLC0414 - public
from cloakonnx.graph.file.model import load as load  # noqa: PLC0414 - public
from cloakonnx.graph.file.views import described, view
from cloakonnx.graph.masks.metadata import masks_of
from cloakonnx.graph.masks.taps import Tap, list_taps
from cloakonnx.text import line, table

_COLUMNS = ("tap", "features", "axis", "shape", "dtype", "from", "to")
_ROWS = 200
"""Taps that are shown, and the default one."""


@view
def model_html(model: Model) -> str:
    """Return the model in a line, its masks, and a table of the tensors that can carry one."""
    taps = list_taps(model)
    listed = [tap for number, tap in enumerate(taps) if number < _ROWS or tap.is_default]
    said = [described(model), *(f"external data: {location}" for location in model.external_files)]
    said += [f"masked: {name}" for name in dict.fromkeys(entry.tap for entry in masks_of(model.proto))]
    if not taps:
        return "".join(map(line, [*said, "no tensor of this model can carry a mask"]))
    after = ["* the default tap"] * any(tap.is_default for tap in taps)
    after += [f"{len(taps) - len(listed):,} more taps: cloakonnx.taps(model)"] * (len(listed) < len(taps))
    rows = [(f"{name} *" if tap.is_default else name, *rest) for tap in listed for name, *rest in (cells(tap),)]
    return "".join([*map(line, said), table(_COLUMNS, rows), *map(line, after)])


def cells(tap: Tap) -> tuple[str, ...]:
    """Return what tables show of a tap: name, features, axis, shape, dtype, producer and consumers."""
    shape = ", ".join("?" if each is None else str(each) for each in tap.shape)
    return (
        tap.name,
        "?" if tap.features is None else str(tap.features),
        str(tap.feature_axis),
        f"({shape})",
        tap.dtype,
        tap.producer,
        ", ".join(tap.consumers) or "output",
    )
