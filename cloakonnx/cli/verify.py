"""``cloakonnx verify``: is a hardened model its source and the masks, and nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import click

from cloakonnx.cli._data import AnyData
from cloakonnx.cli._external import reading
from cloakonnx.cli._files import PATH, HashExternal, Json
from cloakonnx.cli._output import complain, one_line, print_json, say, tell
from cloakonnx.cli._parameters import option_of
from cloakonnx.cli._runs import Runs
from cloakonnx.cli._shared import seed
from cloakonnx.cli._signing import verification_key
from cloakonnx.cli._verb import Group, argument, option, verb

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset
    from cloakonnx.evaluation.verification.several import Outcome
    from cloakonnx.evaluation.verification.signing import VerificationKey
    from cloakonnx.evaluation.verification.verify import Verification
    from cloakonnx.graph.file.model import Model

_SIGNS = {"passed": "ok  ", "failed": "FAIL", "not checked": "-   "}


@dataclass(frozen=True, kw_only=True)
class _References(Group):
    """Trusted references, and who must have signed them."""

    source: Path | None = option("--source", type=PATH, help="Model it was hardened from, as a trusted reference.")
    attestation: Path | None = option(
        "--attestation", type=PATH, help="Attestation written by 'cloakonnx apply', as a trusted reference."
    )
    key: Path | None = option("--key", type=PATH, help="Public key (PEM) that must have signed the attestation.")
    certificate: Path | None = option(
        "--certificate", type=PATH, help="Certificate (PEM) of the signer, instead of --key; needs --ca."
    )
    ca: Path | None = option("--ca", type=PATH, help="Root certificates (PEM) that --certificate must lead to.")
    analysis: Path | None = option("--analysis", type=PATH, help="Analysis of the masks, as the reference for these.")

    def check(self, models: Sequence[Path], *, allow_other_bytes: bool) -> None:
        """Check that options go together."""
        if len(models) > 1 and (self.source or self.attestation or self.analysis):
            raise click.UsageError("--source, --attestation and --analysis go with one model")
        if allow_other_bytes and self.source is None:
            raise click.UsageError("--allow-other-bytes needs --source, whose graph the model's is compared with")

    @property
    def signer(self) -> VerificationKey | None:
        """What the attestation must be signed by."""
        return verification_key(self.attestation, self.key, self.certificate, self.ca)

    def load(self, model: Path, signer: VerificationKey | None) -> dict[str, Any]:
        """Load the references, as :func:`cloakonnx.verify` takes them."""
        from cloakonnx.evaluation.verification.attestation import load_attestation
        from cloakonnx.graph.file.model import load
        from cloakonnx.scoring.analysis import load_analysis

        attested = None if self.attestation is None else load_attestation(self.attestation, key=signer)
        source = None if self.source is None else load(self.source)
        if attested is not None and attested.signature == "not checked":
            complain(f"{self.attestation}: its signature was NOT checked; name the signer's public key with --key")
        analysis = None if self.analysis is None else load_analysis(self.analysis, model=model.name)
        return {"source": source, "attestation": attested, "analysis": analysis}


@dataclass(frozen=True, kw_only=True)
class _Numbers(Runs):
    """Where numbers are compared: the outputs' names and sizes of batches do not matter."""

    feeds: ClassVar[bool] = False

    batch_size: int = 64
    output_name: str | None = None
    task: Any = None
    batch_axis: int | None = None
    workers: int | None = None
    engine: str = "local"
    gpus_per_worker: float | None = None
    cpus_per_worker: int | None = None


OtherBytes = Annotated[
    bool,
    option(
        "--allow-other-bytes",
        is_flag=True,
        help="Pass a model with the same graph but other bytes than --source with its masks; needs --source.",
    ),
]
Seed = Annotated[int, seed("Random seed of the random inputs.")]


@verb("verify")
def command(
    *,
    models: Annotated[tuple[Path, ...], argument(metavar="MODEL...", nargs=-1, required=True, type=PATH)],
    references: _References,
    data: AnyData,
    runs: _Numbers,
    allow_other_bytes: OtherBytes,
    hash_external: HashExternal,
    random_seed: Seed,
    as_json: Json,
) -> None:
    """Check that the hardened MODEL is its source plus the masks: structure, hashes, and numbers in ONNX Runtime.

    \b
    cloakonnx verify model.hardened.onnx --source model.onnx
    cloakonnx verify model.hardened.onnx --source model.onnx --analysis model.cloak.json
    cloakonnx verify model.hardened.onnx --attestation model.attestation.json
    cloakonnx verify model.hardened.onnx --attestation model.attestation.json --key signer.pub

    --source alone cannot show which masks were intended; --analysis or --attestation can. A folded model needs
    --source, into which its masks are folded again, or --attestation.

    Without --source and --attestation, only consistency with the model's own metadata is checked, which is printed.
    Several models are checked that way too, each on its own. Exit code 1 if a check fails, 2 if a model cannot be
    checked.
    """
    references.check(models, allow_other_bytes=allow_other_bytes)
    signer = references.signer
    settings: dict[str, Any] = {
        **references.load(models[0], signer),
        "seed": random_seed,
        "hash_external": hash_external,
    }
    settings["allow_other_bytes"] = allow_other_bytes
    outcomes = _verified(models, data, runs, settings)
    listed = [_told(each, references, signer, named=len(models) > 1, as_json=as_json) for each in outcomes]
    if as_json:
        print_json([entry for entry, _ in listed] if len(models) > 1 else listed[0][0])
    raise click.exceptions.Exit(max(code for _, code in listed))


def _verified(models: Sequence[Path], data: AnyData, runs: _Numbers, settings: dict[str, Any]) -> Iterator[Outcome]:
    """Verify the models; raises the error of a single one."""
    from cloakonnx.evaluation.verification.several import verify_files

    provider = runs.chosen()

    def samples(classifier: Classifier) -> Dataset | None:
        source = data.source()
        return None if source is None else data.fitted(classifier, source)

    def classifier(model: Model) -> Classifier:
        return runs.classifier(model, data).on(provider)

    for each in verify_files(models, classifier=classifier, samples=samples, reading=reading, **settings):
        if each.error is not None and len(models) == 1:
            raise each.error
        yield each


def _told(
    outcome: Outcome, references: _References, signer: VerificationKey | None, *, named: bool, as_json: bool
) -> tuple[dict[str, Any], int]:
    """Print what became of a model; returns its entry in the JSON, and its exit code."""
    if outcome.verification is None:
        said = "" if outcome.error is None else outcome.error.said(option_of)
        complain(one_line(said))
        return {"model": outcome.path.name, "error": said, "passed": False}, outcome.exit_code
    if not as_json:
        _print(outcome.verification, named=named)
    _conclude(outcome.verification, references.attestation, None if signer is None else Path(signer.name))
    return {**asdict(outcome.verification), "passed": outcome.passed}, outcome.exit_code


def _print(result: Verification, *, named: bool) -> None:
    for check in result.checks:
        tell(f"{_SIGNS[check.status]} {f'{result.model}: ' if named else ''}{check.name}: {check.detail}")


def _conclude(result: Verification, attestation: Path | None, key: Path | None) -> None:
    unread = "; its external data was not checked" if result.data_unchecked else ""
    if not result.passed:
        complain(f"cloakonnx: {result.model} failed verification")
    elif any(check.name == "same function" for check in result.checks):
        say(f"{result.model} holds the graph of {result.source} with its masks; its other bytes are allowed")
    elif attestation is not None:
        signed = "" if key is None else f", which is signed by {key.name}"
        say(f"{result.model} is as {attestation.name} says{signed}{unread}")
    elif result.source is not None:
        say(f"{result.model} is {result.source} with its masks{unread}")
    else:
        say(f"{result.model} is consistent with itself; no trusted reference given{unread}")
