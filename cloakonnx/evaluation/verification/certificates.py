"""The public key of a signer's certificate, after the chain to a root that is trusted was checked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloakonnx.errors import KeyFileError
from cloakonnx.evaluation.verification.signing import VerificationKey, check_signing, read_pem
from cloakonnx.text import shown

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def load_certificate(chain: str | Path, *, ca: str | Path, now: datetime | None = None) -> VerificationKey:
    """Read a signer's certificate and check it.

    Args:
        chain: PEM: the signer's certificate first, then those between it and the root.
        ca: PEM: the roots that are trusted.
        now: When it has to be valid; the present where None.

    Raises:
        KeyFileError: a file is no certificate; one is expired or not valid yet; the chain does not lead to a root; or
            the certificate is not for signing code.
        MissingDependencyError: the extra ``sign`` is not installed.
    """
    check_signing()
    from cryptography.x509.verification import (  # noqa: PLC0415
        ExtensionPolicy,
        PolicyBuilder,
        Store,
        VerificationError,
    )

    certificates, roots = _read(chain), _read(ca)
    moment = now or datetime.now(UTC)
    for each in (*certificates, *roots):
        _check_dates(each, moment)
    leaf, *between = certificates
    _check_purpose(leaf)
    verifier = (
        PolicyBuilder()
        .store(Store(roots))
        .time(moment)
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all()
        )  # the purpose was checked above: the library knows those of web servers and their clients
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, between)
    except VerificationError as error:
        raise KeyFileError(
            f"the certificate {_name(leaf)} in {shown(chain)} does not lead to a root in {shown(ca)}: {error}"
        ) from None
    return VerificationKey.of(leaf.public_key(), str(chain))


def _read(path: str | Path) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    try:
        return load_pem_x509_certificates(read_pem(path))
    except ValueError:
        raise KeyFileError(f"{shown(path)} holds no certificate in PEM (BEGIN CERTIFICATE)") from None


def _check_dates(certificate: Certificate, now: datetime) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > last:
        raise KeyFileError(f"the certificate {_name(certificate)} expired on {last:%Y-%m-%d %H:%M} UTC")
    if now < first:
        raise KeyFileError(f"the certificate {_name(certificate)} is not valid before {first:%Y-%m-%d %H:%M} UTC")


def _check_purpose(leaf: Certificate) -> None:
    from cryptography import x509  # noqa: PLC0415

    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        signs = leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        usages, signs = x509.ExtendedKeyUsage([]), False
    except ValueError as error:
        raise KeyFileError(f"the certificate {_name(leaf)} is damaged: {error}") from None
    if not signs or x509.oid.ExtendedKeyUsageOID.CODE_SIGNING not in usages:
        raise KeyFileError(
            f"the certificate {_name(leaf)} is not one for signing code: it needs the key usage digitalSignature "
            "and the extended key usage codeSigning"
        )


def _name(certificate: Certificate) -> str:
    return repr(shown(certificate.subject.rfc4514_string()))
