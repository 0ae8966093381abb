"""Keys, certificates and envelopes, made with cryptography alone: a second implementation beside the package's."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TYPE = "application/vnd.in-toto+json"
NOW = datetime.now(UTC)


def make(kind: str) -> Any:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}[kind])


def private_pem(key: Any, passphrase: str | None = None) -> bytes:
    way: Any = serialization.NoEncryption()
    if passphrase is not None:
        way = serialization.BestAvailableEncryption(passphrase.encode())
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, way))


def public_pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


def write_pair(folder: Path, kind: str, name: str = "k") -> Any:
    key = make(kind)
    (folder / f"{name}.pem").write_bytes(private_pem(key))
    (folder / f"{name}.pub").write_bytes(public_pem(key))
    return key


def pae(payload: bytes, payload_type: str = TYPE) -> bytes:
    """DSSE v1: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body."""
    kind = payload_type.encode()
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])


def _way(key: Any, pss: bool) -> tuple[Any, ...]:
    size = getattr(getattr(key, "curve", None), "key_size", 256)
    sha = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[size]
    if hasattr(key, "curve"):
        return (ec.ECDSA(sha),)
    if hasattr(key, "key_size"):
        return (padding.PSS(padding.MGF1(sha), padding.PSS.DIGEST_LENGTH) if pss else padding.PKCS1v15(), sha)
    return ()


def sign(key: Any, payload: bytes, payload_type: str = TYPE, *, pss: bool = False) -> bytes:
    return bytes(key.sign(pae(payload, payload_type), *_way(key, pss)))


def check(key: Any, envelope: dict[str, Any]) -> None:
    """Raise InvalidSignature where the first signature is not the key's."""
    signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    payload = base64.b64decode(envelope["payload"], validate=True)
    key.public_key().verify(signature, pae(payload, envelope["payloadType"]), *_way(key, False))


def envelope(payload: bytes, *signatures: bytes, payload_type: str = TYPE, encode: Any = base64.b64encode) -> str:
    said = [{"sig": encode(each).decode()} for each in signatures]
    return json.dumps({"payloadType": payload_type, "payload": encode(payload).decode(), "signatures": said})


def certificate(
    key: Any,
    name: str,
    issuer: Any = None,
    issuer_name: str = "",
    *,
    days: tuple[int, int] = (-10, 10),
    ca: bool = False,
) -> bytes:
    """Return a certificate in PEM; without an issuer it signs itself."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    signer = issuer or key
    usage = {
        "digital_signature": not ca, "key_cert_sign": ca, "crl_sign": ca, "content_commitment": False,
        "key_encipherment": False, "data_encipherment": False, "key_agreement": False, "encipher_only": False,
        "decipher_only": False,
    }  # fmt: skip
    built = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer_name or name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca, None), True)
        .add_extension(x509.KeyUsage(**usage), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    )
    if not ca:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if name == "server" else ExtendedKeyUsageOID.CODE_SIGNING
        built = built.add_extension(x509.ExtendedKeyUsage([purpose]), False)
    return built.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
