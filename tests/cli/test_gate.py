"""evaluate --require and gate on the command line: a line each, exit codes, bad input before any work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests.reporting import samples

from .conftest import Run
from .test_bad_input import assert_refused

EVALUATE = ("evaluate", "m.hardened.onnx", "--data", "many.npz", "--eps", "0.05,0.1", "--attack", "fgsm", "--no-sanity")


@pytest.fixture
def masked(run: Run, folder: Path) -> Path:
    """A folder with a hardened model whose labels are the source's own, so that it is right on all clean samples."""
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.graph.file.model import load
    from cloakonnx.runtime.provider import Provider

    np.save(folder / "mask.npy", np.array([1, 1, 1, 1, 1, 0.99], np.float32))
    assert run("apply", "m.onnx", "--mask", "mask.npy", "--tap", "features").code == 0
    x = np.random.default_rng(0).random((300, 4)).astype(np.float32)
    y = Classifier(load(folder / "m.onnx"), provider=Provider("CPUExecutionProvider")).predict(x)
    np.savez(folder / "many.npz", x=x, y=y)
    return folder


def test_pass_and_fail(run: Run, masked: Path) -> None:
    given = ("--require", "clean-drop<=3%", "--require", "robust-gain>=-5%@0.1")
    code, out, err = run(*EVALUATE, *given, "-o", "e.json")
    assert code == 0, err
    assert "worst case, adaptive" in out
    lines = [line for line in err.splitlines() if not line.startswith(("wrote", "about"))]
    assert [line.split()[:2] for line in lines] == [["pass", "clean-drop<=3%:"], ["pass", "robust-gain>=-5%@0.1:"]]
    code, out, err = run(*EVALUATE, *given, "--require", "clean>=99.9%", "--markdown")
    assert code == 1
    assert err.splitlines()[-1].startswith("inconclusive clean>=99.9%: ")
    assert run(*EVALUATE, "--require", "clean>=99.9%", "--allow-inconclusive").code == 0
    assert run(*EVALUATE, "--require", "robust-gain>=20%@0.1", "--allow-inconclusive").code == 1
    judged = run("gate", "e.json", *given, "--require", "robust-gain>=20%@0.1")
    assert (judged.code, judged.err) == (1, "")
    assert [line.split()[0] for line in judged.out.splitlines()] == ["pass", "pass", "fail"]
    listed = json.loads(run("gate", "e.json", *given, "--json").out)
    assert [each["verdict"] for each in listed] == ["pass", "pass"]
    assert run("gate", "e.json", "--require", "clean>=99.9%").code == 1
    assert run("gate", "e.json", "--require", "clean>=99.9%", "--allow-inconclusive").code == 0


def test_junit(run: Run, masked: Path) -> None:
    given = ("--require", "clean-drop<=3%", "--require", "robust-gain>=20%@0.1", "--require", "clean>=99.9%")
    assert run(*EVALUATE, *given, "-o", "e.json", "--junit", "evaluated.xml").code == 1
    assert run("gate", "e.json", *given, "--junit", "gates.xml").code == 1
    assert (masked / "evaluated.xml").read_text() == (masked / "gates.xml").read_text()
    suite = ET.parse(masked / "gates.xml").getroot().find("testsuite")
    assert suite is not None and suite.attrib == {
        "name": "m.hardened.onnx", "tests": "3", "failures": "2", "errors": "0", "skipped": "0"
    }  # fmt: skip
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [given[1], given[3], given[5]]
    assert [[each.get("type") for each in case.iter("failure")] for case in cases] == [[], ["fail"], ["inconclusive"]]
    listed = json.loads(run("gate", "e.json", *given, "--json").out)
    for case, numbers in zip(cases, listed, strict=True):
        named = {each.get("name"): float(str(each.get("value"))) for each in case.iter("property")}
        assert named["value"] == numbers["value"] and named["limit"] == numbers["limit"] and named["n"] == 300
    run("gate", "e.json", *given, "--allow-inconclusive", "--junit", "gates.xml")  # overwritten, as CI repeats
    again = ET.parse(masked / "gates.xml").getroot().find("testsuite")
    assert again is not None and (again.get("failures"), again.get("skipped")) == ("1", "1")


def test_harden_without_gain(run: Run, masked: Path) -> None:
    """Every output of CI is there: the object on stdout, the JUnit file, the source's own numbers and page."""
    given = ("harden", "m.onnx", "--data", "many.npz", "--eps", "1e-6", "--preset", "quick", "-o", "h")
    code, out, err = run(*given, "--require", "clean>=1%", "--junit", "gates.xml", "--json")
    assert (code, json.loads(out)["error"]["kind"], json.loads(out)["exit"]) == (1, "no-gain", 1), err
    assert "wrote source-evaluation.json, source-summary.md, source-report.html to h" in err
    (case,) = ET.parse(masked / "gates.xml").getroot().iter("testcase")
    assert "no masks gain" in str(case.find("error").get("message"))  # type: ignore[union-attr]
    assert run("gate", "h/source-evaluation.json", "--require", "clean>=90%").code == 0


@pytest.mark.parametrize("name", ["a\0b", "a\ufffeb", "a\ud800b", "]]><x>&\"'", "\x1b[31mred", "\u2028", "ß 中"])
def test_any_name_gives_xml(name: str) -> None:
    from cloakonnx.evaluation.gates import Decision
    from cloakonnx.files import encoded
    from cloakonnx.reporting.junit import Suite, junit_xml

    decisions = [Decision(name, "fail", name), Decision(name, "inconclusive", name), Decision(name, "pass", name)]
    suite = ET.fromstring(encoded(junit_xml(Suite(name, decisions, True, error=name)))).find("testsuite")
    assert suite is not None
    assert [suite.get(each) for each in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]


def test_a_file_of_another_kind_is_not_replaced(run: Run, masked: Path) -> None:
    gate = ("--require", "clean>=1%")
    assert_refused(run, masked, (*EVALUATE, *gate, "--junit", "m.onnx"), "m.onnx is to hold JUnit XML")
    (masked / "other.xml").write_text("<settings/>")
    assert_refused(run, masked, (*EVALUATE, *gate, "--junit", "other.xml"), "other.xml exists and is no JUnit file")
    assert (masked / "other.xml").read_text() == "<settings/>"
    (masked / "empty.xml").touch()
    assert run(*EVALUATE, *gate, "--junit", "empty.xml").code == 0


def test_junit_is_checked_before_any_work(run: Run, masked: Path) -> None:
    assert_refused(run, masked, (*EVALUATE, "--junit", "gates.xml"), "--junit needs gates")
    assert_refused(run, masked, (*EVALUATE, "--require", "clean>=1%", "--junit", "no/gates.xml"), "no")


def test_flags(run: Run, masked: Path) -> None:
    arguments = [each for each in EVALUATE if each != "--no-sanity"]
    code, _, err = run(*arguments, "--limit", "12", "--require", "flags==0", "-o", "e.json")
    fired = [f["name"] for f in json.loads((masked / "e.json").read_text())["sanity"]["flags"] if f["fired"]]
    assert code == bool(fired)
    assert f"flags==0: {len(fired)} of 11 fired" in err
    assert run("gate", "e.json", "--require", "flags==0").code == code


def test_latency(run: Run, masked: Path) -> None:
    code, _, err = run(*EVALUATE, "--require", "latency-ratio<=50")
    assert code == 0
    assert re.search(r"^pass         latency-ratio<=50: [\d.]+, at most [\d.]+ \(95%\), 9 pairs of sessions", err, re.M)


def test_latency_without_a_gate(run: Run, masked: Path) -> None:
    """In the table, in Markdown and in what is printed as JSON, in no file; one measurement for the gate as well."""
    code, out, err = run(*EVALUATE, "--latency", "--json", "--require", "latency-ratio<=50", "-o", "e.json")
    assert code == 0, err
    found = json.loads(out)
    measured, (gate,) = found.pop("latency"), found.pop("gates")
    assert found == json.loads((masked / "e.json").read_text())
    assert (gate["value"], [gate["low"], gate["high"]]) == (measured["ratio"], measured["interval"])
    assert measured["model_seconds"] > 0 and measured["baseline_seconds"] > 0
    assert (len(measured["ratios"]), measured["batch"], measured["provider"]) == (9, 1, "CPUExecutionProvider")
    for form in ((), ("--markdown",)):
        code, out, _ = run(*EVALUATE, "--latency", *form)
        assert code == 0
        cells = r"[ |]+[\d.]+ [µm]s[ |]+[\d.]+ [µm]s[ |]+[\d.]+ times \[[\d., ]+\]"
        assert re.search(f"latency, one sample{cells}", out), out
        assert "Latency: medians of 9 pairs of new sessions" in out


def test_latency_compares(run: Run, masked: Path) -> None:
    said = "--latency compares with a baseline, and m.onnx is without masks"
    assert_refused(run, masked, (EVALUATE[0], "m.onnx", *EVALUATE[2:], "--latency"), said)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("robust-gian>=5%@0.1", "there is no gate 'robust-gian'; did you mean 'robust-gain'"),
        ("static-gain>=5%@0.1", "static figures are of inputs made on another model"),
        ("robust>=5%@0.2", "asks for what wasn't measured: eps 0.2 is not among 0.05, 0.1"),
        ("robust>=5%", "does not say at which eps"),
        ("flags==0", "the sanity checks were left out"),
        ("clean-drop<=1", "write 1%"),
    ],
)
def test_refused_before_any_work(run: Run, masked: Path, gate: str, said: str) -> None:
    assert_refused(run, masked, (*EVALUATE, "-o", "e.json", "--require", gate), said)


def test_refused_by_gate(run: Run, masked: Path) -> None:
    assert run(*EVALUATE, "-o", "e.json").code == 0
    for arguments, said in (
        (("e.json",), "Missing option '--require'"),
        (("e.json", "--require", "latency-ratio<=1.02"), "an evaluation's file holds no times"),
        (("e.json", "--require", "flags==0"), "the sanity checks were left out"),
        (("none.json", "--require", "flags==0"), "cannot read the evaluation none.json"),
        (("ee.json", "--require", "flags==0"), "ee.json: No such file or directory; did you mean 'e.json'?"),
        (("m.onnx", "--require", "flags==0"), "m.onnx is not"),
        (("e.json", "--require", "robust>=1%@0.2"), "eps 0.2 is not among"),
    ):
        assert_refused(run, masked, ("gate", *arguments), said)


def test_a_file_that_contradicts_itself(run: Run, folder: Path) -> None:
    """Gate and report refuse it, in one line that names the entry."""
    content = json.loads(samples.evaluation().to_json())
    content["results"].append(content["results"][0])
    (folder / "e.json").write_text(json.dumps(content))
    for arguments in (("gate", "e.json", "--require", "clean>=1%"), ("report", "e.json", "-o", "r.html")):
        assert_refused(run, folder, arguments, "results[2].eps is 0.00392157, which an entry before it has too")


def test_at_chance(run: Run, masked: Path) -> None:
    """Neither model gets a sample right: no gate passes, with or without --no-sanity, here and in gate."""
    kept = np.load(masked / "many.npz")
    np.savez(masked / "many.npz", x=kept["x"], y=1 - (kept["y"] > 0))
    right = (kept["y"] == 1 - (kept["y"] > 0)).sum()
    assert right == 0
    given = ("--require", "clean-drop<=1%", "--require", "robust-gain>=-1%@0.1", "--require", "clean>=0.1%")
    code, _, err = run(*EVALUATE, *given, "-o", "e.json")
    assert code == 1
    lines = [line for line in err.splitlines() if line.split()[:1] == ["inconclusive"]]
    assert len(lines) == 3
    assert all("0 of 300 clean samples right, no more than chance can give in" in line for line in lines)
    judged = run("gate", "e.json", *given)
    assert judged.code == 1
    assert judged.out.splitlines() == lines
