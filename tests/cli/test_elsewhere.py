"""Paths with a protocol, on fsspec's filesystem in memory; servers are in tests/cluster."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import onnx
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

import cloakonnx as ck
from cloakonnx.errors import DataError, MissingDependencyError, OutputError, RemoteError
from cloakonnx.remote import fetched
from tests.fixtures import core

from .conftest import Run

ATTACK = ("--data", "memory://d/clean.npz", "--attack", "pgd", "--max-iter", "2", "--eps", "1/16")


@pytest.fixture
def store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The filesystem, with ``memory://d/m.onnx`` and ``memory://d/clean.npz``; the cache is ``cache``."""
    monkeypatch.setenv("CLOAKONNX_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    system.store.clear()
    for name in ("m.onnx", "clean.npz", "adversarial.npz"):
        system.pipe_file(f"/d/{name}", (folder / name).read_bytes())
    yield system
    system.store.clear()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the name of each file that is fetched."""
    names: list[str] = []
    get = MemoryFileSystem.get_file

    def told(self: MemoryFileSystem, rpath: str, *rest: Any, **more: Any) -> None:
        names.append(rpath)
        get(self, rpath, *rest, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", told)
    return names


def refused(name: str) -> Any:
    """Return a method of a filesystem that denies access."""

    def method(self: MemoryFileSystem, *rest: Any, **more: Any) -> None:
        raise PermissionError(13, f"{name} denied", "https://me:secret@host/x?token=hidden")

    return method


def test_a_file_is_fetched_once_and_again_when_it_changed(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = counted(monkeypatch)
    for _ in range(2):
        assert fetched("memory://d/clean.npz").read_bytes() == store.cat_file("/d/clean.npz")
    assert names == ["/d/clean.npz"]
    store.pipe_file("/d/clean.npz", b"another content")
    assert fetched("memory://d/clean.npz").read_bytes() == b"another content"
    fetched("memory://d/clean.npz").write_bytes(b"spoilt in the cache")
    assert fetched("memory://d/clean.npz").read_bytes() == b"another content"
    store.rm_file("/d/clean.npz")
    assert not fetched("memory://d/clean.npz").exists()
    assert names == ["/d/clean.npz"] * 3


def test_a_download_that_breaks_off_leaves_nothing(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: MemoryFileSystem, rpath: str, lpath: str, **more: Any) -> None:
        Path(lpath).write_bytes(b"half")
        raise ConnectionError("connection reset")

    monkeypatch.setattr(MemoryFileSystem, "get_file", half)
    with pytest.raises(RemoteError, match=r"^cannot read memory://d/clean\.npz: connection reset$"):
        ck.Samples("memory://d/clean.npz").source.count()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_file_that_changes_while_it_is_read(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    get = MemoryFileSystem.get_file

    def changed(self: MemoryFileSystem, rpath: str, lpath: str, **more: Any) -> None:
        get(self, rpath, lpath, **more)
        self.pipe_file(rpath, b"new")

    monkeypatch.setattr(MemoryFileSystem, "get_file", changed)
    with pytest.raises(RemoteError, match=r"memory://d/clean\.npz was changed while it was read"):
        fetched("memory://d/clean.npz")


def test_a_folder_of_images(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in range(2):
        for number in range(2):
            stream = io.BytesIO()
            Image.fromarray(np.full((4, 4, 3), 100 * label + number, np.uint8)).save(stream, "png")
            store.pipe_file(f"/d/images/{label}/my {number}.png", stream.getvalue())
    source = ck.Samples("memory://d/images").source
    assert (source.name, source.count()) == ("memory://d/images", 4)
    (batch,) = source.batches(8)
    assert batch.y is not None and batch.y.tolist() == [0, 0, 1, 1] and batch.x[3].max() == 101
    store.rm_file("/d/images/1/my 0.png")
    assert ck.Samples("memory://d/images").source.count() == 3
    names = counted(monkeypatch)
    ck.Samples("memory://d/images/").source.count()
    assert names == []
    for name in store.find("/d/images"):
        store.rm_file(name)
    with pytest.raises(DataError, match=r"^no file or folder memory://d/images"):
        ck.Samples("memory://d/images").source.count()


def test_external_data_is_fetched_beside_the_model(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "kept" / "e.onnx"
    path.parent.mkdir()
    onnx.save_model(core.mlp(), str(path), save_as_external_data=True, location="w 1.bin", size_threshold=0)
    store.put_file(str(path), "/e/e.onnx")
    with pytest.raises(
        ck.CloakError, match=r"^memory://e/e\.onnx: external data 'w 1\.bin' .* is missing: no file memory"
    ):
        ck.load("memory://e/e.onnx")
    store.put_file(str(path.with_name("w 1.bin")), "/e/w 1.bin")
    model = ck.load("memory://e/e.onnx")
    assert (model.name, model.external_files) == ("memory://e/e.onnx", ["w 1.bin"])
    tap = ck.taps(model)[0]
    masked = ck.apply(model, ck.Mask(tap.name, np.zeros(tap.features)), "memory://o/h.onnx")
    assert masked.sha256 == ck.load("memory://o/h.onnx").sha256
    assert store.cat_file("/o/w 1.bin") == path.with_name("w 1.bin").read_bytes()


def test_results_are_those_of_local_files_and_name_the_address(store: Any, folder: Path, run: Run) -> None:
    near = run("attack", "m.onnx", *ATTACK[2:], "--data", "clean.npz", "-o", "near.npz")
    far = run("attack", "memory://d/m.onnx", *ATTACK, "-o", "memory://out/far.npz")
    assert (near.code, far.code) == (0, 0)
    assert store.cat_file("/out/far.npz") == (folder / "near.npz").read_bytes()
    assert "wrote memory://out/far.npz" in far.err and "memory://d/m.onnx" in far.err and "cache" not in far.err
    made = run(
        "evaluate", "memory://d/m.onnx", *ATTACK[:2], "--eps", "1/16", "--attack", "pgd", "-o", "memory://out/e.json"
    )
    assert made.code == 0
    kept = json.loads(store.cat_file("/out/e.json"))
    assert (kept["model"]["name"], kept["data"]["name"]) == ("memory://d/m.onnx", "memory://d/clean.npz")
    assert ck.read("memory://out/e.json", ck.Evaluation).results[0].eps == 1 / 16


def test_shards_elsewhere_are_merged_elsewhere(store: Any, tmp_path: Path, run: Run) -> None:
    line = ("analyze", "memory://d/m.onnx", "--data", "memory://d/clean.npz", "--attack", "fgsm", "--eps", "1/16")
    line = (*line, "--batch-size", "5")
    assert run(*line, "-o", "memory://out/whole.json").code == 0
    for number in (1, 2):
        assert run(*line, "--shard", f"{number}/2", "-o", f"memory://out/{number}.shard").code == 0
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    shards = ("memory://out/1.shard", "memory://out/2.shard")
    merged = run("merge", *shards, "-o", "memory://out/merged.json")
    assert merged.code == 0, merged.err
    assert store.cat_file("/out/merged.json") == store.cat_file("/out/whole.json")
    part = ck.engines.Shard(1, 1, "memory://out/python.shard")
    asked = "memory://d/m.onnx", "memory://d/clean.npz"
    part.run(ck.analyze, *asked, attack="fgsm", eps=1 / 16)
    assert store.exists("/out/python.shard")
    shutil.rmtree(tmp_path / "cache")
    found = ck.engines.merge(["memory://out/python.shard"], ck.analyze, *asked, attack="fgsm", eps=1 / 16)
    assert found.samples.count == 12


def test_outputs_that_exist(store: Any, run: Run) -> None:
    store.pipe_file("/out/a.npz", b"old")
    command = ("attack", "memory://d/m.onnx", *ATTACK, "-o", "memory://out/a.npz")
    kept = run(*command)
    assert kept.code == 2
    assert kept.err == (
        "cloakonnx: memory://out/a.npz exists already; name another output with -o, or overwrite it with --force\n"
    )
    assert store.cat_file("/out/a.npz") == b"old"
    assert run(*command, "--force").code == 0
    assert store.cat_file("/out/a.npz") != b"old"
    over = run("strip", "memory://d/m.onnx", "-o", "memory://d/m.onnx")
    assert over.code == 2 and "the output memory://d/m.onnx is the input" in over.err


def test_an_upload_that_fails_keeps_the_work(
    store: Any, folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("attack", "memory://d/m.onnx", *ATTACK, "--batch-size", "4", "-o", "memory://out/a.npz")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", refused("put"))
        failed = run(*command)
    assert failed.code == 2 and failed.err.splitlines()[-1].startswith(
        "cloakonnx: cannot write memory://out/a.npz: access denied; credentials are taken from the protocol's own"
    )
    assert not any(word in failed.err for word in ("secret", "hidden", "token"))
    assert not store.exists("/out/a.npz")
    kept = tmp_path / "cache" / "unfinished" / "memory" / "out" / ".a.npz.parts"
    assert len(list(kept.glob("0*.npz"))) == 3
    assert run(*command, "--resume").code == 0
    assert store.exists("/out/a.npz") and not kept.exists()
    near = run("attack", "m.onnx", *ATTACK[2:], "--data", "clean.npz", "--batch-size", "4", "-o", "near.npz")
    assert near.code == 0 and store.cat_file("/out/a.npz") == (folder / "near.npz").read_bytes()


def test_an_interrupted_run_goes_on(store: Any, tmp_path: Path, folder: Path) -> None:
    attack = ck.attacks.PGD(eps=1 / 16, max_iter=2)

    def stop(done: float) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    options = {"batch_size": 4, "output": "memory://out/a.npz"}
    with pytest.raises(KeyboardInterrupt):
        ck.attack("memory://d/m.onnx", "memory://d/clean.npz", attack, **options, on_progress=stop)
    assert store.find("/out") == []
    assert list((tmp_path / "cache" / "unfinished").rglob("0*.npz"))
    ck.attack("memory://d/m.onnx", "memory://d/clean.npz", attack, **options, resume=True)
    ck.attack("m.onnx", "clean.npz", attack, batch_size=4, output="near.npz")
    assert store.cat_file("/out/a.npz") == (folder / "near.npz").read_bytes()


def test_harden_goes_on_where_another_machine_has_begun(
    store: Any, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (
        "harden", "memory://d/m.onnx", "--data", "memory://d/clean.npz", "--eps", "1/16", "--method", "score",
        "--attack", "fgsm", "--budget", "90%", "--preset", "quick", "-o", "memory://run",
    )  # fmt: skip
    first = run(*command)
    assert first.code == 0, first.err
    made = {name: store.cat_file(name) for name in store.find("/run")}
    assert {"/run/hardened.onnx", "/run/evaluation.json", "/run/report.html", "/run/attestation.json"} <= made.keys()
    assert not any(".parts" in name or ".lock" in name for name in made)
    monkeypatch.setenv("CLOAKONNX_CACHE", str(tmp_path / "another machine"))
    again = run(*command)
    assert again.code == 0 and again.err.count(": as before") == first.err.count("[") > 5
    assert {name: store.cat_file(name) for name in store.find("/run")} == made
    changed = run(*command, "--seed", "1")
    assert changed.code == 2 and "memory://run/analysis.cloak.json is there already" in changed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inspect", "memory://d/n.onnx"), "no file memory://d/n.onnx"),
        (("attack", "memory://d/m.onnx", *ATTACK[2:], "--data", "memory://d/n.npz", "-o", "a.npz"),
         "no file or folder memory://d/n.npz"),
        (("gate", "memory://d/n.json", "--require", "flags==0"), "cannot read the evaluation memory://d/n.json"),
        (("inspect", "nonsense://d/m.onnx"), "nonsense://d/m.onnx: there is no protocol 'nonsense' in fsspec"),
        (("attack", "m.onnx", *ATTACK[2:], "--data", "clean.npz", "-o", "https://host/a.npz"),
         "cannot write https://host/a.npz: the web is only read; name a file here or in an object store (s3://, gs://) "
         "with -o"),
        (("demo", "-o", "memory://demo"), "cannot write memory://demo: the demo's files go to a folder"),
        (("attack", "m.onnx", *ATTACK[2:], "--data-script", "memory://x.py:f", "-o", "a.npz"),
         "memory://x.py:f: a script runs from a file of this machine only"),
        (("verify", "m.onnx", "--attestation", "a.json", "--key", "memory://k.pem"), "keys and certificates are"),
        (("inspect", "C:/m.onnx"), "no file C:/m.onnx"),
    ],
)  # fmt: skip
def test_bad_input(store: Any, run: Run, arguments: tuple[str, ...], said: str) -> None:
    before = sorted(store.find("/"))
    found = run(*arguments)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert found.err.startswith("cloakonnx: ") and said in found.err
    assert sorted(store.find("/")) == before


def test_access_denied(store: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "info", refused("info"))
    found = run("inspect", "memory://d/m.onnx")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "cannot read memory://d/m.onnx: access denied; credentials are taken from" in found.err
    with pytest.raises(RemoteError):
        ck.read("memory://d/m.onnx")


def test_a_settings_file_elsewhere(store: Any, run: Run) -> None:
    store.pipe_file("/d/ci.toml", b'model = "memory://d/m.onnx"\ndata = "memory://d/clean.npz"\neps = "1/16"\n'
                    b'attack = "fgsm"\nrequire = ["robust>=0%"]\nno-sanity = true\n')  # fmt: skip
    found = run(
        "--config", "memory://d/ci.toml", "check", "-o", "memory://checked", "--junit", "memory://checked/j.xml"
    )
    assert found.code == 0, found.err
    assert b"<testsuite" in store.cat_file("/checked/j.xml")
    (evaluation,) = [name for name in store.find("/checked") if name.endswith(".json")]
    assert json.loads(store.cat_file(evaluation))["model"]["name"] == "memory://d/m.onnx"


def test_without_fsspec_the_extra_is_named(store: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    found = run("inspect", "s3://bucket/m.onnx")
    assert (found.code, found.err) == (
        2,
        "cloakonnx: s3://bucket/m.onnx is read and written with fsspec, which is not installed: pip install "
        "fsspec s3fs\n",
    )
    assert "pip install fsspec gcsfs" in run("inspect", "gs://bucket/m.onnx").err
    with pytest.raises(MissingDependencyError):
        ck.load("s3://bucket/m.onnx")


def test_fsspec_is_imported_for_a_protocol_only(folder: Path) -> None:
    code = (
        "import sys, cloakonnx as ck; ck.load('m.onnx'); ck.Samples('clean.npz').source; print('fsspec' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_from_python(store: Any) -> None:
    clf = ck.Classifier("memory://d/m.onnx")
    analysis = ck.analyze(clf, "memory://d/clean.npz", attack="fgsm", eps=1 / 16)
    analysis.save("memory://out/m.cloak.json")
    assert ck.read("memory://out/m.cloak.json").model_sha256 == clf.model.sha256
    hardened = ck.apply(clf, ck.select(analysis, "20%"), "memory://out/h.onnx")
    assert ck.strip("memory://out/h.onnx", "memory://out/s.onnx").sha256 == clf.model.sha256
    found = ck.evaluate(hardened, "memory://d/clean.npz", eps=1 / 16, attack="fgsm", output="memory://out/e.json")
    ck.report(found, "memory://out/r.html")
    assert store.cat_file("/out/r.html").startswith(b"<!DOCTYPE html")
    for wrong, kind in (("memory://d/none.npz", DataError), ("memory://d/m.onnx", DataError)):
        with pytest.raises(kind, match="memory://d/"):
            ck.accuracy(clf, wrong)
    with pytest.raises(OutputError, match=r"cannot write http://host/e\.json: the web is only read"):
        found.save("http://host/e.json")
