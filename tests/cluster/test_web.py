"""Models and data from a web server on the loopback interface, with and without TLS."""

from __future__ import annotations

import functools
import http.server
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, folder, run  # noqa: F401 - fixtures

ATTACK = ("--attack", "pgd", "--max-iter", "2", "--eps", "1/16")


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder; those in ``secret`` need a token, and ``broken`` fails."""

    asked: list[str]

    def __init__(self, *arguments: object, asked: list[str], **settings: object) -> None:
        self.asked = asked
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]

    def send_head(self):  # type: ignore[no-untyped-def]
        self.asked.append(f"{self.command} {self.path}")
        if self.path.startswith("/secret/") and not self.path.endswith("?token=c0nfidential"):
            return self.send_error(403)
        if self.path.startswith("/broken/"):
            return self.send_error(500)
        return super().send_head()

    def log_message(self, *rest: object) -> None:
        """Print nothing."""


def served(folder: Path, asked: list[str], context: ssl.SSLContext | None = None) -> http.server.ThreadingHTTPServer:  # noqa: F811
    made = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Server, directory=str(folder), asked=asked)
    )
    if context is not None:
        made.socket = context.wrap_socket(made.socket, server_side=True)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made


@pytest.fixture
def asked() -> list[str]:
    """What the server was asked for."""
    return []


@pytest.fixture
def web(folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # noqa: F811
    """The address of a server of the folder."""
    monkeypatch.setenv("CLOAKONNX_CACHE", str(folder / "cache"))
    (folder / "secret").mkdir()
    (folder / "secret" / "m.onnx").write_bytes((folder / "m.onnx").read_bytes())
    made = served(folder, asked)
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_model_and_data(web: str, asked: list[str], folder: Path, run: Run) -> None:  # noqa: F811
    far = run("attack", f"{web}/m.onnx", "--data", f"{web}/clean.npz", *ATTACK, "-o", "far.npz")
    near = run("attack", "m.onnx", "--data", "clean.npz", *ATTACK, "-o", "near.npz")
    assert (far.code, near.code) == (0, 0), far.err
    assert (folder / "far.npz").read_bytes() == (folder / "near.npz").read_bytes()
    assert f"{web}/m.onnx" in far.err and "cache" not in far.err
    assert sorted(each for each in asked if each.startswith("GET")) == ["GET /clean.npz", "GET /m.onnx"]
    asked.clear()
    assert run("inspect", f"{web}/m.onnx").code == 0
    assert asked == ["HEAD /m.onnx"]  # as it was


def test_a_token_is_nowhere(web: str, folder: Path, run: Run) -> None:  # noqa: F811
    denied = run("inspect", f"{web}/secret/m.onnx")
    assert denied.code == 2 and f"cannot read {web}/secret/m.onnx: access denied (403); credentials" in denied.err
    data = ("--data", f"{web}/clean.npz?token=c0nfidential", "--eps", "1/16", "--attack", "fgsm")
    made = run("evaluate", f"{web}/secret/m.onnx?token=c0nfidential", *data, "--no-sanity", "-o", "e.json")
    assert made.code == 0, made.err
    assert run("report", "e.json", "-o", "r.html").code == 0
    assert f"{web}/secret/m.onnx" in (folder / "e.json").read_text()
    for path in folder.rglob("*"):
        assert "c0nfidential" not in str(path)
        assert path.is_dir() or b"c0nfidential" not in path.read_bytes()
    assert "c0nfidential" not in made.out + made.err
    wrong = run("inspect", f"{web}/secret/m.onnx?token=wrong")
    assert wrong.code == 2 and "403" in wrong.err and "wrong" not in wrong.err and "token" not in wrong.err


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("WEB/n.onnx", "no file WEB/n.onnx"),
        ("WEB/broken/m.onnx", "cannot read WEB/broken/m.onnx: the server answers 500 Internal Server Error"),
        ("http://127.0.0.1:9/m.onnx", "cannot read http://127.0.0.1:9/m.onnx: Cannot connect to host 127.0.0.1:9"),
        ("https://nobody.invalid/m.onnx", "cannot read https://nobody.invalid/m.onnx: Cannot connect to host nobody"),
    ],
)  # fmt: skip
def test_what_is_not_there(web: str, run: Run, path: str, said: str) -> None:  # noqa: F811
    found = run("inspect", path.replace("WEB", web))
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said.replace("WEB", web) in found.err


def test_nothing_is_written_to_the_web(web: str, asked: list[str], run: Run) -> None:  # noqa: F811
    found = run("attack", f"{web}/m.onnx", "--data", f"{web}/clean.npz", *ATTACK, "-o", f"{web}/a.npz")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert f"cannot write {web}/a.npz: the web is only read" in found.err
    assert asked == []


def test_tls(folder: Path, asked: list[str], tmp_path: Path) -> None:  # noqa: F811
    """A server's certificate is checked, against the authorities that OpenSSL's environment names."""
    _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    made = served(folder, asked, context)
    url = f"https://localhost:{made.server_port}/m.onnx"
    trusting = _inspected(url, tmp_path, {"SSL_CERT_FILE": str(folder / "cert.pem")})
    strict = _inspected(url, tmp_path, {})
    made.shutdown()
    made.server_close()
    assert trusting.returncode == 0 and url in trusting.stdout, trusting.stderr
    assert (strict.returncode, strict.stderr.count("\n")) == (2, 1)
    assert (
        f"cannot read {url}: Cannot connect to host" in strict.stderr and "certificate verify failed" in strict.stderr
    )


def _inspected(url: str, cache: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    import os

    kept = {name: value for name, value in os.environ.items() if name not in {"SSL_CERT_FILE", "SSL_CERT_DIR"}}
    return subprocess.run(
        [sys.executable, "-m", "cloakonnx", "inspect", url],
        env={**kept, **environment, "CLOAKONNX_CACHE": str(cache / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def _certificate(folder: Path) -> None:  # noqa: F811
    """Write a key and a certificate for localhost, signed by itself."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
