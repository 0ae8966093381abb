"""Keys and certificates, which sign attestations and check signatures; the extra ``sign`` installs what they need."""

from cloakonnx.evaluation.verification.certificates import load_certificate
from cloakonnx.evaluation.verification.signing import (
    SigningKey,
    VerificationKey,
    load_signing_key,
    load_verification_key,
)

__all__ = ["SigningKey", "VerificationKey", "load_certificate", "load_signing_key", "load_verification_key"]
