"""``cloakonnx verify``: is a hardened model its source and the masks, and nothing else?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from cloakonnx.cli import options
from cloakonnx.cli._external import reading
from cloakonnx.cli._output import one_line, print_json, say, tell
from cloakonnx.cli._signing import verification_key
from cloakonnx.errors import CheckError, CloakError, ModelError

if TYPE_CHECKING:
    from cloakonnx.evaluation.verification.verify import Verification

_SIGNS = {"passed": "ok  ", "failed": "FAIL", "not checked": "-   "}


@click.command("verify")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=options.PATH)
@click.option("--source", type=options.PATH, help="The model it was hardened from: a trusted reference.")
@click.option("--attestation", type=options.PATH, help="What 'apply --attestation' wrote: a trusted reference.")
@click.option("--key", type=options.PATH, help="A public key (PEM) that the attestation must be signed by.")
@click.option("--certificate", type=options.PATH, help="The signer's certificate (PEM) instead of --key; needs --ca.")
@click.option("--ca", type=options.PATH, help="The roots (PEM) that --certificate must lead to.")
@click.option("--analysis", type=options.PATH, help="What its masks come from: the reference for these.")
@options.data_option(required=False)
@options.data_options
@options.hash_external_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random inputs.")
@options.input_option
@options.provider_options
@options.json_option
def command(
    *,
    models: tuple[Path, ...],
    source: Path | None,
    attestation: Path | None,
    key: Path | None,
    certificate: Path | None,
    ca: Path | None,
    analysis: Path | None,
    data: Path | None,
    data_script: str | None,
    hash_external: bool,
    seed: int,
    input_name: str | None,
    provider: str | None,
    device_id: int,
    as_json: bool,
    **data_options: Unpack[options.DataOptions],
) -> None:
    """Check that the hardened MODEL is its source and the masks: structure, hashes, and numbers in ONNX Runtime.

    \b
    cloakonnx verify model.hardened.onnx --source model.onnx
    cloakonnx verify model.hardened.onnx --source model.onnx --analysis model.cloak.json
    cloakonnx verify model.hardened.onnx --attestation model.attestation.json
    cloakonnx verify model.hardened.onnx --attestation model.attestation.json --key signer.pub

    A source can't know which masks were meant; --analysis or --attestation tells. A folded model needs --source, to
    fold its masks into that again, or --attestation.

    Without --source or --attestation it can only check that the model agrees with its own metadata, and says so.
    Several models are checked like that too, each whatever becomes of the others. Exit code 1 when a check fails, 2
    when a model can't be checked.
    """
    from cloakonnx.evaluation.verification.attestation import load_attestation
    from cloakonnx.evaluation.verification.verify import verify
    from cloakonnx.graph.file.model import load
    from cloakonnx.scoring.analysis import load_analysis

    if len(models) > 1 and (source or attestation or analysis):
        raise click.UsageError("--source, --attestation and --analysis go with one model")
    signer = verification_key(attestation, key, certificate, ca)
    attested = None if attestation is None else load_attestation(attestation, key=signer)
    reference = None if source is None else load(source)
    if attested is not None and attested.signature == "not checked":
        say(f"{attestation}: its signature was NOT checked; name the signer's public key with --key")
    known = None if analysis is None else load_analysis(analysis, model=models[0].name)
    chosen = options.choose(provider, device_id)

    def verified(path: Path) -> Verification:
        try:
            loaded = load(path)
        except ModelError as error:
            if path.is_file() and (reference is not None or attested is not None):  # it was a model once
                raise CheckError(f"{path.name} failed verification: {error}") from None
            raise
        opened = options.open_data(data, data_script, data_options, option="data")
        classifier = options.classifier(loaded, data_options, input_name=input_name).on(chosen)
        with reading(loaded) as advance:
            return verify(
                classifier,
                source=reference,
                attestation=attested,
                analysis=known,
                samples=None if opened is None else options.dataset(classifier, opened, data_options),
                seed=seed,
                hash_external=hash_external,
                on_read=advance,
            )

    code, listed = 0, []
    for path in models:
        try:
            result = verified(path)
        except CloakError as error:
            if len(models) == 1:
                raise
            say(one_line(error))  # the other models are verified nonetheless
            listed.append({"model": path.name, "error": str(error), "passed": False})
            code = max(code, error.exit_code)
            continue
        listed.append({**asdict(result), "passed": result.passed})
        if not as_json:
            _print(result, named=len(models) > 1)
        _conclude(result, attestation, None if signer is None else Path(signer.name))
        code = max(code, 0 if result.passed else 1)
    if as_json:
        print_json(listed if len(models) > 1 else listed[0])
    raise click.exceptions.Exit(code)


def _print(result: Verification, *, named: bool) -> None:
    for check in result.checks:
        tell(f"{_SIGNS[check.status]} {f'{result.model}: ' if named else ''}{check.name}: {check.detail}")


def _conclude(result: Verification, attestation: Path | None, key: Path | None) -> None:
    unread = "; its external data was not checked" if result.data_unchecked else ""
    if not result.passed:
        say(f"cloakonnx: {result.model} failed verification")
    elif attestation is not None:
        signed = "" if key is None else f", which is signed by {key.name}"
        say(f"{result.model} is as {attestation.name} says{signed}{unread}")
    elif result.source is not None:
        say(f"{result.model} is {result.source} with its masks{unread}")
    else:
        say(f"{result.model} is consistent with itself; no trusted reference given{unread}")
