"""The latency of a hardening: when it is measured, and which of its files say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloakonnx.errors import OptionError, OutputError
from cloakonnx.reporting.cost import ratio_text
from cloakonnx.text import brief

from .conftest import again, shown

pytest.importorskip("sklearn")


def test_a_gate_on_latency_is_measured_once(there: Path) -> None:
    done, heard = again(require=["latency-ratio<=50"], latency=True)
    assert heard.ran == ["latency", "report"]
    assert [each.verdict for each in done.gates] == ["pass"]
    assert done.latency is not None and len(done.latency.ratios) == 9
    _, heard = again(require=["latency-ratio<=60"], latency=True)
    assert heard.ran == ["report"]


def test_the_latency_is_in_the_views_and_in_no_other_file(there: Path, finished: Path) -> None:
    """And measured once: the same call again changes nothing."""
    done, heard = again(latency=True)
    assert heard.ran == ["latency", "report"]
    found, before = shown(there / "m-hardened"), shown(finished / "m-hardened")
    assert {name for name in found if found[name] != before[name]} == {"report.html", "summary.md"}
    assert done.latency is not None
    assert done.latency.provider == "CPUExecutionProvider"
    for name in ("report.html", "summary.md"):
        text = found[name].decode()
        assert "latency, one sample" in text
        for said in (brief(done.latency.seconds), brief(done.latency.baseline_seconds), ratio_text(done.latency)):
            assert said in text
        assert "latency, one sample" not in before[name].decode()
    again_done, heard = again(latency=True)
    assert (heard.ran, again_done.latency) == ([], done.latency)
    assert shown(there / "m-hardened") == found
    done, heard = again()
    assert (heard.ran, done.latency) == (["report"], None)
    assert shown(there / "m-hardened") == before


def test_a_record_of_the_latency_that_is_damaged_is_an_error(there: Path) -> None:
    again(latency=True)
    record = there / "m-hardened" / ".stages" / "latency.json"
    content = json.loads(record.read_text())
    content["left"]["latency"]["cores"] = "two"
    record.write_text(json.dumps(content))
    with pytest.raises(OutputError, match=r"latency\.json is damaged: .*cores.*; remove it"):
        again(latency=True)
    record.unlink()
    assert again(latency=True, force=True)[1].ran == ["latency", "report"]


def test_a_gate_on_what_is_left_out_is_refused_before_any_work(fresh: Path) -> None:
    with pytest.raises(OptionError, match="a gate asks for what isn't measured: the latency was left out"):
        again(require=["latency-ratio<=1.02"])
    assert not (fresh / "m-hardened").exists()


def test_a_latency_that_did_not_pass_is_measured_again(there: Path) -> None:
    done, _ = again(require=["latency-ratio<=0.001"], latency=True)
    assert [each.verdict for each in done.gates] == ["fail"]
    _, heard = again(require=["latency-ratio<=0.001"], latency=True)
    assert heard.ran == ["latency", "report"]
    done, heard = again(require=["latency-ratio<=50"], latency=True)
    assert heard.ran == ["latency", "report"]
    assert "latency-ratio<=50" in done.files["summary"].read_text()
