"""The public API: its names, what is gone, results in memory and in files."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnxruntime as ort
import pytest

import cloakonnx as ck
from cloakonnx._former import FORMER
from cloakonnx.errors import OptionError

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "samples" / "digits_cnn.onnx"
DATA = ck.Samples(ROOT / "samples" / "digits_test_fgsm.npz", limit=60)
TAP = "/6/Relu_output_0"


def test_few_names() -> None:
    assert len(ck.__all__) <= 45


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_says_what_to_use(name: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(FORMER[name])):
        getattr(ck, name)
    assert f"| `ck.{name}` | {FORMER[name]} |" in (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    assert name not in ck.__all__
    for path in re.findall(r"ck\.(\w+(?:\.\w+)?)", FORMER[name]):
        value = ck
        for part in path.split("."):
            value = getattr(value, part)


def test_a_report_is_a_function_whatever_was_loaded_before() -> None:
    import cloakonnx.reporting.page  # noqa: F401

    assert callable(ck.report)
    assert ck.records.Verdict is not None


def test_an_attack_in_memory_is_that_of_the_file(tmp_path: Path) -> None:
    pgd = ck.attacks.PGD(eps=1 / 16, max_iter=3)
    here, there = ck.attack(MODEL, DATA, pgd), ck.attack(MODEL, DATA, pgd, output=tmp_path / "a.npz")
    assert (here.path, there.path) == (None, tmp_path / "a.npz")
    assert np.array_equal(here.x, there.x) and np.array_equal(here.success, there.success)
    assert here.x.dtype == np.float32 and here.success.shape == here.y.shape == (60,)
    assert here.robust == there.robust
    clf = ck.Classifier(MODEL)
    assert np.array_equal(clf.predict(here.x) != here.y, here.success)
    assert [each.name for each in tmp_path.iterdir()] == ["a.npz"]
    by_name = ck.attack(MODEL, DATA, "pgd", eps=1 / 16, max_iter=3)
    assert np.array_equal(by_name.x, here.x)


def test_several_eps_and_one_name(tmp_path: Path) -> None:
    made = ck.attack(MODEL, DATA, "fgsm", eps=[1 / 255, 2 / 255], output=tmp_path / "adv.npz")
    assert [each.path for each in made] == [tmp_path / f"adv.eps{n}_255.npz" for n in (1, 2)]
    kept = ck.attack(MODEL, DATA, "fgsm", eps=(1 / 255, 2 / 255))
    assert [np.array_equal(a.x, b.x) for a, b in zip(made, kept, strict=True)] == [True, True]
    again = ck.attack(MODEL, DATA, "fgsm", eps=[1 / 255], output=tmp_path / "one.npz", resume=True)
    assert len(again) == 1
    assert ck.attack(MODEL, DATA, "noise", eps=np.float32(0.125)).settings["eps"] == 0.125


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"attack": "pgd"}, "pgd needs eps, the radius"),
        ({"attack": "pgd", "eps": 0.1, "stepsize": 3}, "takes no"),
        ({"attack": ck.attacks.FGSM(eps=0.1), "eps": 0.2}, "has its own eps"),
        ({"attack": "fgsm", "eps": 0.1, "resume": True}, "resume needs output"),
        ({"attack": "fgsm", "eps": [0.1, 0.2], "output": ["a.npz"]}, "as many outputs"),
    ],
)
def test_an_attack_that_makes_no_sense(options: dict, why: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=why):
        ck.attack(MODEL, DATA, **options)


def test_masks_in_and_out(tmp_path: Path) -> None:
    mask = ck.Mask(TAP, np.r_[np.zeros(4), np.ones(60)])
    in_memory, written = ck.apply(MODEL, mask), ck.apply(MODEL, mask, tmp_path / "h.onnx")
    assert in_memory.sha256 == written.sha256 and written.path == tmp_path / "h.onnx"
    assert ck.strip(written).sha256 == ck.strip(written, tmp_path / "s.onnx").sha256 == ck.load(MODEL).sha256
    assert (tmp_path / "s.onnx").read_bytes() == MODEL.read_bytes()
    fates: list[ck.records.MaskFate] = []
    folded = ck.apply(MODEL, mask, fold=True, on_fate=fates.append)
    assert [fate.folded for fate in fates] == [True]
    assert folded.sha256 == ck.apply(MODEL, mask, tmp_path / "f.onnx", fold=True).sha256
    with pytest.raises(ck.CloakError, match="exists already"):
        ck.apply(MODEL, mask, tmp_path / "h.onnx")
    with pytest.raises(ck.CloakError, match="no cloakonnx masks"):
        ck.strip(MODEL)


def test_learned_masks_go_into_their_model_only(tmp_path: Path) -> None:
    recipe = ck.Recipe(eps=1 / 16, budget=0.5, epochs=1, granularity="feature")
    learned = ck.learn(MODEL, DATA, recipe, over_budget=True)
    assert ck.masks(ck.apply(MODEL, learned))
    assert ck.Classifier(MODEL).with_masks(learned).masks == learned.masks
    with pytest.raises(ck.CloakError, match="made for another model"):
        ck.apply(ROOT / "samples" / "digits_robust.onnx", learned)


def test_every_file_is_read_by_what_it_is(tmp_path: Path) -> None:
    clf = ck.Classifier(MODEL)
    analysis = ck.analyze(clf, DATA, attack="fgsm", eps=1 / 16)
    hardened = ck.apply(clf, ck.select(analysis, 3), tmp_path / "h.onnx")
    found = ck.evaluate(hardened, DATA, eps=1 / 16, attack="fgsm", sanity=False, keep=tmp_path / "kept.npz")
    adv = ck.attack(clf, DATA, "fgsm", eps=1 / 16, output=tmp_path / "adv.npz")
    pairs = ck.Pairs(DATA, tmp_path / "adv.npz")
    swept = ck.sweep(clf, analysis, pairs, amounts=["0%", "5%", 3], adaptive_at=())
    attested = ck.attest(hardened, clf)
    for name, made in {"analysis": analysis, "evaluation": found, "sweep": swept, "attestation": attested}.items():
        made.save(tmp_path / f"{name}.json")
        assert type(ck.read(tmp_path / f"{name}.json")) is type(made)
    assert ck.read(tmp_path / "evaluation.json", ck.Evaluation) == found
    assert ck.read(tmp_path / "h.onnx", ck.Model).sha256 == hardened.sha256
    assert isinstance(ck.read(tmp_path / "kept.npz"), ck.records.TurnedSamples)
    assert ck.accuracy(clf, ck.read(tmp_path / "adv.npz")).correct == int((~adv.success).sum())
    with pytest.raises(ck.CloakError, match="holds Sweep, not Evaluation"):
        ck.read(tmp_path / "sweep.json", ck.Evaluation)
    (tmp_path / "other.json").write_text("[]")
    np.savez(tmp_path / "own.npz", x=np.zeros((2, 3)))
    for other in ("other.json", "own.npz", "missing.json"):
        with pytest.raises(ck.CloakError):
            ck.read(tmp_path / other)


def test_the_verdict_and_the_page(tmp_path: Path) -> None:
    clf = ck.Classifier(MODEL)
    analysis = ck.analyze(clf, DATA, attack=ck.attacks.FGSM(eps=1 / 16))
    masked = clf.with_masks(ck.select(analysis, "5%"))
    found = ck.evaluate(masked, DATA, eps=1 / 16, attack="pgd", max_iter=2, baseline=MODEL)
    assert found.results[0].eps == 1 / 16 and found.verdict.sentence.endswith(".")
    pytest.importorskip("jinja2")
    page = ck.report(found, tmp_path / "page.html", analysis=analysis)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    with pytest.raises(ck.CloakError, match="exists already"):
        ck.report(found, tmp_path / "page.html")
    (decision,) = ck.check_gates(found, ["clean>=10%"])
    assert decision.verdict == "pass"


def test_a_gradient_graph_is_plain_onnx() -> None:
    clf = ck.Classifier(MODEL, preprocessing=ck.Preprocessing(mean=(0.5,), std=(0.25,)))
    x = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    y = np.array([1, 2, 3])
    graph = ck.differentiate(clf, loss="margin", wrt=["input", TAP])
    session = ort.InferenceSession(graph.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    by_input, by_tap = session.run(list(graph.gradients.values()), {graph.image: x, graph.labels: y})
    assert np.allclose(by_input, clf.gradient(x, y, loss="margin"), atol=1e-5)
    assert by_tap.shape == (3, 64)
    cotangent = np.eye(10, dtype=np.float32)[y]
    assert np.asarray(clf.vjp(x, cotangent)).shape == x.shape


def test_errors_name_the_parameter_of_python() -> None:
    error = OptionError("{eps_step} must be above 0, {eps}: {other}", parameter=("eps_step", "Ball.eps"))
    assert str(OptionError("{eps_step} must be above 0", parameter="eps_step")) == "eps_step must be above 0"
    assert error.parameter == "eps_step"
    assert error.said(lambda name: f"--{name}") == "--eps_step must be above 0, {eps}: {other}"
    assert str(OptionError("a {brace} stays")) == "a {brace} stays"


def test_a_model_shows_itself(tmp_path: Path) -> None:
    model = ck.load(MODEL)
    assert repr(model) == "<Model digits_cnn.onnx: opset 17, IR 8, input image, output logits>"
    page = ET.fromstring(f"<div>{model._repr_html_()}</div>")
    names = [row.findtext("th") for row in page.findall(".//tbody/tr")]
    assert [name.removesuffix(" *") for name in names if name] == [tap.name for tap in ck.taps(model)]
    assert f"{TAP} *" in names
    masked = ck.apply(model, ck.Mask(TAP, np.r_[0.0, np.ones(63)]))
    assert f"masked: {TAP}" in masked._repr_html_() and "\\n" not in repr(masked)
