"""cloakonnx.toml and [tool.cloakonnx]: what is in force, what flags replace, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import Run
from .test_bad_input import assert_refused

HARDENED = ("evaluate", "m.hardened.onnx")
FILE = """
data = "clean.npz"
batch-size = 5
[evaluate]
eps = "0.05,0.1"
attack = "fgsm"
no-sanity = true
"""


@pytest.fixture
def masked(run: Run, folder: Path) -> Path:
    np.save(folder / "mask.npy", np.array([0, 1, 1, 1, 1, 1], np.float32))
    assert run("apply", "m.onnx", "--mask", "mask.npy", "--tap", "features").code == 0
    return folder


def evaluated(run: Run, *arguments: str) -> dict[str, object]:
    found = run(*arguments, "--json")
    assert found.code == 0, found.err
    return dict(json.loads(found.out))


def test_options_from_the_file_are_those_from_flags(run: Run, masked: Path) -> None:
    flags = ("--data", "clean.npz", "--batch-size", "5", "--eps", "0.05,0.1", "--attack", "fgsm", "--no-sanity")
    wanted = evaluated(run, *HARDENED, *flags)
    (masked / "cloakonnx.toml").write_text(FILE)
    assert evaluated(run, *HARDENED) == wanted
    (masked / "cloakonnx.toml").rename(masked / "other.toml")
    assert run(*HARDENED).code == 2
    assert evaluated(run, "--config", "other.toml", *HARDENED) == wanted
    assert evaluated(run, *HARDENED, "--config", "other.toml") == wanted
    assert evaluated(run, "evaluate", "--config=other.toml", HARDENED[1]) == wanted
    assert_refused(run, masked, (*HARDENED, "--config"), "--config needs a file")
    assert '"batch-size"' in run("config", "--show", "--json", "--config", "other.toml").out
    (masked / "other.toml").unlink()
    text = FILE.replace("[evaluate]", "[tool.cloakonnx.evaluate]")
    (masked / "pyproject.toml").write_text(f"[project]\nname = 'x'\n[tool.cloakonnx]\n{text}")
    assert evaluated(run, *HARDENED) == wanted
    (masked / "cloakonnx.toml").write_text("data = 'clean.npz'\n")
    assert "Missing option '--eps'" in run(*HARDENED).err, "cloakonnx.toml alone counts where both are"
    assert evaluated(run, "--config", "pyproject.toml", *HARDENED) == wanted


@pytest.mark.parametrize("eps", ['["0.05", "0.1"]', "[0.05, 0.1]", '"0.05,0.1"'])
def test_flags_win(run: Run, masked: Path, eps: str) -> None:
    (masked / "cloakonnx.toml").write_text(FILE.replace('"0.05,0.1"', eps))
    assert len(evaluated(run, *HARDENED)["results"]) == 2  # type: ignore[arg-type]
    found = evaluated(run, *HARDENED, "--eps", "0.2", "--batch-size=7")
    assert found["batch_size"] == 7
    assert [each["eps"] for each in found["results"]] == [0.2]  # type: ignore[attr-defined]


def test_a_table_wins_over_what_is_shared(run: Run, masked: Path) -> None:
    (masked / "cloakonnx.toml").write_text("batch-size = 3\n" + FILE.replace("batch-size = 5\n", "") + "batch-size = 4")
    assert evaluated(run, *HARDENED)["batch_size"] == 4


def test_flags_replace_nothing_that_goes_with_them(run: Run, masked: Path) -> None:
    """``--adversarial`` and ``--attack`` exclude each other in analyze alone."""
    (masked / "cloakonnx.toml").write_text(FILE.replace("0.05,0.1", "1"))
    found = evaluated(run, *HARDENED, "--adversarial", "adversarial.npz")
    stages = [stage["name"] for stage in found["results"][0]["hardened"]["stages"]]  # type: ignore[index]
    assert (found["attack"], "given inputs" in stages) == ("fgsm", True)
    (masked / "cloakonnx.toml").write_text(FILE.replace("0.05,0.1", "1") + "adversarial = 'adversarial.npz'\n")
    found = evaluated(run, *HARDENED, "--attack", "noise")
    stages = [stage["name"] for stage in found["results"][0]["hardened"]["stages"]]  # type: ignore[index]
    assert (found["attack"], "given inputs" in stages) == ("noise", True)
    model = "[[models]]\npath = 'm.hardened.onnx'\nrequire = 'clean>=0%'\nadversarial = 'adversarial.npz'\n"
    (masked / "cloakonnx.toml").write_text(FILE.replace("0.05,0.1", "1") + model)
    found = run("check", "-o", "out")
    assert (found.code, "Missing option" in found.err) == (0, False), found.err
    result = json.loads((masked / "out" / "m.hardened.onnx.json").read_text())
    assert [each["eps"] for each in result["results"]] == [1]


def test_flags_replace_what_excludes_them(run: Run, masked: Path) -> None:
    (masked / "cloakonnx.toml").write_text("[apply]\nremove = '20%'\n[analyze]\nattack='fgsm'\neps='0.1'")
    pairs = ("--data", "clean.npz", "--adversarial", "adversarial.npz")
    assert run("analyze", "m.onnx", *pairs, "--force").code == 0
    assert run("apply", "m.onnx", "--json", "--force").code == 0
    threshold = run("apply", "m.onnx", "--threshold", "0.0001", "--dry-run")
    assert "exclude each other" not in threshold.err
    assert run("apply", "m.onnx", "--mask", "mask.npy", "--tap", "features", "--force").code == 0


def test_several_values(run: Run, masked: Path) -> None:
    (masked / "cloakonnx.toml").write_text(FILE.replace("= true", "= false") + "require = ['clean-drop<=100%']\n")
    assert_refused(run, masked, HARDENED, "100% is beyond what shares can differ by")
    (masked / "cloakonnx.toml").write_text(FILE + "require = ['clean-drop<=99%', 'clean>=0.1%']\n")
    found = run(*HARDENED)
    assert "clean-drop<=99%: " in found.err and "clean>=0.1%: " in found.err
    (masked / "cloakonnx.toml").write_text(FILE + "require = 'clean-drop<=99%'\n")
    assert run(*HARDENED).code == 0


BAD = [
    ("[evaluate]\nepss = '1'", "cloakonnx.toml [evaluate]: evaluate has no option 'epss'; did you mean 'eps'"),
    ("[evaluate]\nbatch_size = 3", "did you mean 'batch-size'"),
    ("[evalute]\neps = '1'", "cloakonnx.toml: there is no verb 'evalute'; did you mean 'evaluate'"),
    ("sead = 3", "cloakonnx.toml: no verb has an option 'sead'; did you mean 'seed'"),
    ("[learn]\ntarget = '1'", "learn has no option 'target'"),
    ("[evaluate]\nbatch-size = 'many'", "cloakonnx.toml [evaluate]: batch-size: 'many' is not a valid integer"),
    ("[evaluate]\nbatch-size = 3.5", "batch-size: '3.5' is not a valid integer"),
    ("[evaluate]\nbatch-size = 0", "batch-size: 0 is not in the range"),
    ("batch-size = true", "cloakonnx.toml: batch-size is a text or a number, not True"),
    ("[evaluate]\nresume = 'yes'", "resume is true or false, not 'yes'"),
    ("[evaluate]\nno-sanity = 1", "no-sanity is true or false, not 1"),
    ("[evaluate]\neps = [1, 'x']", "eps: '1,x' is not a list of numbers"),
    ("[evaluate]\neps = 2020-01-01", "eps is a text or a number"),
    ("[evaluate]\neps = []", "eps is a text or a number, not []"),
    ("[evaluate]\nnorm = 'l3'", "norm: 'l3' is not one of"),
    ("[evaluate]\nnorm = ['l2', 'linf']", "norm is one text, not the list"),
    ("[evaluate.eps]\na = 1", "eps is a text or a number, not {'a': 1}"),
    ("eps = ", "cloakonnx.toml is not TOML: "),
    ("\x00", "cloakonnx.toml is not TOML: "),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[said[:40] for _, said in BAD])
def test_what_is_wrong(run: Run, masked: Path, text: str, said: str) -> None:
    (masked / "cloakonnx.toml").write_text(text)
    assert_refused(run, masked, HARDENED, said)
    assert_refused(run, masked, ("config", "--show"), said)


def test_files_that_are_none(run: Run, masked: Path) -> None:
    assert_refused(run, masked, ("--config", "none.toml", *HARDENED), "cannot read none.toml: No such file")
    (masked / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert_refused(run, masked, ("--config", "pyproject.toml", *HARDENED), "has no table [tool.cloakonnx]")
    assert run("inspect", "m.onnx").code == 0
    (masked / "pyproject.toml").write_text("[tool]\ncloakonnx = 3\n")
    assert_refused(run, masked, HARDENED, "has no table [tool.cloakonnx]")
    (masked / "pyproject.toml").write_bytes(b"\xff")
    assert_refused(run, masked, HARDENED, "pyproject.toml is not TOML")
    assert run("evaluate", "--help").code == 0


def test_what_another_verb_would_refuse_is_not_in_the_way(run: Run, masked: Path) -> None:
    (masked / "cloakonnx.toml").write_text("eps = '0.05,0.1'\n[learn]\neps = 0.1\nbudget = 'x'\n")
    assert run("inspect", "m.onnx").code == 0
    assert_refused(run, masked, ("learn", "m.onnx"), "budget: 'x' is not a number")


def test_show(run: Run, masked: Path) -> None:
    code, out, err = run("config", "--show", "evaluate")
    assert (code, err) == (0, "no cloakonnx.toml here, no [tool.cloakonnx]\n")
    assert "evaluate.batch-size = 64  # default\n" in out
    (masked / "cloakonnx.toml").write_text(FILE)
    code, out, err = run("config", "--show")
    assert (code, err) == (0, "from cloakonnx.toml\n")
    assert 'evaluate.eps = "0.05,0.1"  # cloakonnx.toml [evaluate]\n' in out
    assert "evaluate.batch-size = 5  # cloakonnx.toml\n" in out
    assert "analyze.batch-size = 5  # cloakonnx.toml\n" in out
    assert "evaluate.no-sanity = true  # cloakonnx.toml [evaluate]\n" in out
    assert "evaluate.seed = 0  # default\n" in out
    assert "baseline" not in out
    found = json.loads(run("config", "--show", "strip", "--json").out)
    assert found["file"] == "cloakonnx.toml"
    assert {"verb": "strip", "option": "force", "value": None, "from": None} in found["options"]
    assert run("config") == (code, out, err), "the same without --show"
    assert run("config", "strip", "--json").out == run("config", "--show", "strip", "--json").out
    assert_refused(run, masked, ("config", "--show", "evalute"), "did you mean 'evaluate'")


def test_every_option_can_be_in_the_file(run: Run, masked: Path) -> None:
    """Each name that --help shows is a key."""
    listed = json.loads(run("config", "--show", "--json").out)["options"]
    for verb in {each["verb"] for each in listed}:
        shown = run(verb, "--help").out
        names = {each["option"] for each in listed if each["verb"] == verb}
        assert names and all(f"--{name}" in shown for name in names)
        assert "json" in names or verb == "evidence", "what evidence writes is JSON"


SCRIPT = (
    "import pathlib\npathlib.Path('RAN').write_text('')\nimport numpy as np\n"
    "def data():\n    yield np.zeros((3, 4), 'f4')\n"
)
ATTACK = ("attack", "m.onnx", "--attack", "fgsm", "--eps", "0.1")
DATA = ("--data", "clean.npz")


@pytest.mark.parametrize(
    ("text", "verb", "said"),
    [
        ("data-script = 'evil.py:data'", (*ATTACK, "-o", "o.npz"), "data-script runs code"),
        ("[attack]\ndata-script = 'evil.py:data'", (*ATTACK, *DATA, "-o", "o.npz"), "data-script runs code"),
        ("[analyze]\nadversarial-script = 'evil.py:data'", ("analyze", "m.onnx", *DATA), "adversarial-script runs"),
        ("[attack]\noutput = 'precious.npz'\nforce = true", (*ATTACK, *DATA), "output decides which files"),
        ("[attack]\noutput = '../precious.npz'", (*ATTACK, *DATA), "output decides which files"),
        ("force = true", (*ATTACK, *DATA, "-o", "precious.npz"), "force decides which files"),
        ("[apply]\nforce = true", ("apply", "m.onnx", "-o", "m.onnx"), "force decides which files"),
        ("[apply]\nattestation = 'precious.npz'", ("apply", "m.onnx"), "attestation decides which files"),
        ("attestation = 'precious.npz'", ("apply", "m.onnx"), "attestation decides which files"),
        ("[evaluate]\nsamples = 'precious.npz'", (*HARDENED, *DATA, "--eps", "0.1"), "samples decides which files"),
    ],
)
def test_a_found_file_runs_no_code_and_writes_nothing(
    run: Run, folder: Path, text: str, verb: tuple[str, ...], said: str
) -> None:
    (folder / "evil.py").write_text(SCRIPT)
    (folder / "precious.npz").write_text("precious")
    (folder / "cloakonnx.toml").write_text(text)
    assert_refused(run, folder, verb, said)
    assert_refused(run, folder, ("config", "--show"), "name the file with --config")
    (folder / "cloakonnx.toml").unlink()
    text = "[tool.cloakonnx]\n" + text.replace("[a", "[tool.cloakonnx.a").replace("[e", "[tool.cloakonnx.e")
    (folder / "pyproject.toml").write_text(text)
    assert_refused(run, folder, verb, said)


def test_a_named_file_may_set_everything(run: Run, folder: Path) -> None:
    (folder / "evil.py").write_text(SCRIPT)
    (folder / "o.npz").write_text("old")
    (folder / "ci.toml").write_text(
        "[attack]\ndata-script = 'evil.py:data'\noutput = 'o.npz'\nforce = true\nlimit = 2\n"
    )
    found = run(*ATTACK, "--config", "ci.toml")
    assert found.code == 0, found.err
    assert (folder / "RAN").exists()
    assert (folder / "o.npz").read_bytes()[:2] == b"PK"
    assert "sets limit" not in found.err
    (folder / "cloakonnx.toml").write_text("[verify]\nattestation = 'a.json'\n")
    assert "a.json" in run("verify", "m.onnx").err, "what is an input may be set"


def test_what_a_found_file_weakens_is_said(run: Run, masked: Path) -> None:
    (masked / "cloakonnx.toml").write_text("allow-inconclusive = true\n[evaluate]\nno-sanity = true\nlimit = 4\n")
    task = (*HARDENED, *DATA, "--attack", "fgsm", "--eps", "0.1", "--require", "clean-drop<=99%")
    lines = run(*task).err.splitlines()
    assert "cloakonnx: cloakonnx.toml [evaluate] sets limit = 4" in lines
    assert "cloakonnx: cloakonnx.toml [evaluate] sets no-sanity = true" in lines
    assert "cloakonnx: cloakonnx.toml sets allow-inconclusive = true" in lines
    lines = run(*task, "--limit", "5").err.splitlines()
    assert not any("sets limit" in line for line in lines)
    (masked / "cloakonnx.toml").write_text("[evaluate]\nno-sanity = false\n")
    assert "sets no-sanity" not in run(*task).err
    for value in ("false", "true"):
        (masked / "cloakonnx.toml").write_text(f"[verify]\nhash-external = {value}\n")
        said = "cloakonnx.toml [verify] sets hash-external = false" in run("verify", HARDENED[1]).err
        assert said == (value == "false")


READ = {
    "data", "labels", "adversarial", "baseline", "analysis", "mask", "select-data", "report-data", "source", "key",
    "certificate", "ca", "sign-key", "model", "sweep",
}  # fmt: skip
"""Options that name a file which is read."""


def test_a_file_that_is_found_names_no_output() -> None:
    """Every option that names a file is known to be read, or may not be set by a file that is found by itself."""
    from cloakonnx.cli._files import PATH
    from cloakonnx.cli._settings import _BY_HAND, _WRITES, options
    from cloakonnx.cli.verbs import _commands

    unknown = [
        (verb, name)
        for verb, command in _commands().items()
        for name, each in options(command).items()
        if each.type is PATH and name not in READ and name not in _BY_HAND and verb not in _WRITES.get(name, ())
    ]
    assert set(unknown) <= {("report", "samples"), ("report", "shipped"), ("verify", "attestation")}
