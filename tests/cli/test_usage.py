"""Usage errors, numbers, help without heavy imports, JSON output, completion, interruption."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from cloakonnx.cli._types import Amounts
from cloakonnx.selection.topk import Share
from cloakonnx.text import parse_number

from .conftest import Run, files

PAIRS = ("--data", "clean.npz", "--adversarial", "adversarial.npz")
VERBS = ("inspect", "analyze", "apply", "evaluate", "verify", "strip")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("analyse", "m.onnx"), "no command 'analyse'; did you mean 'analyze'"),
        (("aply",), "did you mean 'apply'"),
        (("zzz",), "no command 'zzz' (see '"),
        (("--bogus",), "No such option"),
        (("analyze",), "analyze --help')"),
        (("inspect",), "Missing argument 'MODEL'."),
        (("inspect", "m.onnx", "more"), "unexpected extra argument"),
        (("analyze", "m.onnx"), "--data is missing"),
        (("analyze", "m.onnx", "--adversarail", "x"), "--adversarial"),
        (("analyze", "m.onnx", "--data"), "'--data' requires an argument"),
        (("analyze", "m.onnx", "--mean", "abc"), "'abc' is not a list of numbers"),
        (
            ("analyze", "m.onnx", "--mean", "imgenet"),
            "none of the words imagenet, cifar10, mnist; did you mean 'imagenet'",
        ),
        (("analyze", "m.onnx", *PAIRS, "--mean", "imagenet"), "--mean has 3 numbers"),
        (("analyze", "m.onnx", "--mean", "1,,2"), "'1,,2' is not a list of numbers"),
        (("analyze", "m.onnx", "--std", "8/0"), "'8/0' is not a list of numbers"),
        (("analyze", "m.onnx", "--scale", "nan"), "'nan' is not a number"),
        (("analyze", "m.onnx", "--bounds", "1"), "has 1 numbers, 2 are needed"),
        (("analyze", "m.onnx", *PAIRS, "--bounds", "1,0"), "the first must be below the second"),
        (("analyze", "m.onnx", *PAIRS, "--std", "0"), "--std must be above 0"),
        (("analyze", "m.onnx", *PAIRS, "--scale", "0"), "--scale must not be 0"),
        (("analyze", "m.onnx", "--batch-size", "0"), "'--batch-size'"),
        (("analyze", "m.onnx", "--limit", "0"), "'--limit'"),
        (("analyze", "m.onnx", "--limit", "many"), "'--limit'"),
        (("analyze", "m.onnx", "--layout", "hwc"), "'hwc' is not one of"),
        (("analyze", "m.onnx", "--device-id", "-1"), "'--device-id'"),
        (("apply", "m.onnx", "--remove", "8/0"), "neither a share like 5% nor a count like 3"),
        (("apply", "m.onnx", "--remove", "abc"), "neither a share like 5% nor a count like 3"),
        (("apply", "m.onnx", "--remove", "0.05"), "neither a share like 5% nor a count like 3"),
        (("apply", "m.onnx", "--threshold", "high"), "'high' is not a number"),
        (("apply", "m.onnx", "--feature-axis", "1"), "--feature-axis goes with --mask"),
    ],
)
def test_usage_errors(run: Run, folder: Path, arguments: tuple[str, ...], said: str) -> None:
    before = files(folder)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("cloakonnx: ")
    assert err.count("\n") == 1
    assert said in err
    assert files(folder) == before


@pytest.mark.parametrize("amount", ["0%", "100%", "150%", "0", "-1", "6", "99"])
def test_amounts_that_are_none_or_all(run: Run, folder: Path, amount: str) -> None:
    assert run("analyze", "m.onnx", *PAIRS).code == 0
    code, out, err = run("apply", "m.onnx", "--remove", amount)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert not (folder / "m.hardened.onnx").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.03", 0.03),
        (".5", 0.5),
        ("8/255", 8 / 255),
        ("5%", 0.05),
        ("7 %", 0.07),
        ("1/4%", 0.0025),
        ("-1", -1),
        ("1e-3", 1e-3),
        ("1e-999999999%", 0),
    ],
)
def test_numbers(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text", ["", "%", "/", "1/", "/2", "1/0", "0/0", "nan", "inf", "1e999", "1e999%", "0/0%", "a", "1,2", "1/2/3"]
)
def test_no_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        parse_number(text)


@pytest.mark.parametrize("text", ["0/0", "1/0%", "1e999999999", "0..1e999999999", "0%..1/0%", "1..2:0/0"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is neither a range like"):
        Amounts().convert(text, None, None)


def test_a_tiny_amount_takes_no_memory() -> None:
    assert Amounts().convert("1e-999999999%", None, None) == (Share(0),)


def test_no_arguments_show_the_help(run: Run) -> None:
    code, out, err = run()
    assert code == 2
    assert out == ""
    assert [line for line in err.splitlines() if line.endswith(":")] == [
        "Options:", "Do it:", "Step by step:", "Files and checks:",
    ]  # fmt: skip
    assert re.findall(r"^  ([a-z]+) ", err.partition("Do it:")[2], re.MULTILINE)[:3] == ["harden", "evaluate", "gate"]


@pytest.mark.parametrize("arguments", [(), *((verb,) for verb in VERBS)])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(sorted({'onnx', 'onnxruntime', 'numpy', 'rich'} & set(sys.modules))))\n"
        f"sys.argv = ['cloakonnx', *{list(arguments)!r}, '--help']\n"
        "from cloakonnx.cli import main\nmain()\n"
    )
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: cloakonnx")
    loaded = ["numpy"] if arguments in {("attack",), ("analyze",)} else []  # their options are made from the attacks
    assert done.stdout.endswith(f"\n{loaded}\n")


def test_help_names_every_verb(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"\n  {verb} " in out for verb in VERBS)


def test_version(run: Run) -> None:
    done = python("-m", "cloakonnx", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-2] == "version"
    assert run("--version").out.split()[-1] == done.stdout.split()[-1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    script = str(Path(sys.executable).with_name("cloakonnx"))
    if not Path(script).exists():
        pytest.skip("the console script is not installed beside this Python")
    done = python(script, _CLOAKONNX_COMPLETE=f"{shell}_source")
    assert done.returncode == 0
    assert "_CLOAKONNX_COMPLETE" in done.stdout
    words = {"COMP_WORDS": "cloakonnx an", "COMP_CWORD": "1" if shell != "fish" else "an"}
    done = python(script, _CLOAKONNX_COMPLETE=f"{shell}_complete", **words)
    assert done.returncode == 0
    assert "analyze" in done.stdout
    words = {"COMP_WORDS": "cloakonnx analyze --ad", "COMP_CWORD": "2" if shell != "fish" else "--ad"}
    done = python(script, _CLOAKONNX_COMPLETE=f"{shell}_complete", **words)
    assert "--adversarial" in done.stdout


def parsed(out: str) -> Any:
    """Return what stdout holds: one JSON value and nothing else."""
    return json.loads(out)


def test_json(run: Run, folder: Path) -> None:
    inspected = parsed(run("inspect", "m.onnx", "--json").out)
    assert [tap["name"] for tap in inspected["taps"] if tap["default"]] == ["features"]

    analyzed = run("analyze", "m.onnx", *PAIRS, "--json")
    assert parsed(analyzed.out)["kind"] == "scores"
    assert analyzed.out == (folder / "m.cloak.json").read_text()

    tried = parsed(run("apply", "m.onnx", "--remove", "2", "--dry-run", "--json").out)
    assert not tried["written"]
    assert not (folder / "m.hardened.onnx").exists()
    applied = parsed(run("apply", "m.onnx", "--remove", "2", "--json").out)
    assert applied["written"]
    assert applied["masks"] == tried["masks"]
    assert len(applied["masks"][0]["removed"]) == 2

    verified = run("verify", "m.hardened.onnx", "--source", "m.onnx", "--json")
    assert verified.code == 0
    assert parsed(verified.out)["passed"] is True

    stripped = run("strip", "m.hardened.onnx", "-o", "again.onnx", "--json")
    assert parsed(stripped.out)["output"] == "again.onnx"
    assert (folder / "again.onnx").read_bytes() == (folder / "m.onnx").read_bytes()


@pytest.mark.parametrize("adversarial", [PAIRS[2:], ("--attack", "fgsm", "--eps", "8/255")], ids=["given", "attack"])
def test_analyses_follow_the_published_schema(run: Run, folder: Path, adversarial: tuple[str, ...]) -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs" / "analysis.schema.json").read_text())
    for criterion in ("deepcloak", "relative", "standardised"):
        arguments = ("analyze", "m.onnx", *PAIRS[:2], *adversarial, "--criterion", criterion, "--force", "--json")
        code, out, err = run(*arguments)
        assert code == 0, err
        Draft202012Validator(schema).validate(parsed(out))


def test_words_go_to_stderr(run: Run, folder: Path) -> None:
    code, out, err = run("analyze", "m.onnx", *PAIRS)
    assert (code, out) == (0, "")
    assert "features: 6 features, deepcloak on 12 pairs (CPUExecutionProvider, largest difference" in err
    assert "wrote m.cloak.json" in err
    assert "removed 1 of 6 features" in run("apply", "m.onnx").err


def test_same_samples_are_a_warning(run: Run, folder: Path) -> None:
    code, _, err = run("analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "clean.npz")
    assert code == 0
    assert "clean and adversarial samples are the same" in err
    assert "dead: 6 features" in err


def test_force_overwrites(run: Run, folder: Path) -> None:
    assert run("analyze", "m.onnx", *PAIRS).code == 0
    first = (folder / "m.cloak.json").read_bytes()
    assert run("analyze", "m.onnx", *PAIRS).code == 2
    assert run("analyze", "m.onnx", *PAIRS, "--force").code == 0
    assert (folder / "m.cloak.json").read_bytes() == first


def test_class_folders(run: Run, folder: Path) -> None:
    for name in ("c9", "c10", "__MACOSX"):
        (folder / "data" / name).mkdir(parents=True)
        Image.new("L", (2, 2), 90).save(folder / "data" / name / "1.png")
    arguments = ("attack", "m.onnx", "--data", "data", "--attack", "noise", "--eps", "0.1", "--force", "-o", "a.npz")
    code, _, err = run(*arguments)
    assert code == 2
    assert "data: skipped 1 system folder (__MACOSX)\n" in err
    assert "in order of their numbers (c9, c10), not of their text (c10, c9)" in err
    assert "2 class folders with pictures, but the model has 3 classes; name all 3" in err
    assert run(*arguments, "--classes", " c9, c11 ,c10").code == 0
    with np.load(folder / "a.npz") as found:
        assert found["y"].tolist() == [0, 2]
    assert "has an empty name" in run(*arguments, "--classes", "c9,,c10").err


def test_versions_in_another_order_are_doubted(run: Run, folder: Path) -> None:
    with np.load(folder / "adversarial.npz") as stored:
        np.savez(folder / "turned.npz", x=stored["x"][::-1])
    said = "warning: {} of the first 12 samples of turned.npz are nearer to another sample of clean.npz"
    options = ("analyze", "m.onnx", "--data", "clean.npz", "--force", "--adversarial")
    code, _, err = run(*options, "turned.npz")
    assert code == 0
    assert any(said.format(n) in err for n in range(4, 13))
    assert "nearer" not in run(*options, "adversarial.npz").err


def test_limit_and_adversarial_inputs_of_another_kind(run: Run, folder: Path) -> None:
    with np.load(folder / "clean.npz") as stored:
        np.save(folder / "x.npy", stored["x"])
        np.save(folder / "y.npy", stored["y"])
    labels = ("--data", "x.npy", "--labels", "y.npy", "--limit", "5", "--adversarial", "adversarial.npz", "--json")
    result = parsed(run("analyze", "m.onnx", *labels).out)
    assert result["samples"]["count"] == 5
    assert result["samples"]["clean"] == "x.npy"


def test_failed_verification_exits_1(run: Run, folder: Path) -> None:
    assert run("analyze", "m.onnx", *PAIRS).code == 0
    assert run("apply", "m.onnx").code == 0
    other = (folder / "m.onnx").read_bytes().replace(b"fixtures", b"someone!")
    (folder / "other.onnx").write_bytes(other)
    code, out, err = run("verify", "m.hardened.onnx", "--source", "other.onnx")
    assert code == 1
    assert "FAIL" in out
    assert "failed verification" in err


SLOW = """
import time
import click
import numpy as np

def batches():
    yield np.zeros((1, 4), np.float32)
    open("started", "w").close()
    while True:
        time.sleep(0.05)
        yield np.zeros((1, 4), np.float32)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption(folder: Path, number: signal.Signals) -> None:
    (folder / "slow.py").write_text(SLOW)
    arguments = ["analyze", "m.onnx", "--data-script", "slow.py:batches", "--adversarial-script", "slow.py:batches"]
    child = subprocess.Popen(
        [sys.executable, "-m", "cloakonnx", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 30
        while not (folder / "started").exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 130
    assert out == ""
    assert err.strip() == "cloakonnx: interrupted; no output was left half-written"
    assert not (folder / "m.cloak.json").exists()
    assert not list(folder.glob("*.part")) + list(folder.glob(".*.part"))
