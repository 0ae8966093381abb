"""An attestation: what a hardened model is and how it was made, as an in-toto Statement v1.

https://github.com/in-toto/attestation, spec/v1/statement.md; the predicate's schema is published as
docs/attestation.schema.json. It is a trusted reference as far as the file itself is trusted: sign it (signing.py), or
keep it where who can change the model can't change it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from cloakonnx.classifier.given import ModelLike, model_of
from cloakonnx.entries import At, Positive, Sha256, Whole, derived, written
from cloakonnx.errors import AttestationError
from cloakonnx.evaluation.verification.signing import SigningKey, VerificationKey, read_envelope_or_statement
from cloakonnx.files import write_text
from cloakonnx.graph.file.diff import external_digests
from cloakonnx.graph.file.fingerprint import fingerprint
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.masks.metadata import Given, InWeight, digest_of, entries, folded_masks, is_folded
from cloakonnx.graph.masks.strip import read_masks
from cloakonnx.json_files import converted, installed_versions, json_text, parsed, read_text
from cloakonnx.remote import local

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["urn:cloakonnx:hardening:1"] = "urn:cloakonnx:hardening:1"

Part = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


@dataclass(frozen=True)
class AttestedMask:
    """A mask as the file holds it.

    Attributes:
        tap: The masked tensor.
        feature_axis: The axis that its weights run along; None where that is the tap's own.
        shape: Of its weights: (F,), or that of a sample.
        removed: How many weights are 0.
        sha256: Of the weights as little-endian float32, in C order.
        granularity: Of a mask on a weight, what one number multiplies; None for one at an activation.
    """

    tap: str
    feature_axis: Whole | None
    shape: Annotated[tuple[Positive, ...], Meta(extra_json_schema={"minItems": 1})]
    removed: Whole
    sha256: Sha256
    granularity: Annotated[
        str | None, At(omitted=True, described=Literal["kernel", "weight", "output-channel", "input-channel"])
    ] = None

    @property
    def key(self) -> str:
        """What tells it from the other masks of a model."""
        return Mask.key_of(self.tap, self.granularity)

    @classmethod
    def of(cls, mask: Mask) -> AttestedMask:
        """Describe a mask."""
        unit = mask.granularity if mask.on_weight else None
        return cls(mask.tap, mask.feature_axis, mask.weights.shape, len(mask.removed), digest_of(mask), unit)

    @classmethod
    def of_model(cls, model: Model) -> tuple[AttestedMask, ...]:
        """Describe the masks that a hardened model carries; raises CheckError and ModelError where it is damaged."""
        given: Sequence[Given] = folded_masks(model.proto) if is_folded(model.proto) else read_masks(model)
        return tuple(cls.of(mask) if isinstance(mask, Mask) else cls._inside(mask) for mask in given)

    @classmethod
    def _inside(cls, mask: InWeight) -> AttestedMask:
        return cls(mask.tap, None, mask.shape, mask.removed, mask.sha256, mask.granularity)


@dataclass(frozen=True)
class Subject:
    """A file.

    Attributes:
        name: Its name.
        sha256: sha256 of the file.
    """

    name: str
    sha256: Annotated[Sha256, At("digest.sha256")]


@dataclass(frozen=True)
class Attestation:
    """What a hardened model is.

    Attributes:
        subject: The hardened model, then its external data files by location.
        source: The model that it was made from.
        kind: Masks as Mul nodes, or folded into weights.
        masks: What it carries.
        settings: Of the command that made it; files by name and sha256.
        versions: Of the packages.
        parts: Every part of the model file, in order, with the first 16 hex digits of its sha256: to name what was
            changed. Whether the file is the attested one the subject's digest says.
        signature: What was made of its signature when it was read: there was none, or whether it was checked.

    Examples:
        >>> import numpy as np
        >>> import cloakonnx as ck
        >>> hardened = ck.apply("samples/digits_cnn.onnx", ck.Mask("/6/Relu_output_0", np.r_[0.0, np.ones(63)]))
        >>> [mask.removed for mask in ck.attest(hardened, "samples/digits_cnn.onnx").masks]
        [1]
    """

    subject: Annotated[tuple[Subject, ...], Meta(extra_json_schema={"minItems": 1})]
    source: Annotated[Subject, At("predicate.source")]
    kind: Annotated[Literal["mul", "folded"], At("predicate.kind")]
    masks: Annotated[tuple[AttestedMask, ...], At("predicate.masks"), Meta(extra_json_schema={"minItems": 1})]
    settings: Annotated[Mapping[str, Any], At("predicate.settings")]
    versions: Annotated[Mapping[str, str], At("predicate.versions")]
    parts: Annotated[Mapping[str, str], At("predicate.parts", described=Mapping[str, Part])]
    signature: Literal["none", "not checked", "checked"] = field(default="none", compare=False)

    def __post_init__(self) -> None:
        """Check the subjects; raises ValueError."""
        if not self.subject or len({each.name for each in self.subject}) < len(self.subject):
            raise ValueError("it names no subject, or one twice")

    @property
    @derived("_type", before="subject")
    def statement_type(self) -> Literal["https://in-toto.io/Statement/v1"]:
        """The statement's type."""
        return STATEMENT_TYPE

    @property
    @derived("predicateType", before="source")
    def predicate_type(self) -> Literal["urn:cloakonnx:hardening:1"]:
        """The predicate's type."""
        return PREDICATE_TYPE

    @property
    def name(self) -> str:
        """The model's file name when it was made."""
        return self.subject[0].name

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return self.subject[0].sha256

    @property
    def files(self) -> dict[str, str]:
        """Digests of its external data files, by location."""
        return {each.name: each.sha256 for each in self.subject[1:]}

    @property
    def source_name(self) -> str:
        """The model that it was made from."""
        return self.source.name

    @property
    def source_sha256(self) -> str:
        """Digest of that."""
        return self.source.sha256

    def to_json(self) -> str:
        """Return the file's text: the same model, settings and versions always give the same text."""
        return json_text(written(self))

    @classmethod
    def from_json(cls, text: str, *, name: str = "attestation", key: VerificationKey | None = None) -> Attestation:
        """Read the file's text: a statement, or a DSSE envelope with one.

        Args:
            text: Of the file.
            name: Of the file, for messages.
            key: What it must be signed by; nothing in the envelope is read before that was checked.

        Raises:
            AttestationError: it is not an attestation of a hardened model, or damaged, or not signed by the key.
        """
        text, enveloped = read_envelope_or_statement(text, name=name, key=key)
        content = parsed(text, name=name, error=AttestationError)
        for entry, value in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
            if not isinstance(content, dict) or content.get(entry) != value:
                raise AttestationError(
                    f"{name} is not an attestation of a hardened model: its {entry} is not {value!r}"
                )
        try:
            found = converted(content, cls)
        except ValueError as error:
            raise AttestationError(f"{name} is damaged: {error}; make it with: cloakonnx apply --attestation") from None
        return replace(found, signature="none" if not enveloped else "not checked" if key is None else "checked")

    def save(self, path: str | Path, *, key: SigningKey | None = None) -> None:
        """Write the file atomically; raises OutputError where it can't be written.

        Args:
            path: The file.
            key: What signs it; without one the plain statement is written.
        """
        write_text(local(path, writes=True), self.to_json() if key is None else key.sign(self.to_json()))


def attest(model: ModelLike, source: ModelLike, *, settings: Mapping[str, Any] | None = None) -> Attestation:
    """Describe a hardened model that was just made.

    Args:
        model: The hardened model, loaded from its file.
        source: What it was made from: its name is taken, its digest is the one that the model records.
        settings: Settings of what made it, for the record; JSON values.

    Raises:
        AttestationError: the model carries no masks.

    Examples:
        >>> import numpy as np
        >>> import cloakonnx as ck
        >>> hardened = ck.apply("samples/digits_cnn.onnx", ck.Mask("/6/Relu_output_0", np.r_[0.0, np.ones(63)]))
        >>> ck.attest(hardened, "samples/digits_cnn.onnx").kind
        'mul'
    """
    hardened, origin = model_of(model), model_of(source)
    masks = AttestedMask.of_model(hardened)
    if not masks:
        raise AttestationError(f"{hardened.name} carries no cloakonnx masks, so there is nothing to attest")
    files = external_digests(hardened)
    return Attestation(
        subject=(Subject(hardened.name, hardened.sha256), *map(Subject, files, files.values())),
        source=Subject(origin.name, entries(hardened.proto).get(SOURCE_KEY, origin.sha256)),
        kind="folded" if is_folded(hardened.proto) else "mul",
        masks=masks,
        settings=settings or {},
        versions=installed_versions(),
        parts=fingerprint(hardened),
    )


def load_attestation(path: str | Path, *, key: VerificationKey | None = None) -> Attestation:
    """Read an attestation file, signed or not.

    Args:
        path: The file.
        key: What it must be signed by; None checks no signature.

    Raises:
        AttestationError: missing or damaged, or not signed by the key.
    """
    return Attestation.from_json(read_text(path, kind="attestation", error=AttestationError), name=str(path), key=key)
