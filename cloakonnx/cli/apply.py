"""``cloakonnx apply``: writes the hardened model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli._completion import taps
from cloakonnx.cli._external import watched
from cloakonnx.cli._files import JSON_OUTPUT, MODEL_OUTPUT, PATH, HashExternal, Json, ModelFile, Output, keep_apart
from cloakonnx.cli._output import print_json, say
from cloakonnx.cli._signing import sign_key_option, signing_key
from cloakonnx.cli._types import Number, Remove
from cloakonnx.cli._verb import Group, option, verb

if TYPE_CHECKING:
    from cloakonnx.evaluation.verification.signing import SigningKey
    from cloakonnx.graph.file.model import Model
    from cloakonnx.graph.fold.fold import MaskFate
    from cloakonnx.graph.masks.mask import Mask
    from cloakonnx.selection.topk import Amount


@dataclass(frozen=True, kw_only=True)
class _Masks(Group):
    """Where the masks come from."""

    analysis: Path | None = option(
        "--analysis", type=PATH, help="Analysis that the masks come from.  [MODEL.cloak.json]"
    )
    remove: Amount | None = option(
        "--remove", type=Remove(), help="Features to remove: a share (5%) or a count (3).  [5%]"
    )
    threshold: float | None = option(
        "--threshold", type=Number(), help="Remove every feature that scores this much or more, instead of --remove."
    )
    mask: tuple[Path, ...] = option(
        "--mask", type=PATH, multiple=True, help="Mask of your own (.npy), instead of an analysis; needs --tap."
    )
    tap: tuple[str, ...] = option(
        "--tap",
        metavar="TENSOR",
        multiple=True,
        shell_complete=taps,
        help="Tensor that --mask multiplies; one for each --mask.",
    )
    feature_axis: int | None = option(
        "--feature-axis", type=int, help="Axis of the tensor that --mask runs along.  [inferred from the graph]"
    )

    @property
    def amount(self) -> Amount | None:
        """How much is removed; None for the default."""
        from cloakonnx.selection.topk import Threshold

        return self.remove if self.threshold is None else Threshold(self.threshold)

    def load(self, model: Model, path: Path) -> list[Mask]:
        """Return the masks for a model; its path tells where its analysis is."""
        if self.mask or self.tap:
            if self.analysis or self.amount is not None:
                raise click.UsageError("--mask takes no --analysis, --remove or --threshold: it is applied as it is")
            return self._own()
        if self.feature_axis is not None:
            raise click.UsageError("--feature-axis goes with --mask; an analysis knows its own")
        if self.remove is not None and self.threshold is not None:
            raise click.UsageError("--remove and --threshold exclude each other")
        from cloakonnx.scoring.analysis import load_analysis
        from cloakonnx.selection.applied import masks_of

        analysis = load_analysis(self.path(path), model=path.name)
        analysis.check_model(model)
        return masks_of(analysis, self.amount)

    def path(self, model: Path) -> Path:
        """Return the analysis's path."""
        from cloakonnx.scoring.analysis import default_path

        return self.analysis or default_path(model)

    def _own(self) -> list[Mask]:
        from cloakonnx.data.arrays import load_array
        from cloakonnx.graph.masks.mask import Mask

        if len(self.mask) != len(self.tap):
            raise click.UsageError(
                f"--mask and --tap go together: {len(self.mask)} of one, {len(self.tap)} of the other"
            )
        pairs = zip(self.mask, self.tap, strict=True)
        return [Mask(tap, load_array(file), self.feature_axis) for file, tap in pairs]


@dataclass(frozen=True, kw_only=True)
class _Hardened(Output):
    """The hardened model, and how the masks are stored in it."""

    output: Path | None = option(
        "-o", "--output", type=MODEL_OUTPUT, help="Output file for the hardened model.  [MODEL.hardened.onnx]"
    )
    fold: bool = option(
        "--fold", is_flag=True, help="Multiply masks into weights where that is exact, instead of adding Mul nodes."
    )
    float16_masks: bool = option(
        "--float16-masks", is_flag=True, help="Store masks on weights as float16: half the bytes; prints the error."
    )

    def of(self, model: Path) -> Path:
        """Return the output's path."""
        return self.output or model.with_suffix(".hardened.onnx")


@dataclass(frozen=True, kw_only=True)
class _Attested(Group):
    """The attestation, who signs it, and whether anything is written at all."""

    attestation: Path | None = option(
        "--attestation", type=JSON_OUTPUT, help="Output file for the attestation, which 'cloakonnx verify' checks."
    )
    sign_key: Path | None = sign_key_option()
    dry_run: bool = option("--dry-run", is_flag=True, help="Print what would be masked, and write nothing.")

    @property
    def key(self) -> SigningKey | None:
        """The key that signs."""
        return signing_key(self.sign_key, signs=self.attestation is not None)


@verb("apply")
def command(
    *, model: ModelFile, masks: _Masks, output: _Hardened, hash_external: HashExternal, attested: _Attested,
    as_json: Json,
) -> None:  # fmt: skip
    """Write MODEL with the masks of its analysis: one Mul node per mask, and no other change.

    \b
    cloakonnx apply model.onnx
    cloakonnx apply model.onnx --remove 10% --dry-run
    cloakonnx apply model.onnx --mask mask.npy --tap features
    cloakonnx apply model.onnx --fold

    External data is left where it is if the output is in the same folder, and copied otherwise. Its sha256 is recorded
    in the hardened model, for 'verify'.

    With --fold the model keeps its nodes and its speed, and weights change instead. Masks that cannot be folded stay
    Mul nodes; each is listed with the reason. 'strip' cannot undo it, and 'verify' needs --source or --attestation.
    """
    from cloakonnx.graph.file.model import load

    key, dry_run = attested.key, attested.dry_run
    loaded, target = load(model), output.of(model)
    _claim(loaded, target, output, attested, inputs=(model, masks.analysis, attested.sign_key, *masks.mask))
    made = masks.load(loaded, model)
    made = _rounded(made, fold=output.fold) if output.float16_masks else made
    if dry_run:
        fates = _planned(loaded, made, target, fold=output.fold)
    else:
        fates = _written(loaded, made, target, output, hash_external=hash_external)
    if not as_json:
        _tell(made, fates, target, dry_run=dry_run)
    if attested.attestation is not None and not dry_run:
        settings = _settings(masks, output, model, hash_external=hash_external)
        _attest(target, loaded, settings, attested.attestation, key)
    if as_json:  # last: it says that all is done
        _print(made, fates, target, dry_run=dry_run)


def _claim(model: Model, target: Path, output: Output, attested: _Attested, *, inputs: Sequence[Path | None]) -> None:
    """Check where the model and its attestation go, and hold them unless nothing is written."""
    from cloakonnx.graph.masks.harden import check_target

    check_target(model, target, force=output.force or attested.dry_run)
    if not attested.dry_run:
        output.claim(target, attested.attestation, inputs=inputs)
    elif attested.attestation is not None:
        keep_apart(target)
        keep_apart(attested.attestation)


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
    model: Model, masks: Sequence[Mask], target: Path, output: _Hardened, *, hash_external: bool
) -> Sequence[MaskFate]:
    from cloakonnx.graph.fold.fold import fold_file
    from cloakonnx.graph.masks.harden import harden_file

    with watched(model) as watch:
        if output.fold:
            return fold_file(model, masks, target, force=output.force, hash_external=hash_external, watch=watch)
        harden_file(model, masks, target, force=output.force, hash_external=hash_external, watch=watch)
    return ()


def _settings(masks: _Masks, output: _Hardened, model: Path, *, hash_external: bool) -> dict[str, Any]:
    from cloakonnx.selection.applied import applied_settings

    return applied_settings(
        analysis=masks.path(model),
        masks=masks.mask,
        amount=masks.amount,
        fold=output.fold,
        hash_external=hash_external,
        float16_masks=output.float16_masks,
    )


def _attest(target: Path, source: Model, settings: dict[str, Any], attestation: Path, key: SigningKey | None) -> None:
    """Write the attestation of what was just written."""
    from cloakonnx.evaluation.verification.attestation import attest
    from cloakonnx.graph.file.model import load

    attest(load(target), source, settings=settings).save(attestation, key=key)
    say(f"wrote {attestation}" + ("" if key is None else ", signed"))


def _print(masks: list[Mask], fates: Sequence[MaskFate], target: Path, *, dry_run: bool) -> None:
    listed: list[dict[str, Any]] = [{"tap": m.tap, "features": m.weights.size, "removed": m.removed} for m in masks]
    for entry, fate in zip(listed, fates, strict=bool(fates)):
        entry |= {"folded": fate.folded, "layers": list(fate.layers), "reason": fate.reason}
    print_json({"output": str(target), "written": not dry_run, "masks": listed})


def _tell(masks: list[Mask], fates: Sequence[MaskFate], target: Path, *, dry_run: bool) -> None:
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
