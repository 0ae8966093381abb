"""Options with keys: what signs an attestation, and what its signature is checked with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli._files import PATH
from cloakonnx.cli._verb import option

if TYPE_CHECKING:
    from cloakonnx.evaluation.verification.signing import SigningKey, VerificationKey


def sign_key_option() -> Any:
    """Declare --sign-key."""
    return option("--sign-key", type=PATH, help="Private key (PEM) that signs the attestation; needs the extra 'sign'.")


def signing_key(path: Path | None, *, signs: bool = True) -> SigningKey | None:
    """Read the private key, where there is something that it ``signs``.

    Its passphrase comes from the environment, or is asked for on a terminal.
    """
    if path is None:
        return None
    if not signs:
        raise click.UsageError("--sign-key signs what --attestation writes: give both")
    from cloakonnx.evaluation.verification.signing import PASSPHRASE, load_signing_key

    def passphrase() -> str | None:
        given = os.environ.get(PASSPHRASE)
        if given or not sys.stdin.isatty():
            return given
        return str(click.prompt(f"Passphrase of {path.name}", hide_input=True, err=True))

    return load_signing_key(path, passphrase=passphrase)


def verification_key(
    attestation: Path | None, key: Path | None, certificate: Path | None, ca: Path | None
) -> VerificationKey | None:
    """Return what the attestation must be signed by; None where nothing was asked for."""
    if (certificate is None) != (ca is None):
        raise click.UsageError(
            "--certificate and --ca go together: the signer's certificate, and the roots it leads to"
        )
    if key is not None and certificate is not None:
        raise click.UsageError("--key and --certificate exclude each other")
    if attestation is None and (key is not None or certificate is not None):
        raise click.UsageError("--key and --certificate check the signature of an --attestation, which is missing")
    if certificate is not None and ca is not None:
        from cloakonnx.evaluation.verification.certificates import load_certificate

        return load_certificate(certificate, ca=ca)
    if key is not None:
        from cloakonnx.evaluation.verification.signing import load_verification_key

        return load_verification_key(key)
    return None
