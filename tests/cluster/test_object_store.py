"""Every verb with its model, data and output in S3: moto's server on the loopback interface."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import onnx
import pytest
import s3fs
from moto.server import ThreadedMotoServer

import cloakonnx as ck
from cloakonnx.engines import Ray
from tests.cli.conftest import Run, folder, run  # noqa: F401 - fixtures
from tests.fixtures import core

ATTACK = ("--attack", "pgd", "--max-iter", "2")
DATA = ("--data", "s3://models/in/clean.npz", "--eps", "1/16")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request, on stderr
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: F811
    """A client; the bucket ``models`` has in/m.onnx, in/clean.npz and in/adversarial.npz."""
    access = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "c0nfidential", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**access, "AWS_ENDPOINT_URL": server, "CLOAKONNX_CACHE": str(folder / "cache")}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="models")
    for name in ("m.onnx", "clean.npz", "adversarial.npz"):
        client.upload_file(str(folder / name), "models", f"in/{name}")
    yield client
    for name in names(client):
        client.delete_object(Bucket="models", Key=name)
    client.delete_bucket(Bucket="models")
    s3fs.S3FileSystem.clear_instance_cache()


def names(client: Any) -> list[str]:
    return [each["Key"] for each in client.list_objects_v2(Bucket="models").get("Contents", [])]


def content(client: Any, name: str) -> bytes:
    found: bytes = client.get_object(Bucket="models", Key=name)["Body"].read()
    return found


def test_every_verb(bucket: Any, folder: Path, run: Run) -> None:  # noqa: F811
    def done(*arguments: str) -> str:
        found = run(*arguments)
        assert found.code == 0, found.err
        assert str(folder / "cache") not in found.out + found.err
        return found.out + found.err

    model, out = "s3://models/in/m.onnx", "s3://models/out"
    assert model in done("inspect", model)
    done("attack", model, "--data", "s3://models/in/clean.npz", "--eps", "1/16,2/16", *ATTACK, "-o", f"{out}/a.npz")
    run("attack", "m.onnx", "--data", "clean.npz", "--eps", "1/16,2/16", *ATTACK, "-o", "a.npz")
    for name in ("a.eps1_16.npz", "a.eps2_16.npz"):
        assert content(bucket, f"out/{name}") == (folder / name).read_bytes()
    pairs = (*DATA[:2], "--adversarial", "s3://models/in/adversarial.npz")
    assert "wrote s3://models/in/m.cloak.json" in done("analyze", model, *pairs)
    applied = ("apply", model, "--remove", "1", "--attestation", f"{out}/a.json", "-o", f"{out}/h.onnx")
    assert "wrote s3://models/out/h.onnx" in done(*applied)
    done("verify", f"{out}/h.onnx", "--source", model, "--attestation", f"{out}/a.json")
    kept = ("--samples", f"{out}/samples.npz", "--save-adversarial", f"{out}/won.npz", "-o", f"{out}/e.json")
    done("evaluate", f"{out}/h.onnx", *DATA, *ATTACK, *kept)
    done("sweep", model, *pairs, "--remove", "0,1", "-o", f"{out}/s.json")
    done("learn", model, *DATA, "--budget", "90%", "--epochs", "1", "--force", "-o", f"{out}/l.cloak.json")
    done("strip", f"{out}/h.onnx", "-o", f"{out}/stripped.onnx")
    assert content(bucket, "out/stripped.onnx") == (folder / "m.onnx").read_bytes()
    parts = ("--sweep", f"{out}/s.json", "--samples", f"{out}/samples.npz", "--model", f"{out}/h.onnx")
    done("report", f"{out}/e.json", *parts, "-o", f"{out}/r.html")
    done("gate", f"{out}/e.json", "--require", "robust>=0%", "--junit", f"{out}/j.xml")
    done("evidence", f"{out}/e.json", "--require", "robust>=0%", "-o", f"{out}/in-toto.json")
    hardening = (
        "harden",
        model,
        *DATA,
        "--method",
        "score",
        "--budget",
        "90%",
        "--preset",
        "quick",
        "--attack",
        "fgsm",
    )
    done(*hardening, "-o", "s3://models/run")
    assert done(*hardening, "-o", "s3://models/run").count(": as before") == 8
    (folder / "cloakonnx.toml").write_text(
        f'[[models]]\npath = "{model}"\ndata = "s3://models/in/clean.npz"\neps = "1/16"\nattack = "fgsm"\n'
        'require = ["robust>=0%"]\n'
    )
    done("check", "-o", f"{out}/checked")
    assert set(names(bucket)) == {
        "in/clean.npz", "in/m.cloak.json", "in/m.onnx", "in/adversarial.npz", "out/a.eps1_16.npz", "out/a.eps2_16.npz",
        "out/a.json", "out/checked/s3-models-in-m.onnx.json", "out/e.json",
        "out/h.onnx", "out/in-toto.json",
        "out/j.xml", "out/l.cloak.json", "out/r.html", "out/s.json", "out/samples.npz", "out/stripped.onnx",
        "out/won.npz", "run/.stages/apply.json", "run/.stages/attest.json", "run/.stages/evaluate.json",
        "run/.stages/inspect.json", "run/.stages/latency.json",
        "run/.stages/report.json", "run/.stages/score.json", "run/.stages/verify.json", "run/analysis.cloak.json",
        "run/attestation.json", "run/evaluation.json", "run/hardened.onnx", "run/report.html", "run/samples.npz",
        "run/summary.md",
    }  # fmt: skip
    assert not any(b"c0nfidential" in content(bucket, name) for name in names(bucket))


def test_external_data(bucket: Any, folder: Path) -> None:  # noqa: F811
    path = folder / "e.onnx"
    onnx.save_model(core.mlp(), str(path), save_as_external_data=True, location="e.bin", size_threshold=0)
    bucket.upload_file(str(path), "models", "in/e.onnx")
    with pytest.raises(ck.CloakError, match=r"external data 'e\.bin' .* is missing: no file s3://models/in/e\.bin$"):
        ck.load("s3://models/in/e.onnx")
    bucket.upload_file(str(path.with_name("e.bin")), "models", "in/e.bin")
    assert ck.load("s3://models/in/e.onnx").sha256 == ck.load(path).sha256


def test_on_a_cluster(bucket: Any, folder: Path, engine: Ray) -> None:  # noqa: F811
    given = {"attack": "pgd", "eps": 1 / 16, "max_iter": 2, "batch_size": 4}
    ck.attack(
        "s3://models/in/m.onnx", "s3://models/in/clean.npz", output="s3://models/out/a.npz", engine=engine, **given
    )
    ck.attack("m.onnx", "clean.npz", output="a.npz", engine=ck.engines.Threads(2), **given)
    (folder / "b.npz").write_bytes(content(bucket, "out/a.npz"))
    with np.load("a.npz") as here, np.load("b.npz") as elsewhere:
        assert all(here[name].tobytes() == elsewhere[name].tobytes() for name in ("x", "y", "success"))
        assert json.loads(str(here["settings"])) == json.loads(str(elsewhere["settings"]))


def test_what_is_not_there(bucket: Any, run: Run) -> None:  # noqa: F811
    for arguments, said in (
        (("inspect", "s3://models/in/n.onnx"), "no file s3://models/in/n.onnx"),
        (("inspect", "s3://nobody-has-it/n.onnx"), "no file s3://nobody-has-it/n.onnx"),
        (
            ("attack", "s3://models/in/m.onnx", *DATA, *ATTACK, "-o", "s3://nobody-has-it/a.npz"),
            "cannot write s3://nobody-has-it/a.npz: there is no bucket nobody-has-it",
        ),
    ):
        found = run(*arguments)
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
        assert said in found.err and "c0nfidential" not in found.err


def test_no_credentials(bucket: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    found = run("inspect", "s3://models/in/m.onnx")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert "cannot read s3://models/in/m.onnx: " in found.err and "credentials" in found.err
