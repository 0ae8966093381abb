"""``cloakonnx apply``: writes the hardened model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli import options
from cloakonnx.cli._external import watched
from cloakonnx.cli._output import print_json, say
from cloakonnx.cli._signing import sign_key_option, signing_key
from cloakonnx.cli._types import Number, Remove

if TYPE_CHECKING:
    from cloakonnx.graph.file.model import Model
    from cloakonnx.graph.fold.fold import MaskFate
    from cloakonnx.graph.masks.mask import Mask
    from cloakonnx.selection.topk import Amount


@click.command("apply")
@options.model_argument
@click.option("--analysis", type=options.PATH, help="The analysis.  [MODEL.cloak.json]")
@click.option("--remove", type=Remove(), help="How many features: a share (5%) or a count (3).  [5%]")
@click.option("--threshold", type=Number(), help="Remove every feature that scores this much or more instead.")
@click.option(
    "--mask", type=options.PATH, multiple=True, help="A mask (.npy) of your own; needs --tap and no analysis."
)
@click.option("--tap", metavar="TENSOR", multiple=True, help="The tensor that --mask is for; one for each --mask.")
@click.option("--feature-axis", type=int, help="The axis that --mask runs along.  [told from the graph]")
@click.option("-o", "--output", type=options.PATH, help="The hardened model.  [MODEL.hardened.onnx]")
@click.option("--fold", is_flag=True, help="Move masks into weights where that is exact; no Mul nodes for these.")
@click.option(
    "--float16-masks", is_flag=True, help="Store masks on weights as float16, in half the bytes; the error is printed."
)
@options.hash_external_option
@click.option("--attestation", type=options.PATH, help="Write what was made of what, for 'verify --attestation'.")
@sign_key_option
@click.option("--dry-run", is_flag=True, help="Say what would be masked and write nothing.")
@options.force_option
@options.json_option
def command(
    *,
    model: Path,
    analysis: Path | None,
    remove: Amount | None,
    threshold: float | None,
    mask: tuple[Path, ...],
    tap: tuple[str, ...],
    feature_axis: int | None,
    output: Path | None,
    fold: bool,
    float16_masks: bool,
    hash_external: bool,
    attestation: Path | None,
    sign_key: Path | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write MODEL with the masks that its analysis leads to: one Mul node a mask, and nothing else changes.

    \b
    cloakonnx apply model.onnx
    cloakonnx apply model.onnx --remove 10% --dry-run
    cloakonnx apply model.onnx --mask mask.npy --tap features
    cloakonnx apply model.onnx --fold

    External data stays where it is when the output is beside MODEL, and is copied when not. Its digests are recorded in
    the hardened model, for 'verify'.

    With --fold the model keeps its nodes and its speed, and weights change instead. Masks that can't fold stay Mul
    nodes; each is named with the reason. 'strip' can't undo it, and 'verify' needs --source or --attestation.
    """
    from cloakonnx.graph.file.model import load
    from cloakonnx.graph.masks.harden import check_target

    key = signing_key(sign_key, signs=attestation is not None)
    loaded = load(model)
    target = output or model.with_suffix(".hardened.onnx")
    inputs = (model, analysis, sign_key, *mask)
    if attestation is not None and attestation.absolute() == target.absolute():
        raise click.UsageError(f"the attestation and the hardened model are both {target}")
    check_target(loaded, target, force=force or dry_run)
    if not dry_run:
        options.claim(target, inputs=inputs, force=force)
    if attestation is not None and not dry_run:
        options.claim(attestation, inputs=inputs, force=force)
    if mask or tap:
        if analysis or remove or threshold is not None:
            raise click.UsageError("--mask takes no --analysis, --remove or --threshold: it is applied as it is")
        masks = _own_masks(mask, tap, feature_axis)
    else:
        if feature_axis is not None:
            raise click.UsageError("--feature-axis goes with --mask; an analysis knows its own")
        masks = _analysed_masks(loaded, model, analysis, remove, threshold)
    if float16_masks:
        masks = _rounded(masks, fold=fold)
    if dry_run:
        fates = _planned(loaded, masks, target, fold=fold)
    else:
        fates = _written(loaded, masks, target, fold=fold, force=force, hash_external=hash_external)
    _tell(masks, fates, target, dry_run=dry_run, as_json=as_json)
    if attestation is not None and not dry_run:
        from cloakonnx.evaluation.verification.attestation import attest

        settings = _settings(model, analysis, mask, remove, threshold) | {"fold": fold, "hash_external": hash_external}
        settings |= {"float16_masks": True} if float16_masks else {}
        attest(load(target), loaded, settings=settings).save(attestation, key=key)
        say(f"wrote {attestation}" + ("" if key is None else ", signed"))


def _rounded(masks: Sequence[Mask], *, fold: bool) -> list[Mask]:
    """Return masks with those on weights as float16 stores them, and say how far they are off."""
    from cloakonnx.graph.masks.mask import largest_relative_error

    if fold:
        raise click.UsageError("--float16-masks is for masks that are stored, and --fold stores none")
    found = [mask.as_float16() if mask.on_weight else mask for mask in masks]
    count = sum(mask.weights.size for mask in found if mask.is_float16)
    if not count:
        raise click.UsageError("--float16-masks is for masks on weights, and all of these are at activations")
    error = largest_relative_error(zip(masks, found, strict=True))
    say(
        f"{count:,} numbers on weights are stored as float16: largest relative error {error:.2g} ('cloakonnx verify "
        "--analysis' with --data compares scores)"
    )
    return found


def _planned(model: Model, masks: Sequence[Mask], target: Path, *, fold: bool) -> Sequence[MaskFate]:
    """Check what would be written, and say what would be copied."""
    from cloakonnx.graph.file.companions import Companions
    from cloakonnx.graph.fold.fold import folding
    from cloakonnx.graph.masks.harden import hardened

    fates: Sequence[MaskFate] = ()
    if fold:
        fates = folding(model, masks).fates
    else:
        hardened(model, masks)
    for copy in Companions(model, model.external_files, target.absolute().parent, force=True).copies:
        say(f"would copy {copy}")
    return fates


def _written(
    model: Model, masks: Sequence[Mask], target: Path, *, fold: bool, force: bool, hash_external: bool
) -> Sequence[MaskFate]:
    from cloakonnx.graph.fold.fold import fold_file
    from cloakonnx.graph.masks.harden import harden_file

    with watched(model) as watch:
        if fold:
            return fold_file(model, masks, target, force=force, hash_external=hash_external, watch=watch)
        harden_file(model, masks, target, force=force, hash_external=hash_external, watch=watch)
    return ()


def _settings(
    model: Path, analysis: Path | None, masks: tuple[Path, ...], remove: Amount | None, threshold: float | None
) -> dict[str, Any]:
    """Return where the masks came from, for the attestation: names and digests, no paths."""
    from cloakonnx.graph.file.diff import file_sha256
    from cloakonnx.scoring.analysis import default_path

    files = masks or (analysis or default_path(model),)
    named = [{"name": path.name, "sha256": file_sha256(path)} for path in files]
    settings: dict[str, Any] = {"verb": "apply", "masks" if masks else "analysis": named if masks else named[0]}
    if remove is not None:
        settings["remove"] = remove.value
    if threshold is not None:
        settings["threshold"] = threshold
    return settings


def _analysed_masks(
    loaded: Model, model: Path, path: Path | None, remove: Amount | None, threshold: float | None
) -> list[Mask]:
    from cloakonnx.scoring.analysis import default_path, load_analysis
    from cloakonnx.selection.topk import DEFAULT_AMOUNT, Threshold, select

    if remove is not None and threshold is not None:
        raise click.UsageError("--remove and --threshold exclude each other")
    analysis = load_analysis(path or default_path(model), model=model.name)
    analysis.check_model(loaded)
    if analysis.scores is None:
        if remove is not None or threshold is not None:
            raise click.UsageError(
                "the analysis holds learned masks, which are applied as they are: no --remove, no --threshold"
            )
        return list(analysis.masks)
    amount = Threshold(threshold) if threshold is not None else remove or DEFAULT_AMOUNT
    return [select(analysis.scores, amount)]


def _own_masks(files: tuple[Path, ...], taps: tuple[str, ...], feature_axis: int | None) -> list[Mask]:
    from cloakonnx.data.arrays import load_array
    from cloakonnx.graph.masks.mask import Mask

    if len(files) != len(taps):
        raise click.UsageError(f"--mask and --tap go together: {len(files)} of one, {len(taps)} of the other")
    return [Mask(tap, load_array(file), feature_axis) for file, tap in zip(files, taps, strict=True)]


def _tell(masks: list[Mask], fates: Sequence[MaskFate], target: Path, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        listed: list[dict[str, Any]] = [{"tap": m.tap, "features": m.weights.size, "removed": m.removed} for m in masks]
        for entry, fate in zip(listed, fates, strict=bool(fates)):
            entry |= {"folded": fate.folded, "layers": list(fate.layers), "reason": fate.reason}
        print_json({"output": str(target), "written": not dry_run, "masks": listed})
        return
    from cloakonnx.graph.masks.granularity import granularity
    from cloakonnx.graph.masks.mask import FEATURE

    for mask in masks:
        removed = mask.removed
        other = int(((mask.weights != 0) & (mask.weights != 1)).sum())
        scaled = f", {other} scaled" if other else ""
        verb = "would remove" if dry_run else "removed"
        what = granularity(mask.granularity or FEATURE).unit
        which = f": {_shortened(removed)}" if removed or not other else ""
        say(f"{mask.tap}: {verb} {len(removed)} of {mask.weights.size} {what}{scaled}{which}")
    if fates:
        _tell_fates(fates)
    say(f"would write {target}" if dry_run else f"wrote {target}")


def _tell_fates(fates: Sequence[MaskFate]) -> None:
    for fate in fates:
        if fate.folded:
            more = f" and {len(fate.layers) - 2} more layers" if len(fate.layers) > 2 else ""
            where = f"folded into {', '.join(fate.layers[:2])}{more}" if fate.layers else "folded: no weight changes"
            say(f"{fate.tap}: {where}")
        else:
            say(f"{fate.tap}: stays a Mul node: {fate.reason}")
    count = sum(fate.folded for fate in fates)
    if count == 0:
        say("no mask folds: the model gets Mul nodes only, and 'strip' can undo it")
    else:
        say(f"{count} of {len(fates)} masks folded")


def _shortened(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:20]))
    return (shown or "none") + (f", ... ({len(indices) - 20} more)" if len(indices) > 20 else "")
