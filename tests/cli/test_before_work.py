"""Every verb, and every mistake that its options can hold: one line and exit code 2 before any work, and no file more.

Mistakes are made of the options that click knows, so that a new verb or option is covered by being there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest

from cloakonnx.attacks.base import Attack
from cloakonnx.cli import verbs
from cloakonnx.cli._files import PATH
from cloakonnx.cli.main import main
from cloakonnx.engine.batches import InProcess
from cloakonnx.engine.cluster.ray import Ray
from cloakonnx.engine.folder import FORMAT, path_of
from cloakonnx.engine.threads import Threads
from cloakonnx.runtime.session import Session
from tests.fixtures import core
from tests.support.keys import certificate, write_pair
from tests.support.signals import same_handlers

from .conftest import Run, files

LINES = {
    "harden": "harden m.onnx --data many.npz --eps 0.1 --require clean>=0% -o new",
    "evaluate": "evaluate h.onnx --data many.npz --eps 0.1 --require clean>=0% -o new.json",
    "gate": "gate e.json --require clean>=0% --allow-inconclusive",
    "check": "--config ci.toml check -o new",
    "report": "report e.json -o new.html",
    "evidence": "evidence e.json --require clean>=0% -o new.json",
    "demo": "demo -o new",
    "attack": "attack m.onnx --data clean.npz --attack pgd --eps 0.1 -o new.npz",
    "analyze": "analyze m.onnx --data clean.npz --adversarial adversarial.npz -o new.json",
    "learn": "learn m.onnx --data many.npz --eps 0.1 --budget 4% -o new.json",
    "apply": "apply m.onnx --attestation new.att --sign-key k.pem -o new.onnx",
    "sweep": "sweep m.onnx --analysis a.json --data clean.npz --adversarial adversarial.npz -o new.json",
    "merge": "merge 1.shard 2.shard --require clean>=0% -o new.json",
    "inspect": "inspect m.onnx",
    "verify": "verify h.onnx --source m.onnx --attestation att.json --data many.npz",
    "strip": "strip h.onnx -o new.onnx",
}
"""A call of each verb in which nothing is wrong."""

APART = {"config", "doctor"}
"""Verbs that read no file of the user and write none."""

AT_ONCE = {"gate", "report", "evidence", "apply", "inspect", "strip"}
"""Verbs that run no model."""

WRONG = {
    "--eps": ("2", "-1", "nan", "inf", "0.1,2"),
    "--require": ("robust>=5%@0.2", "clean>=101%"),
    "--budget": ("2", "-1", "nan"),
    "--batch-size": ("0",),
    "--engine": ("ray", "127.0.0.1:1"),
    "--workers": ("0",),
    "--shard": ("3/2", "0/2"),
    "--bounds": ("1,0", "nan,1", "0"),
    "--scale": ("0", "nan"),
    "--std": ("0", "nan"),
    "--mask-bounds": ("2,3", "3,0"),
    "--provider": ("cuda",),
    "--limit": ("0",),
    "--remove": ("101%", "99"),
    "--adaptive-at": ("99",),
    "--seed": ("-1",),
}
"""Values of the right form that make no sense, whichever verb has the option; each gets a wrong word as well."""

GOES_WITH = {
    "analyze --select-data": "--select greedy --budget 1%",
    "apply --mask": "--tap features",
    "verify --certificate": "--ca signer.pem",
    "verify --ca": "--certificate signer.pem",
    "--labels": "--data x.npy",
}
"""What an option needs beside it, before its file is looked at."""

OTHERS = {
    "attack": (
        ("--restarts 2 --attack fgsm", "fgsm takes no --restarts"),
        ("--data unlabelled.npz --targets labels", "has no labels"),
        ("-o new.npz --shard 1/2 --engine ray --workers 2", "needs Ray"),
    ),
    "analyze": (
        ("--attack pgd --eps 0.1", "exclude each other"),
        ("--select greedy", "--select greedy needs --budget"),
        ("--resume", "--resume goes with --shard"),
        ("--criterion margin --data unlabelled.npz", "labels"),
    ),
    "evaluate": (
        ("--require clean-drop<=1% m.onnx", "unexpected extra argument"),
        ("--json --markdown", "exclude each other"),
        ("--shard 1/2", "needs the whole result"),
        ("--engine ray --workers 2", "needs Ray"),
        ("--data unlabelled.npz", "labels"),
        ("--baseline wide.onnx", "wide.onnx"),
    ),
    "harden": (
        ("--engine ray --workers 2", "needs Ray"),
        ("--data unlabelled.npz", "labels"),
        ("--select-data unlabelled.npz", "labels"),
        ("-o there-already", "is there already"),
    ),
    "learn": (
        ("--engine ray --workers 2", "needs Ray"),
        ("--layers nope", "nope"),
        ("--tap features --layers a", "layers"),
    ),
    "sweep": (("--adaptive-at none --eps 0.1", "--eps goes with adaptive"), ("--norm l2", "--norm l2 needs --eps")),
    "apply": (("--remove 1 --threshold 2", "exclude each other"), ("--attestation new.two -o new.two", "two outputs")),
    "verify": (
        ("--key k.pub --certificate k.pub --ca k.pub", "exclude each other"),
        ("--key missing.pub", "missing.pub"),
    ),
    "evidence": (("--format cyclonedx", "leave --require out"),),
    "merge": (("--markdown --json", "exclude each other"),),
    "report": (("--samples clean.npz", "clean.npz"), ("--sweep e.json", "e.json")),
}
"""Mistakes of one verb: what is added to its line, and a part of what is said."""


class Mistake(NamedTuple):
    """What is added to a verb's line, and a part of what is said."""

    verb: str
    words: tuple[str, ...]
    said: str = ""


def options(verb: str) -> list[click.Option]:
    return [each for each in verbs._command(verb).params if isinstance(each, click.Option)]


def outputs(verb: str) -> list[click.Option]:
    return [each for each in options(verb) if getattr(each.type, "writes", False)]


def inputs(verb: str) -> list[click.Option]:
    return [each for each in options(verb) if each.type is PATH]


def values(verb: str) -> list[click.Option]:
    """Return the options that take a value and name no file."""
    return [each for each in options(verb) if each not in (*outputs(verb), *inputs(verb)) and not each.is_flag]


def of_outputs(verb: str) -> Iterator[Mistake]:
    found = outputs(verb)
    for each in found:
        flag, suffixes = each.opts[0], getattr(each.type, "suffixes")  # noqa: B009 - of our own type
        suffix = suffixes[0] if suffixes else ""
        if suffix or verb == "merge":
            yield Mistake(verb, (flag, f"nothing/o{suffix}"), "there is no folder")
            yield Mistake(verb, (flag, f"folder{suffix}"), "it is a folder")
        yield Mistake(verb, (flag, f"there{suffix}"), f"there{suffix}")
        yield Mistake(verb, (flag, f"locked/o{suffix}"), "locked")
        yield Mistake(verb, (flag, f"nowhere://there/o{suffix}"), f"nowhere://there/o{suffix}")
        yield Mistake(verb, (flag, f"https://there/o{suffix}"), "the web is only read")
        yield Mistake(verb, (flag, ""), "is empty")
        if verb != "merge" or suffix:
            yield Mistake(verb, (flag, f"o{'.json' if suffix != '.json' else '.onnx'}"), "suffix")
        for other in found:
            if other.opts[0] > flag:
                yield Mistake(
                    verb, (flag, "one.two", other.opts[0], "sub/../one.two"), "one.two would hold two outputs"
                )


def of_inputs(verb: str) -> Iterator[Mistake]:
    for each in inputs(verb):
        flag = each.opts[0]
        more = GOES_WITH.get(f"{verb} {flag}", GOES_WITH.get(flag, "")).split()
        for name in ("missing.npz", "garbage.npz", "nowhere://there/i.npz"):
            yield Mistake(verb, (*more, flag, name), name)


def of_values(verb: str) -> Iterator[Mistake]:
    for each in values(verb):
        for value in ("nope", "", *WRONG.get(each.opts[0], ())):
            yield Mistake(verb, (each.opts[0], value))


def of_the_verb(verb: str) -> Iterator[Mistake]:
    for words, said in OTHERS.get(verb, ()):
        yield Mistake(verb, tuple(words.split()), said)


MISTAKES = [each for verb in LINES for of in (of_outputs, of_inputs, of_values, of_the_verb) for each in of(verb)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the lines read."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    (folder / "m.onnx").write_bytes(core.mlp().SerializeToString())
    wide = core.mlp()
    wide.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    (folder / "wide.onnx").write_bytes(wide.SerializeToString())
    for name, count in (("clean", 12), ("many", 60)):
        np.savez(folder / f"{name}.npz", x=rng.random((count, 4)).astype(np.float32), y=np.arange(count) % 3)
    x = np.load(folder / "clean.npz")["x"]
    np.savez(folder / "adversarial.npz", x=np.clip(x + 0.05, 0, 1), y=np.arange(12) % 3)
    np.savez(folder / "unlabelled.npz", x=x)
    np.save(folder / "x.npy", x)
    key = write_pair(folder, "p256")
    (folder / "signer.pem").write_bytes(certificate(key, "signer", ca=True))
    (folder / "garbage.npz").write_bytes(b"garbage")
    for name in ("locked", "sub"):
        (folder / name).mkdir()
    for suffix in ("", ".json", ".npz", ".onnx", ".html", ".xml"):
        (folder / f"there{suffix}").write_bytes(b"there")
        (folder / f"folder{suffix}").mkdir()
    (folder / "there-already").mkdir()
    (folder / "there-already" / "hardened.onnx").write_bytes(b"there")
    settings = "model = 'm.onnx'\ndata = 'many.npz'\neps = '0.1'\nrequire = ['clean>=0%']\n"
    (folder / "ci.toml").write_text(settings)
    short = ("--data", "many.npz", "--eps", "0.1", "--attack", "fgsm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            ("analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "adversarial.npz"),
            ("apply", "m.onnx", "-o", "h.onnx", "--attestation", "att.json"),
            ("evaluate", "h.onnx", *short, "-o", "e.json"),
            ("evaluate", "h.onnx", *short, "--shard", "1/2", "-o", "1.shard"),
            ("evaluate", "h.onnx", *short, "--shard", "2/2", "-o", "2.shard"),
        ):
            patch.setattr(sys, "argv", ["cloakonnx", "-q", *line])
            with same_handlers(), pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0, line
        shutil.copy("m.cloak.json", "a.json")
    return folder


class WorkError(AssertionError):
    """Work has begun."""


@pytest.fixture
def ready(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder; work that begins is an error from now on."""
    monkeypatch.chdir(made)
    monkeypatch.setitem(sys.modules, "ray", None)
    access = os.access
    locked = made / "locked"  # the system's own answer does not depend on permissions where root asks
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and access(path, mode))

    def refuse(*_: object, **__: object) -> None:
        raise WorkError

    for kind, name in ((Session, "__init__"), (InProcess, "open"), (Threads, "open"), (Ray, "open"), (Attack, "run")):
        monkeypatch.setattr(kind, name, refuse)
    return made


def test_every_verb_is_here() -> None:
    assert {*LINES, *APART} == {*verbs._VERBS}
    assert set(OTHERS) <= set(LINES)


@pytest.mark.parametrize("verb", LINES)
def test_nothing_is_wrong_in_the_lines(verb: str, ready: Path, run: Run, tmp_path: Path) -> None:
    """Or a mistake would not be what ends them; and work that begins is seen."""
    shutil.copytree(ready, tmp_path / "here")
    os.chdir(tmp_path / "here")
    if verb not in AT_ONCE:
        with pytest.raises(WorkError):
            run(*LINES[verb].split())
        return
    assert run(*LINES[verb].split()).code == 0


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: " ".join((each.verb, *each.words)))
def test_mistakes(mistake: Mistake, ready: Path, run: Run) -> None:
    has_json = "as_json" in {each.name for each in options(mistake.verb)} and "--json" not in mistake.words
    before = files(ready)
    result = run(*LINES[mistake.verb].split(), *mistake.words, *(["--json"] if has_json else []))
    assert result.code == 2, result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("cloakonnx: ")
    assert mistake.said in last
    assert "Traceback" not in result.err
    assert files(ready) == before
    if not has_json:
        assert result.out == "" or "--json" in mistake.words
        return
    found = json.loads(result.out)
    assert (set(found), found["exit"]) == ({"error", "exit"}, 2)
    assert found["error"]["message"] in last


@pytest.mark.parametrize("verb", LINES)
def test_without_json(verb: str, ready: Path, run: Run) -> None:
    """Nothing is printed where the result would be."""
    before = files(ready)
    for mistake in [each for of in (of_outputs, of_inputs, of_the_verb) for each in list(of(verb))[:3]]:
        result = run(*LINES[verb].split(), *mistake.words)
        assert result.code == 2
        assert result.out == "" or "--json" in mistake.words
    assert files(ready) == before


RESUMED = {
    "attack": "--eps 0.1,0.2 --resume",
    "analyze": "--shard 1/2 -o 3.shard --resume",
    "evaluate": "--resume",
    "sweep": "--resume",
    "learn": "--resume",
}
LEFT = {"attack": "new.eps0.2.npz", "analyze": "3.shard.0"}
"""Outputs beside which work of other settings lies; of several files the last."""


@pytest.mark.parametrize("verb", RESUMED)
def test_resumed_with_other_settings(
    verb: str, made: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before any batch; what the other run has left stays."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    left = path_of(Path(LEFT.get(verb, "new.json")))
    left.mkdir()
    (left / "settings.json").write_text(json.dumps({"format": FORMAT, "seed": -1}))
    before = files(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise WorkError

    monkeypatch.setattr(InProcess, "open", refuse)
    monkeypatch.setattr(Attack, "run", refuse)
    result = run(*LINES[verb].replace("--require clean>=0%", "").split(), *RESUMED[verb].split())
    assert (result.code, result.out) == (2, "")
    assert "start again without --resume" in result.err.splitlines()[-1]
    assert files(tmp_path) == before


@pytest.mark.parametrize("verb", [verb for verb in LINES if "resume" in {each.name for each in options(verb)}])
def test_nothing_to_resume_without_an_output(verb: str, ready: Path, run: Run) -> None:
    words = LINES[verb].split()
    if verb in {"attack", "analyze", "learn"}:  # which have an output in any case
        return
    output = words.index("-o")
    result = run(*words[:output], *words[output + 2 :], "--resume")
    assert (result.code, result.out) == (2, "")
    assert "--resume needs -o" in result.err


@pytest.mark.parametrize("option", [each.opts[0] for each in (*inputs("evaluate"), *values("evaluate"))])
def test_check(option: str, ready: Path, run: Run, tmp_path: Path) -> None:
    """What is wrong for evaluate is wrong in the settings file of a check, before the first model is attacked."""
    name = option.removeprefix("--")
    if name in {"shard", "junit"}:
        return
    before = files(ready)
    more = "data = 'x.npy'\n" if name == "labels" else ""
    settings = tmp_path / "wrong.toml"
    settings.write_text(
        "eps = '0.1'\nrequire = ['clean>=0%']\ndata = 'many.npz'\n[[models]]\npath = 'm.onnx'\n"
        f"[[models]]\npath = 'h.onnx'\n{more}{name} = {json.dumps(['nope'] if name == 'require' else 'nope')}\n"
    )
    result = run("--config", settings, "check", "-o", "new", "--json")
    assert (result.code, json.loads(result.out)["exit"]) == (2, 2), result.err
    assert "nope" in result.err or name in result.err
    assert files(ready) == before
