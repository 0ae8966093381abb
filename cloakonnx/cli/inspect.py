"""``cloakonnx inspect``: what is in a model, and where a mask can go."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloakonnx.cli._files import Json, ModelFile
from cloakonnx.cli._output import print_json, readers_may_leave, tell, warn
from cloakonnx.cli._parameters import option_of
from cloakonnx.cli._scores import scores_of
from cloakonnx.cli._verb import verb

if TYPE_CHECKING:
    from cloakonnx.classifier.abilities import Ability
    from cloakonnx.graph.file.model import Model
    from cloakonnx.graph.masks.metadata import Given, WeightMaskEntry
    from cloakonnx.graph.masks.taps import Tap


_ROWS = 2_000
"""Taps of the table; one of 49,000 takes a minute to lay out."""

_WHOLE = 24
"""Letters of the longest name of a tap up to which names stand in one line: people copy them."""


@verb("inspect")
def command(*, model: ModelFile, as_json: Json) -> None:
    """List the tensors of MODEL that can carry a mask; the default tap is marked.

    \b
    cloakonnx inspect model.onnx
    cloakonnx inspect model.onnx --json | jq '.taps[] | select(.default)'
    """
    from cloakonnx.classifier.abilities import abilities
    from cloakonnx.graph.file.model import load
    from cloakonnx.graph.masks.metadata import WeightMaskEntry, folded_masks, is_folded, masks_of
    from cloakonnx.graph.masks.taps import list_taps
    from cloakonnx.text import shown

    loaded = load(model)
    _warn_of_data_stored_twice(loaded)
    taps, masks = list_taps(loaded), masks_of(loaded.proto)
    inserted = {mask.tap for mask in masks}
    given = folded_masks(loaded.proto) if is_folded(loaded.proto) else []
    folded = [mask for mask in given if mask.tap not in inserted]
    on_weights = [mask for mask in masks if isinstance(mask, WeightMaskEntry)]
    at_taps = [mask.tap for mask in masks if not isinstance(mask, WeightMaskEntry)]
    if as_json:
        kind = "folded" if folded else "masked" if masks else None
        found = _as_json(loaded, taps, at_taps, list(dict.fromkeys(mask.tap for mask in folded)), kind)
        able = {each.verb: {"works": each.works, "how": each.how} for each in abilities(loaded, name_of=option_of)}
        print_json(found | {"weight_masks": [_described(mask) for mask in on_weights], "abilities": able})
        return
    lost = _lost(loaded) if masks or given else None
    if lost is not None:
        said = [f"{shown(lost)}: it was changed after it was hardened"]
    else:
        said = [*(f"masked: {shown(name)}" for name in at_taps), *_told_of_weights(loaded, on_weights)]
    _print(loaded, taps, [*said, *_told_of_folded(folded)])
    _tell_abilities(model, abilities(loaded, name_of=option_of))


def _told_of_weights(model: Model, masks: list[WeightMaskEntry]) -> list[str]:
    """Say on how many weights there are masks."""
    static = model.structure.static
    sizes = [(mask.weight, mask.granularity, math.prod(static(mask.initializer) or ())) for mask in masks]
    return [_counted(sizes)] if sizes else []


def _told_of_folded(masks: list[Given]) -> list[str]:
    """Say which masks are in the weights."""
    from cloakonnx.text import shown

    inside = [(mask.tap, mask.granularity or "", mask.size) for mask in masks if mask.on_weight]
    said = [f"folded into the weights: the mask of {shown(mask.tap)}" for mask in masks if not mask.on_weight]
    return said + ([f"folded into the weights: {_counted(inside)}"] if inside else [])


def _warn_of_data_stored_twice(model: Model) -> None:
    from cloakonnx.graph.file.external import tensors
    from cloakonnx.graph.index.bounds import stored_twice
    from cloakonnx.graph.index.limits import quoted

    for tensor in tensors(model.proto):
        if fields := stored_twice(tensor):
            warn(
                f"tensor {quoted(tensor.name)} holds its data in {' and '.join(fields)}; readers of ONNX files "
                "disagree on which counts, so export the model again"
            )


def _tell_abilities(path: Path, found: list[Ability]) -> None:
    """Say what can be done with the model, and the next command to try."""
    from cloakonnx.text import shown

    for each in found:
        tell(f"{each.verb}: {'yes' if each.works else 'no'}, {shown(each.how)}")
    attack, *_, learn = found
    if all(each.works for each in found):
        words = ["harden", shown(str(path)), "--data val.npz --eps 2/255", learn.option]
    elif attack.works:
        how = attack.option or "--attack pgd"
        words = ["attack", shown(str(path)), how, "--data test.npz --eps 2/255 -o adv.npz"]
    else:
        return
    tell(f"next: cloakonnx {' '.join(filter(None, words))}")


def _described(mask: WeightMaskEntry) -> dict[str, str]:
    return {"weight": mask.weight, "granularity": mask.granularity}


def _counted(masks: list[tuple[str, str, int]]) -> str:
    """Say on how many weights there are masks, and how many numbers these have; of each: weight, granularity, size."""
    numbers = sum(size for _, _, size in masks)
    units = ", ".join(dict.fromkeys(unit for _, unit, _ in masks))
    return f"masks on {len({weight for weight, _, _ in masks})} weights, {numbers:,} numbers ({units})"


def _as_json(model: Model, taps: list[Tap], masks: list[str], folded: list[str], kind: str | None) -> dict[str, Any]:
    return {
        "model": model.name,
        "sha256": model.sha256,
        "ir_version": model.proto.ir_version,
        "opset": model.opset,
        "inputs": [i.name for i in model.inputs],
        "outputs": [o.name for o in model.proto.graph.output],
        "scores": scores_of(model),
        "external_files": model.external_files,
        "kind": kind,
        "masks": masks,
        "folded": folded,
        "taps": [
            {
                "name": tap.name,
                "dtype": tap.dtype,
                "shape": list(tap.shape),
                "feature_axis": tap.feature_axis,
                "features": tap.features,
                "producer": tap.producer,
                "consumers": list(tap.consumers),
                "default": tap.is_default,
            }
            for tap in taps
        ],
    }


def _lost(model: Model) -> str | None:
    """Return a sentence where a hardened model was changed."""
    from cloakonnx.graph.masks.strip import found_masks

    return found_masks(model)[1]


def _written_out(model: Model) -> int:
    """Return how many taps a model has with its local functions written out."""
    from dataclasses import replace

    from cloakonnx.graph.index.functions import inlined
    from cloakonnx.graph.masks.taps import list_taps

    return len(list_taps(replace(model, proto=inlined(model.proto))))


def _print(model: Model, taps: list[Tap], said: list[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from cloakonnx.graph.masks.notebook import cells
    from cloakonnx.reporting.terminal import add_row, packed, print_table
    from cloakonnx.text import shown

    inputs = ", ".join(shown(i.name) for i in model.inputs)
    outputs = ", ".join(shown(o.name) for o in model.proto.graph.output)
    tell(f"{shown(model.name)}: opset {model.opset}, IR {model.proto.ir_version}, input {inputs}, output {outputs}")
    scores = scores_of(model)
    if scores is not None and [scores] != [o.name for o in model.proto.graph.output]:
        tell(f"class scores: {shown(scores)}")
    for location in model.external_files:
        tell(f"external data: {shown(location)}")
    for line in said:
        tell(line)
    listed = [tap for number, tap in enumerate(taps) if number < _ROWS or tap.is_default]
    are_short = all(len(shown(tap.name)) <= _WHOLE for tap in listed)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("", "tap", "features", "axis", "shape", "dtype", "from", "to"):
        side: Any = "right" if column in {"features", "axis"} else "left"
        table.add_column(column, overflow="fold", justify=side, no_wrap=are_short and column != "shape")
    for tap in listed:
        is_default = tap.is_default
        add_row(table, "*" if is_default else "", *cells(tap), style="bold" if is_default else None)
    if taps:
        with readers_may_leave():
            console = Console(emoji=False)  # whose table takes long to import
            if not console.is_terminal:
                console.width = 160
            print_table(packed(table, console), console)
        if len(listed) < len(taps):
            tell(f"{len(taps) - len(listed):,} more taps: --json lists all of them")
    else:
        tell("no tensor of this model can carry a mask")
    if model.proto.functions and (more := _written_out(model) - len(taps)) > 0:
        tell(f"{more} more taps once local functions are written out: onnx.inliner.inline_local_functions(model)")
    if any(tap.is_default for tap in taps):
        tell("* the default tap; choose another with --tap")
