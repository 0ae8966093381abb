"""Envelopes that sigstore reads and writes, and statements that in-toto-attestation takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cloakonnx.evaluation.verification.signing import (
    load_signing_key,
    load_verification_key,
    read_envelope_or_statement,
)
from tests.support import keys

dsse = pytest.importorskip("sigstore.dsse")
STATEMENT = (
    '{"_type": "https://in-toto.io/Statement/v1", "predicateType": "urn:cloakonnx:hardening:1", "predicate": {"a": 1},'
    ' "subject": [{"name": "m", "digest": {"sha256": "' + "a" * 64 + '"}}]}'
)


def test_sigstore_reads_what_is_signed_here(tmp_path: Path) -> None:
    keys.write_pair(tmp_path, "p256")
    text = load_signing_key(tmp_path / "k.pem").sign(STATEMENT)
    public = load_pem_public_key((tmp_path / "k.pub").read_bytes())
    payload = dsse._verify(public, dsse.Envelope._from_json(text))
    assert payload.decode() == STATEMENT
    pb2 = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1.statement import Statement

    Statement.copy_from_pb(Parse(payload.decode(), pb2.Statement())).validate()


def test_what_sigstore_signs_is_read_here(tmp_path: Path) -> None:
    key = keys.write_pair(tmp_path, "p256")
    text = dsse._sign(key, dsse.Statement(STATEMENT.encode())).to_json()
    found = read_envelope_or_statement(text, name="a", key=load_verification_key(tmp_path / "k.pub"))
    assert found == (STATEMENT, True)
