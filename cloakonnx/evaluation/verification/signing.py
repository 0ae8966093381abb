"""Signed attestations: DSSE envelopes, made and checked with local keys.

https://github.com/secure-systems-lab/dsse. Keys and signatures are handled by securesystemslib and cryptography, the
extra ``sign``; both load when a key is read. A key comes from who calls, never from the envelope.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cloakonnx.entries import At
from cloakonnx.errors import AttestationError, KeyFileError, MissingDependencyError
from cloakonnx.json_files import converted, parsed
from cloakonnx.kinds import check_regular
from cloakonnx.remote import local
from cloakonnx.text import shown
from cloakonnx.urls import url_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
    from securesystemslib.signer import CryptoSigner, SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSPHRASE = "CLOAKONNX_SIGN_PASSPHRASE"
"""The environment variable with the passphrase of an encrypted key."""

KINDS = "ECDSA (P-256, P-384, P-521), Ed25519 and RSA (2048 bits or more)"
_RSA_SCHEMES = ("rsa-pkcs1v15-sha256", "rsassa-pss-sha256")
"""Signed with the first, as cosign does; either is accepted."""

_MOST_KEY, _MOST_SIGNATURES = 1 << 20, 100


@dataclass(frozen=True)
class _Signature:
    sig: str


@dataclass(frozen=True)
class _Envelope:
    payload: str
    payload_type: Annotated[str, At("payloadType")]
    signatures: tuple[_Signature, ...]


@dataclass(frozen=True)
class SigningKey:
    """A private key that signs attestations; made by :func:`load_signing_key`."""

    name: str
    _signer: CryptoSigner

    @property
    def keyid(self) -> str:
        """A digest of the public key, which the envelope names."""
        return str(self._signer.public_key.keyid)

    def sign(self, statement: str) -> str:
        """Return the text of an envelope that holds a statement and its signature."""
        from securesystemslib.dsse import Envelope  # noqa: PLC0415

        envelope = Envelope(statement.encode(), PAYLOAD_TYPE, {})
        envelope.sign(self._signer)
        return json.dumps(envelope.to_dict(), indent=1) + "\n"


@dataclass(frozen=True)
class VerificationKey:
    """A public key that envelopes are checked with: of :func:`load_verification_key` or :func:`load_certificate`."""

    name: str
    _keys: tuple[SSlibKey, ...]

    @classmethod
    def of(cls, public: PublicKeyTypes, name: str) -> VerificationKey:
        """Wrap a public key; raises KeyFileError where it is of a kind that is not supported."""
        return cls(name, tuple(_wrapped(public, name)))

    def signed(self, signature: bytes, payload: bytes, payload_type: str) -> bool:
        """Whether a signature of a payload and its type was made with the private half."""
        from securesystemslib.dsse import Envelope  # noqa: PLC0415
        from securesystemslib.exceptions import UnverifiedSignatureError  # noqa: PLC0415
        from securesystemslib.signer import Signature  # noqa: PLC0415

        message = Envelope(payload, payload_type, {}).pae()
        for key in self._keys:
            try:
                key.verify_signature(Signature(key.keyid, signature.hex()), message)
            except UnverifiedSignatureError:
                continue
            return True
        return False


def load_signing_key(path: str | Path, *, passphrase: str | Callable[[], str | None] | None = None) -> SigningKey:
    """Read a private key from a PEM file.

    Args:
        path: The file.
        passphrase: Of an encrypted key; a function is called only where the key is encrypted.

    Raises:
        KeyFileError: it can't be read, is of another kind, or the passphrase is missing or wrong.
        MissingDependencyError: the extra ``sign`` is not installed.
    """
    check_signing()
    from securesystemslib.signer import CryptoSigner  # noqa: PLC0415

    private = _private(read_pem(path), shown(path), passphrase)
    return SigningKey(str(path), CryptoSigner(private, next(iter(_wrapped(private.public_key(), shown(path))))))


def load_verification_key(path: str | Path) -> VerificationKey:
    """Read a public key from a PEM file.

    Raises:
        KeyFileError: it can't be read, or is of another kind.
        MissingDependencyError: the extra ``sign`` is not installed.
    """
    check_signing()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    content, name = read_pem(path), shown(path)
    if b"PRIVATE KEY-----" in content:
        raise KeyFileError(f"{name} is a private key; a signature is checked with the public one")
    if b"BEGIN CERTIFICATE-----" in content:
        raise KeyFileError(
            f"{name} is a certificate, not a public key; give it as {{certificate}}, with {{ca}}",
            parameter=("certificate", "ca"),
        )
    try:
        public = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{name} is not a public key in PEM (BEGIN PUBLIC KEY)") from None
    return VerificationKey.of(public, str(path))


def check_signing() -> None:
    """Check, before any work is done, that keys can be used; raises MissingDependencyError."""
    try:
        import cryptography.x509.verification  # noqa: F401, PLC0415
        import securesystemslib.dsse  # noqa: F401, PLC0415
    except ImportError:
        raise MissingDependencyError(
            "signatures need securesystemslib and cryptography: pip install cryptography securesystemslib"
        ) from None


def is_envelope(content: Any) -> bool:
    """Whether parsed JSON is a DSSE envelope, and not a statement."""
    return isinstance(content, dict) and "payload" in content and "_type" not in content


def payload_of(content: Any, *, name: str, key: VerificationKey | None) -> str:
    """Return the statement in an envelope; with a key only where a signature in it was made with that key.

    Raises:
        AttestationError: the envelope is damaged, holds something else, or has no signature by the key.
    """
    try:
        envelope = converted(content, _Envelope)
        payload, payload_type = _decoded(envelope.payload, "the payload"), envelope.payload_type
        said = [_decoded(each.sig, "a signature") for each in envelope.signatures]
    except ValueError as error:
        raise AttestationError(f"{name} is a damaged DSSE envelope: {error}") from None
    if not said:
        raise AttestationError(f"{name} is a DSSE envelope without signatures")
    if len(said) > _MOST_SIGNATURES:
        raise AttestationError(f"{name} has {len(said)} signatures; {_MOST_SIGNATURES} is the limit")
    if payload_type != PAYLOAD_TYPE:
        raise AttestationError(f"{name} holds {shown(payload_type)!r}, not an in-toto statement ({PAYLOAD_TYPE})")
    if key is not None and not any(key.signed(each, payload, payload_type) for each in said):
        raise AttestationError(
            f"{name} has no valid signature by the key {shown(key.name)}: it was signed with another key, "
            "or changed after it was signed"
        )
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise AttestationError(f"{name} is a damaged DSSE envelope: its payload is not text") from None


def read_envelope_or_statement(text: str, *, name: str, key: VerificationKey | None) -> tuple[str, bool]:
    """Return the text of the statement in a file, and whether it came in an envelope.

    Raises:
        AttestationError: as :func:`payload_of` does, or there is no signature and a key was given.
    """
    content = parsed(text, name=name, error=AttestationError)
    if is_envelope(content):
        return payload_of(content, name=name, key=key), True
    if key is not None:
        raise AttestationError(
            f"{name} has no signature, and one by the key {shown(key.name)} is asked for; sign it with "
            "cloakonnx apply --attestation --sign-key"
        )
    return text, False


def read_pem(path: str | Path) -> bytes:
    """Return the content of a file with a key or certificates; raises KeyFileError where it can't be read."""
    if url_of(local(path)) is not None:
        raise KeyFileError(f"{shown(path)}: keys and certificates are read from files of this machine only")
    check_regular(local(path), KeyFileError)
    try:
        with local(path).open("rb") as stream:
            content = stream.read(_MOST_KEY + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read the key {shown(path)}: {error.strerror or error}") from None
    if len(content) > _MOST_KEY:
        raise KeyFileError(f"{shown(path)} has over {_MOST_KEY:,} bytes, so it is no key")
    return content


def _private(content: bytes, name: str, passphrase: str | Callable[[], str | None] | None) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    if b"PUBLIC KEY-----" in content:
        raise KeyFileError(f"{name} is a public key; signing needs the private one")
    unreadable = f"{name} is not a private key in PEM (BEGIN PRIVATE KEY, or ENCRYPTED PRIVATE KEY)"
    try:
        return load_pem_private_key(content, None)
    except TypeError:  # it is encrypted
        secret = passphrase() if callable(passphrase) else passphrase
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(unreadable) from None
    if not secret:
        raise KeyFileError(f"{name} is encrypted: put its passphrase into the environment variable {PASSPHRASE}")
    try:
        return load_pem_private_key(content, secret.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{name} cannot be decrypted: the passphrase is wrong, or the file is damaged") from None


def _wrapped(public: PublicKeyTypes, name: str) -> list[SSlibKey]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415
    from securesystemslib.signer import SSlibKey  # noqa: PLC0415

    refused = KeyFileError(f"{name} is a key of a kind that is not supported; {KINDS} are")
    if not isinstance(public, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, rsa.RSAPublicKey)):
        raise refused
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < 2048:
            raise refused
        return [SSlibKey.from_crypto(public, scheme=scheme) for scheme in _RSA_SCHEMES]
    try:
        return [SSlibKey.from_crypto(public)]
    except ValueError:
        raise refused from None


def _decoded(text: str, what: str) -> bytes:
    """Decode base64: verifiers must take the standard and the URL-safe alphabet, says the specification."""
    try:
        padded = text + "=" * (-len(text) % 4)
        return base64.b64decode(padded.translate(str.maketrans("-_", "+/")), validate=True)
    except ValueError:
        raise ValueError(f"{what} is not base64") from None
