"""``--shard`` and ``cloakonnx merge``: the bytes of the whole run, and one line for what does not fit."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.engine.folder import Folder

from .conftest import Run, files

DATA = ("--data", "clean.npz")
PAIRS = (*DATA, "--adversarial", "adversarial.npz")
SHORT = ("--attack", "pgd", "--max-iter", "2")
VERBS = {
    "attack": ((*DATA, *SHORT, "--eps", "0.05,0.1"), ".npz"),
    "analyze": (PAIRS, ".json"),
    "evaluate": ((*DATA, *SHORT, "--eps", "1/16,0.1"), ".json"),
    "sweep": ((*PAIRS, *SHORT, "--remove", "0%..50%:25%", "--adaptive-at", "25%,50%"), ".json"),
}


def sharded(run: Run, verb: str, *options: object, of: int = 3) -> list[str]:
    names = [f"{number}.shard" for number in range(1, of + 1)]
    for number, name in enumerate(names, 1):
        found = run(verb, "m.onnx", *options, "--batch-size", "2", "--shard", f"{number}/{of}", "-o", name)
        assert found.code == 0, found.err
        assert f"shard {number} of {of}: " in found.err
        assert f"wrote {name}" in found.err
        assert found.out == ""
    return names


@pytest.mark.parametrize("verb", VERBS)
def test_the_bytes_of_the_whole_run(run: Run, folder: Path, verb: str) -> None:
    options, suffix = VERBS[verb]
    if verb == "sweep":
        assert run("analyze", "m.onnx", *PAIRS).code == 0
    assert run(verb, "m.onnx", *options, "--batch-size", "2", "-o", f"whole{suffix}").code == 0
    before = set(files(folder))
    shards = sharded(run, verb, *options)
    assert set(files(folder)) - before == set(shards)  # nothing else is written, and nothing is left
    found = run("merge", *reversed(shards), "-o", f"merged{suffix}")
    assert found.code == 0, found.err
    made = {name: content for name, content in files(folder).items() if name.startswith("merged")}
    assert len(made) == (2 if verb == "attack" else 1)
    for name, content in made.items():
        assert content == (folder / name.replace("merged", "whole")).read_bytes()
    again = run("merge", *shards, "-o", f"merged{suffix}")
    assert again.code == 2
    assert "exists already" in again.err
    assert run("merge", *shards, "-o", f"merged{suffix}", "--force").code == 0


@pytest.mark.parametrize("verb", ["attack", "evaluate"])
def test_workers_and_a_settings_file(run: Run, folder: Path, verb: str) -> None:
    """What a settings file says is kept; the merge needs neither it nor as many workers."""
    options, suffix = VERBS[verb]
    toml = folder / "cloakonnx.toml"
    toml.write_text('model = "m.onnx"\nseed = 3\n[attack]\nround = true\n[evaluate]\nno-sanity = true\n')
    whole = run(verb, *options, "--batch-size", "2", "-o", f"whole{suffix}", "--workers", "2")
    assert whole.code == 0, whole.err
    for number in (1, 2):
        shard = ("--shard", f"{number}/2", "-o", f"{number}.shard")
        assert run(verb, *options, "--batch-size", "2", "--workers", "2", *shard).code == 0
    toml.unlink()
    assert run("merge", "1.shard", "2.shard", "-o", f"merged{suffix}").code == 0
    for path in folder.glob("merged*"):
        assert path.read_bytes() == path.with_name(path.name.replace("merged", "whole")).read_bytes()


def test_gates_and_outputs_go_with_the_merge(run: Run, folder: Path) -> None:
    options = VERBS["evaluate"][0]
    for extra, said in (
        (("--require", "robust>=1%"), "--require needs the whole result"),
        (("--markdown",), "--markdown needs the whole result"),
        (("--latency",), "--latency needs the whole result"),
    ):
        found = run("evaluate", "m.onnx", *options, "--shard", "1/2", "-o", "1.shard", *extra)
        assert found.code == 2
        assert said in found.err
    won = ("--save-adversarial", "won.npz")
    assert run("evaluate", "m.onnx", *options, "--batch-size", "2", *won).code == 0
    (folder / "won.npz").rename(folder / "whole.npz")
    shards = sharded(run, "evaluate", *options, *won)
    assert not (folder / "won.npz").exists()
    found = run("merge", *shards, "-o", "merged.json")
    assert found.code == 2
    assert "made with --save-adversarial: name it again" in found.err
    found = run("merge", *shards, "-o", "merged.json", "--save-adversarial", "won.npz", "--require", "robust>=99%@1/16")
    assert found.code == 1
    assert "robust>=99%@1/16" in found.err
    assert (folder / "won.npz").read_bytes() == (folder / "whole.npz").read_bytes()
    found = run("merge", *shards, "-o", "more.json", *won, "--force", "--json")
    assert found.out == (folder / "more.json").read_text()


def test_inputs_that_moved(run: Run, folder: Path) -> None:
    assert run("attack", "m.onnx", *VERBS["attack"][0], "--batch-size", "2", "-o", "whole.npz").code == 0
    shards = sharded(run, "attack", *VERBS["attack"][0])
    (folder / "there").mkdir()
    for name in ("m.onnx", "clean.npz"):
        (folder / name).rename(folder / "there" / name)
    found = run("merge", *shards, "-o", "merged.npz")
    assert found.code == 2
    assert "the shards had m.onnx, which is not here: name it with --model" in found.err
    moved = ("--model", "there/m.onnx", "--data", "there/clean.npz")
    assert run("merge", *shards, "-o", "merged.npz", *moved).code == 0
    assert (folder / "merged.eps0.1.npz").read_bytes() == (folder / "whole.eps0.1.npz").read_bytes()


def test_other_inputs(run: Run, folder: Path) -> None:
    shards = sharded(run, "attack", *VERBS["attack"][0])
    x = np.load(folder / "clean.npz")["x"]
    np.savez(folder / "clean.npz", x=x[::-1], y=np.arange(12) % 3)
    before = files(folder)
    found = run("merge", *shards, "-o", "merged.npz")
    assert found.code == 2
    assert "the samples are not those of the shards, or --batch-size is another" in found.err
    assert files(folder) == before


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b", "3", "", "1/0", "-1/2", "1/2/3"])
def test_there_is_no_such_shard(run: Run, folder: Path, text: str) -> None:
    found = run("attack", "m.onnx", *VERBS["attack"][0], f"--shard={text}", "-o", "1.shard")
    assert found.code == 2
    assert "is no shard like 3/16" in found.err
    assert found.err.count("\n") == 1


def test_what_a_shard_needs(run: Run, folder: Path) -> None:
    found = run("evaluate", "m.onnx", *VERBS["evaluate"][0], "--shard", "1/2")
    assert (found.code, "--shard needs -o" in found.err) == (2, True)
    greedy = ("--attack", "fgsm", "--eps", "0.1", "--select", "greedy", "--budget", "1%")
    found = run("analyze", "m.onnx", *DATA, *greedy, "--shard", "1/2", "-o", "1.shard")
    assert (found.code, "leave out --shard" in found.err) == (2, True)
    found = run("analyze", "m.onnx", *PAIRS, "--resume")
    assert (found.code, "--resume goes with --shard" in found.err) == (2, True)
    (folder / "1.shard").write_bytes(b"")
    found = run("analyze", "m.onnx", *PAIRS, "--shard", "1/2", "-o", "1.shard")
    assert (found.code, "exists already" in found.err) == (2, True)
    assert run("analyze", "m.onnx", *PAIRS, "--shard", "1/2", "-o", "1.shard", "--force").code == 0


def test_an_interrupted_shard_goes_on(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says once how."""
    asked = ("analyze", "m.onnx", *PAIRS, "--batch-size", "2", "--shard", "1/2", "-o", "1.shard")
    saved = Folder.save

    def stop(self: Folder, number: int, digest: str, result: object) -> None:
        saved(self, number, digest, result)
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "save", stop)
    found = run(*asked)
    assert found.code == 130
    assert found.err.count("--resume goes on where this stopped") == 1
    assert not (folder / "1.shard").exists()
    monkeypatch.setattr(Folder, "save", saved)
    assert (
        run("analyze", "m.onnx", *PAIRS, "--batch-size", "2", "--shard", "1/3", "-o", "1.shard", "--resume").code == 2
    )
    assert run(*asked, "--resume").code == 0
    resumed = (folder / "1.shard").read_bytes()
    assert run(*asked, "--force").code == 0
    assert (folder / "1.shard").read_bytes() == resumed
    assert not list(folder.glob(".*"))


def test_json(run: Run, folder: Path) -> None:
    found = run("analyze", "m.onnx", *PAIRS, "--batch-size", "2", "--shard", "2/4", "-o", "2.shard", "--json")
    assert json.loads(found.out) == {"output": "2.shard", "shard": 2, "of": 4, "batches": 2, "all": 6}


def test_shards_that_do_not_belong_together(run: Run, folder: Path) -> None:
    shards = sharded(run, "attack", *VERBS["attack"][0])
    shutil.copy(shards[0], "copy.shard")
    other = ("attack", "m.onnx", *DATA, *SHORT, "--eps", "0.05,0.2", "--batch-size", "2", "--shard", "3/3")
    assert run(*other, "-o", "other.shard").code == 0
    (folder / "text.shard").write_text("{}")
    for named, said in (
        (shards[:2], "shard 3 is missing of 3; name the files of all, once they are done"),
        ([*shards, "copy.shard"], "1.shard and copy.shard are the same shard, 1/3; name it once"),
        (
            [*shards[:2], "other.shard"],
            "1.shard and other.shard are not shards of one run: they differ in eps, eps_step",
        ),
        ([*shards[:2], "text.shard"], "text.shard is no shard, or is damaged; a run with --shard writes one"),
        ([*shards[:2], "none.shard"], "cannot read the shard none.shard: No such file or directory"),
    ):
        found = run("merge", *named, "-o", "merged.npz")
        assert found.code == 2
        assert said in found.err
        assert found.err.count("\n") == 1
    assert not list(folder.glob("merged*"))


def test_a_shard_names_no_file_to_write_and_no_code_to_run(run: Run, folder: Path) -> None:
    """Its command line may have been changed by whoever has sent it."""
    shards = sharded(run, "attack", *VERBS["attack"][0], of=1)
    with zipfile.ZipFile(shards[0]) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    head = json.loads(content["shard.json"])
    for call in (
        {"files": {"output": "stolen.npz"}},
        {"options": {"data_script": "evil.py:run"}},
        {"options": {"eps": 1}},
    ):
        changed = {**head, "call": {**head["call"], **call}}
        with zipfile.ZipFile(folder / "changed.shard", "w") as archive:
            for name, each in {**content, "shard.json": json.dumps(changed).encode()}.items():
                archive.writestr(name, each)
        found = run("merge", "changed.shard", "-o", "merged.npz")
        assert found.code == 2
        assert "changed.shard is damaged; run that shard again" in found.err
