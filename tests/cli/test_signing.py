"""apply --sign-key and verify --key: every kind of key, against DSSE made by hand, and all that can be wrong."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

import cloakonnx as ck
from cloakonnx.errors import AttestationError, KeyFileError
from tests.support import keys

from .conftest import Result, Run, files

VERIFY = ("verify", "m.hardened.onnx", "--attestation", "a.json")


@pytest.fixture
def plain(run: Run, folder: Path) -> bytes:
    """Return the plain statement of m.hardened.onnx, which is written to plain.json."""
    np.save(folder / "a.npy", np.array([0, 1, 0.5, 2, 0, 1]))
    found = run("apply", "m.onnx", "--mask", "a.npy", "--tap", "features", "--attestation", "plain.json")
    assert found.code == 0
    return (folder / "plain.json").read_bytes()


def signed(run: Run, *more: str) -> Result:
    masks = ("--mask", "a.npy", "--tap", "features", "--force")
    return run("apply", "m.onnx", *masks, "--attestation", "a.json", "--sign-key", "k.pem", *more)


def refused(found: Result, said: str) -> None:
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), found
    assert said in found.err, found.err


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa"])
def test_every_kind_of_key_both_ways(run: Run, folder: Path, plain: bytes, kind: str) -> None:
    key = keys.write_pair(folder, kind)
    found = signed(run)
    assert (found.code, found.err.splitlines()[-1]) == (0, "wrote a.json, signed")
    made = json.loads((folder / "a.json").read_text())
    assert made["payloadType"] == keys.TYPE and base64.b64decode(made["payload"]) == plain
    keys.check(key, made)
    with pytest.raises(InvalidSignature):
        keys.check(key, {**made, "payloadType": "text/plain"})
    found = run(*VERIFY, "--key", "k.pub")
    assert (found.code, found.err) == (0, "m.hardened.onnx is as a.json says, which is signed by k.pub\n")
    for pss in (False, True) if kind == "rsa" else (False,):
        (folder / "a.json").write_text(keys.envelope(plain, keys.sign(key, plain, pss=pss)))
        assert run(*VERIFY, "--key", "k.pub").code == 0


def test_a_signature_that_was_not_asked_for_is_not_checked(run: Run, folder: Path, plain: bytes) -> None:
    (folder / "a.json").write_text(keys.envelope(plain, b"nonsense"))
    found = run(*VERIFY)
    assert found.code == 0
    assert found.err.splitlines()[0] == "a.json: its signature was NOT checked; name the signer's public key with --key"
    (folder / "m.hardened.onnx").write_bytes((folder / "m.onnx").read_bytes())
    assert run(*VERIFY).code == 1


def test_what_is_signed_is_checked_as_before(run: Run, folder: Path, plain: bytes) -> None:
    keys.write_pair(folder, "p256")
    signed(run)
    (folder / "m.hardened.onnx").write_bytes((folder / "m.onnx").read_bytes())
    found = run(*VERIFY, "--key", "k.pub")
    assert found.code == 1 and "FAIL attested file" in found.out


def other(value: bytes) -> bytes:
    return value[:-3] + bytes([value[-3] ^ 1]) + value[-2:]


BAD: dict[str, tuple[Callable[[bytes, bytes, bytes], str], str]] = {
    "payload": (lambda p, s, o: keys.envelope(p.replace(b'"mul"', b'"MUL"'), s), "no valid signature by the key k.pub"),
    "payload, no JSON": (lambda p, s, o: keys.envelope(b"{[" * 9, s), "no valid signature by the key k.pub"),
    "signature": (lambda p, s, o: keys.envelope(p, other(s)), "no valid signature by the key k.pub"),
    "another key": (lambda p, s, o: keys.envelope(p, o), "signed with another key, or changed after"),
    "payload type": (lambda p, s, o: keys.envelope(p, s, payload_type="text/x"), "holds 'text/x', not an in-toto"),
    "no signatures": (lambda p, s, o: keys.envelope(p), "is a DSSE envelope without signatures"),
    "empty signature": (lambda p, s, o: keys.envelope(p, b""), "no valid signature by the key k.pub"),
    "too many": (lambda p, s, o: keys.envelope(p, *[o] * 100, s), "has 101 signatures; 100 is the limit"),
    "no base64": (lambda p, s, o: keys.envelope(p, s).replace('"sig": "', '"sig": "!'), "a signature is not base64"),
    "no list": (lambda p, s, o: '{"payload": "", "payloadType": "", "signatures": 1}', "signatures is not a list"),
    "no type": (lambda p, s, o: '{"payload": "", "signatures": []}', "the entry payloadType is missing"),
    "plain": (lambda p, s, o: p.decode(), "has no signature, and one by the key k.pub is asked for"),
    "both": (lambda p, s, o: json.dumps({**json.loads(p), **json.loads(keys.envelope(p, s))}), "has no signature"),
    "no object": (lambda p, s, o: "[]", "has no signature"),
    "no JSON": (lambda p, s, o: "{", "is not JSON"),
}


@pytest.mark.parametrize("how", BAD)
def test_what_a_signature_does_not_hold(run: Run, folder: Path, plain: bytes, how: str) -> None:
    key, stranger = keys.write_pair(folder, "p256"), keys.make("p256")
    make, said = BAD[how]
    (folder / "a.json").write_text(make(plain, keys.sign(key, plain), keys.sign(stranger, plain)))
    refused(run(*VERIFY, "--key", "k.pub"), said)


def test_a_key_in_the_envelope_is_not_believed(run: Run, folder: Path, plain: bytes) -> None:
    keys.write_pair(folder, "p256")
    stranger = keys.make("p256")
    made = json.loads(keys.envelope(plain, keys.sign(stranger, plain)))
    own = ck.keys.load_signing_key(folder / "k.pem")
    made["signatures"][0] |= {"keyid": own.keyid, "cert": keys.public_pem(stranger).decode()}
    (folder / "a.json").write_text(json.dumps(made))
    refused(run(*VERIFY, "--key", "k.pub"), "no valid signature")


def test_several_signatures_and_base64_of_either_alphabet(run: Run, folder: Path, plain: bytes) -> None:
    key, stranger = keys.write_pair(folder, "p256"), keys.make("p256")
    for encode in (base64.b64encode, base64.urlsafe_b64encode, lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")):
        text = keys.envelope(plain, keys.sign(stranger, plain), b"x", keys.sign(key, plain), encode=encode)
        (folder / "a.json").write_text(text)
        assert run(*VERIFY, "--key", "k.pub").code == 0


def test_signed_statements_of_something_else(run: Run, folder: Path, plain: bytes) -> None:
    key = keys.write_pair(folder, "ed25519")
    for payload, said in (
        (b"{}", "is not an attestation"),
        (b"\xff", "its payload is not text"),
        (b"{", "is not JSON"),
    ):
        (folder / "a.json").write_text(keys.envelope(payload, keys.sign(key, payload)))
        refused(run(*VERIFY, "--key", "k.pub"), said)


def test_private_keys_that_are_none(run: Run, folder: Path, plain: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys.write_pair(folder, "p256")
    odd: dict[str, tuple[bytes, str]] = {
        "a public key": (keys.public_pem(key), "k.pem is a public key; signing needs the private one"),
        "no key": (b"hello", "k.pem is not a private key in PEM"),
        "damaged": (keys.private_pem(key).replace(b"M", b"N", 1), "k.pem is not a private key in PEM"),
        "encrypted": (keys.private_pem(key, "p"), "environment variable CLOAKONNX_SIGN_PASSPHRASE"),
        "short": (keys.private_pem(rsa.generate_private_key(65537, 1024)), "a kind that is not supported"),
        "curve": (keys.private_pem(ec.generate_private_key(ec.SECP256K1())), "a kind that is not supported"),
        "dsa": (keys.private_pem(dsa.generate_private_key(1024)), "a kind that is not supported"),
        "large": (b"x" * (1 << 21), "so it is no key"),
    }
    before = files(folder)
    for content, said in odd.values():
        (folder / "k.pem").write_bytes(content)
        refused(signed(run), said)
        assert {**files(folder), "k.pem": b""} == {**before, "k.pem": b""}
    (folder / "k.pem").unlink()
    refused(signed(run), "cannot read the key k.pem: No such file")
    (folder / "k.pem").write_bytes(odd["encrypted"][0])
    monkeypatch.setenv("CLOAKONNX_SIGN_PASSPHRASE", "wrong")
    refused(signed(run), "k.pem cannot be decrypted: the passphrase is wrong")
    monkeypatch.setenv("CLOAKONNX_SIGN_PASSPHRASE", "p")
    assert signed(run).code == 0
    assert run(*VERIFY, "--key", "k.pub").code == 0
    (folder / "k.pem").write_bytes(keys.private_pem(key))  # a passphrase that is not needed is no error
    assert signed(run).code == 0


def test_public_keys_that_are_none(run: Run, folder: Path, plain: bytes) -> None:
    key = keys.write_pair(folder, "p256")
    signed(run)
    for content, said in (
        (keys.private_pem(key), "k.pub is a private key; a signature is checked with the public one"),
        (keys.certificate(key, "signer"), "is a certificate, not a public key; give it as --certificate"),
        (b"", "k.pub is not a public key in PEM"),
    ):
        (folder / "k.pub").write_bytes(content)
        refused(run(*VERIFY, "--key", "k.pub"), said)
    refused(run(*VERIFY, "--key", "none.pub"), "cannot read the key none.pub")


def test_options_that_need_others(run: Run, folder: Path, plain: bytes) -> None:
    keys.write_pair(folder, "p256")
    model = ("verify", "m.hardened.onnx")
    for words, said in (
        ((*model, "--key", "k.pub"), "signature of an --attestation, which is missing"),
        ((*VERIFY, "--ca", "k.pub"), "--certificate and --ca go together"),
        ((*VERIFY, "--key", "k.pub", "--certificate", "k.pub", "--ca", "k.pub"), "exclude each other"),
        (("apply", "m.onnx", "--sign-key", "k.pem"), "--sign-key signs what --attestation writes"),
    ):
        refused(run(*words), said)


def test_without_the_extra(run: Run, folder: Path, plain: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.write_pair(folder, "p256")
    signed(run)
    monkeypatch.setitem(sys.modules, "securesystemslib.dsse", None)
    refused(run(*VERIFY, "--key", "k.pub"), "pip install cryptography securesystemslib")
    refused(signed(run), "pip install cryptography securesystemslib")
    assert run(*VERIFY).code == 0  # content alone needs no key


def test_certificates(run: Run, folder: Path, plain: bytes) -> None:
    root, middle, leaf = keys.make("p256"), keys.make("p256"), keys.write_pair(folder, "p256")
    (folder / "root.pem").write_bytes(keys.certificate(root, "root", ca=True))
    between = keys.certificate(middle, "middle", root, "root", ca=True)
    signed(run)
    verify = (*VERIFY, "--certificate", "chain.pem", "--ca", "root.pem")

    def given(chain: bytes) -> Result:
        (folder / "chain.pem").write_bytes(chain)
        return run(*verify)

    good = keys.certificate(leaf, "signer", middle, "middle")
    found = given(good + between)
    assert (found.code, found.err.splitlines()[-1]) == (
        0,
        "m.hardened.onnx is as a.json says, which is signed by chain.pem",
    ), found
    refused(given(good), "'CN=signer' in chain.pem does not lead to a root in root.pem")
    expired = keys.certificate(leaf, "signer", middle, "middle", days=(-10, -1))
    refused(given(expired + between), "the certificate 'CN=signer' expired on 20")
    refused(
        given(good + keys.certificate(middle, "middle", root, "root", ca=True, days=(-9, -1))), "'CN=middle' expired"
    )
    refused(given(keys.certificate(leaf, "signer", middle, "middle", days=(1, 9)) + between), "is not valid before 20")
    refused(given(keys.certificate(leaf, "server", middle, "middle") + between), "is not one for signing code")
    refused(given(keys.certificate(leaf, "signer", keys.make("p256"), "middle") + between), "does not lead to a root")
    refused(given(keys.certificate(keys.make("p256"), "signer", middle, "middle") + between), "no valid signature by")
    refused(given(keys.certificate(leaf, "signer")), "does not lead to a root")
    refused(given(b"hello"), "chain.pem holds no certificate in PEM")


def test_from_python(folder: Path, plain: bytes) -> None:
    key = keys.write_pair(folder, "ed25519")
    (folder / "locked.pem").write_bytes(keys.private_pem(key, "p"))
    attestation = ck.read("plain.json")
    assert attestation.signature == "none"
    with pytest.raises(KeyFileError, match="is encrypted"):
        ck.keys.load_signing_key("locked.pem")
    attestation.save("a.json", key=ck.keys.load_signing_key("locked.pem", passphrase="p"))
    found = ck.read("a.json", key=ck.keys.load_verification_key("k.pub"))
    assert (found, found.signature) == (attestation, "checked")
    assert ck.read("a.json").signature == "not checked"
    with pytest.raises(AttestationError, match="has no signature"):
        ck.read("plain.json", key=ck.keys.load_verification_key("k.pub"))


@pytest.mark.parametrize("name", ["sign-key", "key", "certificate", "ca"])
def test_a_settings_file_that_is_found_names_no_key(run: Run, folder: Path, plain: bytes, name: str) -> None:
    (folder / "cloakonnx.toml").write_text(f'{name} = "k.pub"\n')
    refused(run("verify", "m.hardened.onnx"), f"{name} ")


def test_harden(run: Run, folder: Path) -> None:
    key: Any = keys.write_pair(folder, "p256")
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", x=rng.random((90, 4)).astype(np.float32), y=np.arange(90) % 3)
    words = (
        "harden",
        "m.onnx",
        "--data",
        "d.npz",
        "--eps",
        "0.01",
        "--preset",
        "quick",
        "--method",
        "score",
        "--no-latency",
    )
    words += ("--budget", "0.9", "--attack", "fgsm", "--no-report", "-o", "out")
    assert run(*words, "--sign-key", "k.pub").code == 2
    assert not (folder / "out").exists()
    found = run(*words, "--sign-key", "k.pem")
    assert found.code == 0, found.err
    keys.check(key, json.loads((folder / "out" / "attestation.json").read_text()))
    assert "attest: as before" in run(*words, "--sign-key", "k.pem").err
    verify = ("verify", "out/hardened.onnx", "--attestation", "out/attestation.json", "--key", "k.pub")
    assert run(*verify).code == 0
