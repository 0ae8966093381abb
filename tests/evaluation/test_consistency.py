"""Result files whose numbers contradict each other are refused where they are read, with the entry named."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from cloakonnx.errors import AttestationError, DataError
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.gates import check_gates, parse_gate
from cloakonnx.evaluation.sweeps.record import Sweep
from cloakonnx.evaluation.verification.attestation import Attestation
from tests.reporting import samples

Bent = dict[str, Any]


def put(content: Bent, path: str, value: Any) -> None:
    """Set an entry, whose place is written with dots."""
    *way, last = path.split(".")
    at: Any = content
    for key in way:
        at = at[int(key) if key.isdigit() else key]
    assert last in at
    at[last] = value


def walked(content: Any, change: Callable[[str, Any], Any]) -> None:
    """Change every entry for which something is returned."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        made = change(str(key), value)
        if made is not None:
            content[key] = made
        elif isinstance(value, (dict, list)):
            walked(value, change)


def evaluation() -> Bent:
    """200 samples; clean 188 and 192 are right; robust 150 and 110 at 1/255, 100 and 50 at 2/255."""
    content: Bent = json.loads(samples.evaluation().to_json())
    assert content["clean"]["hardened"]["correct"] == 188
    assert content["results"][0]["hardened"]["robust"]["correct"] == 150
    return content


def test_what_is_written_is_read() -> None:
    text = samples.evaluation().to_json()
    assert Evaluation.from_json(text).to_json() == text
    assert Sweep.from_json(samples.sweep().to_json()).to_json() == samples.sweep().to_json()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("clean.hardened.share", 0.99, r"clean\.hardened\.share is 0\.99, but 0\.94 follows from the counts"),
        ("clean.hardened.share", 10**400, r"clean\.hardened\.share is inf, but 0\.94 follows from the counts"),
        ("clean.hardened.interval", [0.98, 1.0], r"clean\.hardened\.interval\[0\] is 0\.98"),
        ("clean.hardened.correct", 20, r"clean\.hardened\.correct is 20, but the counts of clean\.difference says 188"),
        ("clean.difference.neither", 10**6, r"clean\.difference add up to 1000194, but data\.count says 200"),
        ("clean.difference.mcnemar_p", 0.001, r"clean\.difference\.mcnemar_p is 0\.001"),
        ("results.0.hardened.robust.correct", 180, r"results\[0\]\.hardened\.robust\.correct is 180, more than"),
        (
            "results.0.hardened.robust.correct",
            151,
            r"hardened\.robust\.correct is 151, but results\[0\]\.hardened\.stages\[1\]",
        ),
        ("results.0.hardened.robust.correct", 199, r"hardened\.robust\.correct is 199, more than the clean samples"),
        ("results.0.hardened.robust.interval", [0.9, 0.1], r"hardened\.robust\.interval\[0\] is 0\.9"),
        ("results.0.hardened.robust.count", 2**62, "4611686018427387904 samples are more than"),
        ("results.0.hardened.robust.count", 207, r"hardened\.robust\.count is 207, but data\.count says 200"),
        ("results.0.baseline.noise.correct", 193, r"baseline\.noise\.correct is 193, more than the clean samples"),
        (
            "results.0.baseline.stages.0.robust",
            200,
            r"stages\[0\]\.robust is 200, more than the 192 that were attacked",
        ),
        ("results.0.hardened.stages.0.attacked", 150, r"stages\[0\]\.attacked is 150, but the clean samples"),
        ("results.0.hardened.stages.1.attacked", 152, r"stages\[1\]\.attacked is 152, but results"),
        ("results.0.hardened.stages.1.robust", 140, r"robust\.correct is 150, but results\[0\]\.hardened\.stages"),
        ("results.0.hardened.stages.0.settings.eps", 1e-5, r"stages\[0\]\.settings\.eps is 1e-05, but it stands"),
        ("results.0.hardened.stages.0.settings.eps", 10**400, r"stages\[0\]\.settings\.eps is inf, but it stands"),
        (
            "results.0.hardened.stages.0.settings.eps",
            float("nan"),
            r"stages\[0\]\.settings\.eps is not a finite number",
        ),
        ("results.0.difference.both", 150, r"results\[0\]\.difference add up to 240, but data\.count says 200"),
        ("results.0.difference.difference", 0.4, r"results\[0\]\.difference\.difference is 0\.4, but 0\.2 follows"),
        ("results.0.difference.interval", [-1.0, 1.0], r"results\[0\]\.difference\.interval\[0\] is -1"),
        ("results.0.difference.both", 2**62, "4611686018427387904 samples are more than"),
        ("results.0.static.correct", 200, r"results\[0\]\.static\.correct is 200, more than the clean samples"),
        ("results.0.static.correct", 149, r"robust\.correct is 150, more than results\[0\]\.static\.correct: 149"),
        ("results.0.random_masks.0.control.correct", 190, r"random_masks\[0\]\.control\.correct is 190, more than"),
        ("results.0.eps", -0.1, r"results\[0\]\.eps is -0\.1; a radius is above 0"),
        ("results.0.eps", 0, r"results\[0\]\.eps is 0; a radius is above 0"),
        ("results.1.eps", 1 / 255, r"results\[1\]\.eps is 0\.00392157, which an entry before it has too"),
        ("results", [], "results is empty"),
        ("data.count", 1, r"add up to 200, but data\.count says 1"),
        ("data.count", 10**9, r"data\.count is 1000000000, more than 10,000,000 samples"),
        ("data.seen", 201, r"data\.seen is 201, more than the 200 samples"),
        ("data.sha256", "not a digest", r"data\.sha256 is not 64 hex digits"),
        ("model.sha256", "A" * 64, r"model\.sha256 is not 64 hex digits"),
        ("masks.0.removed", 41, r"masks\[0\]\.removed is 41, more than its 40 features"),
        ("confidence", 0.5, r"confidence is 0\.5, but 0\.95 follows"),
        ("norm", "l7", r"norm is 'l7', neither linf nor l2"),
        ("sanity.samples", 189, r"sanity\.samples is 189, more than the 188 clean samples"),
        ("sanity.flags.1.fired", True, "the flag black-box has fired, which contradicts its value 0.5"),
        ("sanity.flags.1.value", 5.0, "the flag black-box has not fired"),
        ("sanity.flags.1.fired", None, "fired None and the value 0.5; both are null or neither is"),
    ],
)
def test_contradictions(path: str, value: Any, said: str) -> None:
    content = evaluation()
    put(content, path, value)
    begun = time.monotonic()
    with pytest.raises(DataError, match=said) as caught:
        Evaluation.from_json(json.dumps(content), name="e.json")
    assert time.monotonic() - begun < 5
    assert str(caught.value).startswith("e.json is damaged: ")
    assert str(caught.value).endswith("make it again with cloakonnx evaluate")
    assert "\n" not in str(caught.value)


def test_a_stated_number_that_is_left_out() -> None:
    content = evaluation()
    del content["results"][1]["baseline"]["robust"]["share"]
    with pytest.raises(DataError, match=r"the entry results\[1\]\.baseline\.robust\.share is missing"):
        Evaluation.from_json(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda key, value: 0.99 if key == "share" else None,
        lambda key, value: value + 7 if key in {"correct", "count"} else None,
        lambda key, value: value + 7 if key in {"correct", "count", "both"} else None,
        lambda key, value: value * 100 if key == "count" else None,
        lambda key, value: [0.98, 0.99] if key == "interval" else None,
        lambda key, value: 1.0 if key == "mcnemar_p" else None,
        lambda key, value: 0 if key == "only_second" else None,
        lambda key, value: value // 2 if key == "attacked" else None,
    ],
    ids=["shares", "counts", "pairs too", "samples", "intervals", "p", "losses", "stages"],
)
def test_an_evaluation_bent_everywhere(change: Callable[[str, Any], Any]) -> None:
    content = evaluation()
    walked(content, change)
    assert content != evaluation()
    with pytest.raises(DataError, match="is damaged"):
        Evaluation.from_json(json.dumps(content))


def test_keys_given_twice() -> None:
    """The last of two would count, without a word."""
    text = samples.evaluation().to_json()
    results = json.dumps(evaluation()["results"])
    for twice in (
        text.rstrip()[:-1] + f', "results": {results}}}',
        text.replace('"attack": "quick"', '"attack": "fgsm", "attack": "quick"'),
        text.replace('"correct": 150', '"correct": 150, "correct": 150', 1),
    ):
        assert twice != text
        with pytest.raises(DataError, match=r"has the key '(results|attack|correct)' twice"):
            Evaluation.from_json(twice)
    with pytest.raises(DataError, match="has the key 'asked' twice"):
        Sweep.from_json(samples.sweep().to_json().replace('"asked"', '"asked": 0, "asked"'))
    with pytest.raises(AttestationError, match="has the key '_type' twice"):
        Attestation.from_json('{"_type": 1, "_type": 2}')


@pytest.mark.parametrize("version", ["1.0", "true", '"1"', "null", "9" * 4000])
def test_a_version_is_a_whole_number(version: str) -> None:
    text = samples.evaluation().to_json().replace('"version": 1', f'"version": {version}')
    with pytest.raises(DataError, match="has version") as caught:
        Evaluation.from_json(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("points.0.clean.share", 0.5, r"points\[0\]\.clean\.share is 0\.5, but 0\.95 follows"),
        ("points.1.random_masks.0.static.interval", [0, 1], r"points\[1\]\.random_masks\[0\]\.static\.interval\[0\]"),
        ("points.0.static.count", 201, r"points\[0\]\.static\.count is 201, but data\.count says 200"),
        ("points.1.removed", 41, r"points\[1\]\.removed is 41, more than the 40 features"),
        ("adaptive.0.clean.both", 180, r"adaptive\[0\]\.clean add up to 195, but data\.count says 200"),
        ("adaptive.0.results.0.eps", 0.5, r"settings\.eps is 0\.00784314, but it stands among those of eps 0\.5"),
        (
            "adaptive.1.results.0.hardened.robust.correct",
            101,
            r"adaptive\[1\]\.results\[0\]\.hardened\.robust",
        ),
        ("adaptive.0.results", [], r"adaptive\[0\]\.results has no entry"),
        ("attacks", None, r"adaptive\[0\]\.results are not at the eps of attacks"),
        ("attacks.eps", [0.1], r"adaptive\[0\]\.results are not at the eps of attacks"),
        ("attacks.norm", "l7", r"attacks\.norm is 'l7'"),
        ("confidence", 0.9, "confidence is 0.9"),
    ],
)
def test_sweeps(path: str, value: Any, said: str) -> None:
    content = json.loads(samples.sweep().to_json())
    put(content, path, value)
    with pytest.raises(DataError, match=said):
        Sweep.from_json(json.dumps(content))


@pytest.mark.parametrize("shape", [[12.7], [-12], [True], ["12"]])
def test_shapes_of_an_attestation_are_whole_numbers(shape: list[Any]) -> None:
    digest = {"sha256": "a" * 64}
    mask = {"tap": "t", "feature_axis": 1, "shape": shape, "removed": 3, "sha256": "c" * 64}
    predicate = {
        "source": {"name": "m", "digest": digest}, "kind": "mul", "settings": {}, "versions": {}, "parts": {},
        "masks": [mask],
    }  # fmt: skip
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "h", "digest": digest}],
        "predicateType": "urn:cloakonnx:hardening:1",
        "predicate": predicate,
    }
    with pytest.raises(AttestationError, match=r"predicate\.masks\[0\]\.shape\[0\]"):
        Attestation.from_json(json.dumps(statement))


def test_files_of_0_1_0_are_read_and_judged() -> None:
    """They hold no number of classes."""
    content = evaluation()
    assert "classes" not in content
    (decision,) = check_gates(Evaluation.from_json(json.dumps(content)), [parse_gate("clean>=90%")])
    assert decision.verdict == "pass"
