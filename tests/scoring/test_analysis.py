"""The analysis file: whole there and back, always the same bytes, checked by its schema, refused when damaged."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from cloakonnx.errors import AnalysisError
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.scoring.analysis import Analysis, SampleSet, TapScores, default_path, load_analysis

from .test_fixture_models import BY_NAME, analysed, noisy

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "analysis.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
SHA = "0123456789abcdef" * 4
Content = dict[str, Any]


def with_scores(**changes: Any) -> Analysis:
    values: dict[str, Any] = {
        "model_name": "modèle.onnx",
        "model_sha256": SHA,
        "preprocessing": Preprocessing(scale=255.0, mean=(0.5, 0.25, 0.125), std=(1 / 3,), layout="nhwc"),
        "samples": SampleSet("clean.npz", "adversarial.npz", 2, 4 / 255, ("0123456789abcdef", "fedcba9876543210")),
        "provider": "CPUExecutionProvider",
        "scores": TapScores("tap/特", 1, "float32", "deepcloak", np.array([0.1, 0.0, 1e-300, 2.5]), 2),
        "versions": {"cloakonnx": "0.1.0"},
    }
    return Analysis(**(values | changes))


def with_masks() -> Analysis:
    masks = Mask("tap", np.array([0, 1, 0.25, 1 / 3], np.float32), 1), Mask("other", np.ones((2, 3, 1), np.float32))
    attack = {"name": "pgd", "eps": 8 / 255, "targeted": False, "seed": None}
    return with_scores(scores=None, masks=masks, attack=attack, preprocessing=Preprocessing())


@pytest.mark.parametrize("make", [with_scores, with_masks])
def test_there_and_back(make: Callable[[], Analysis], tmp_path: Path) -> None:
    text = make().to_json()
    read = Analysis.from_json(text)
    assert read.to_json() == text == make().to_json()
    assert read.preprocessing == make().preprocessing
    assert read.samples == make().samples
    path = tmp_path / "m.cloak.json"
    make().save(path)
    assert path.read_bytes() == text.encode()
    assert load_analysis(path, model="m.onnx").to_json() == text


def test_scores_come_back_exactly() -> None:
    scores = np.random.default_rng(0).random(100) * 10.0 ** np.arange(-50, 50)
    made = with_scores(scores=TapScores("t", 1, "float64", "relative", scores, 2))
    read = Analysis.from_json(made.to_json()).scores
    assert read is not None
    np.testing.assert_array_equal(read.scores, scores)


def test_masks_come_back_exactly() -> None:
    for read, made in zip(Analysis.from_json(with_masks().to_json()).masks, with_masks().masks, strict=True):
        np.testing.assert_array_equal(read.weights, made.weights)
        assert (read.tap, read.feature_axis) == (made.tap, made.feature_axis)


def test_schema_is_one_and_is_strict() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for made in (with_scores(), with_masks()):
        content = json.loads(made.to_json())
        VALIDATOR.validate(content)
        for place in (content, content["samples"], content["model"], content["preprocessing"]):
            place["more"] = 1
            assert not VALIDATOR.is_valid(content)
            del place["more"]
        VALIDATOR.validate(content)


def test_what_analyze_writes_is_valid_and_always_the_same() -> None:
    fixture = BY_NAME["transformer"]
    clean, adversarial = noisy(9, 7, 4)
    for criterion in ("deepcloak", "relative", "standardised"):
        texts = [
            analysed(fixture.model, clean, adversarial, tap=fixture.tap, criterion=criterion).to_json()
            for _ in range(2)
        ]
        assert texts[0] == texts[1]
        content = json.loads(texts[0])
        VALIDATOR.validate(content)
        assert content["tap"] == {"name": fixture.tap, "feature_axis": 2, "features": 6, "dtype": "float32"}
        assert content["values_per_feature"] == 9 * 7
        assert content["samples"]["count"] == 9


def put(*path: Any, value: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


DAMAGE: list[tuple[Callable[[], Analysis], Callable[[Content], None], str]] = [
    (with_scores, put("kind", value="other"), "kind"),
    (with_scores, put("kind", value="masks"), "masks is missing"),
    (with_masks, put("kind", value="scores"), "tap is missing"),
    (with_masks, put("masks", value=[]), "no mask"),
    (with_masks, put("masks", value={}), "masks is not a list"),
    (with_masks, put("masks", 0, "data", value="!!"), "damaged"),
    (with_masks, put("masks", 0, "data", value=base64.b64encode(b"12345").decode()), "damaged"),
    (with_masks, put("masks", 0, "data", value=base64.b64encode(b"\0\0\xc0\x7f" * 4).decode()), "NaN"),
    (with_masks, put("masks", 0, "shape", value=[5]), "4 weights, which do not fit its shape"),
    (with_masks, put("masks", 0, "shape", value=[2, 3]), "4 weights, which do not fit its shape"),
    (with_masks, put("masks", 0, "shape", value=[]), "4 weights, which do not fit its shape"),
    (with_masks, put("masks", 0, "shape", value=[-2, -2]), "masks[0].shape[0] is not a whole number from 1 on"),
    (with_masks, put("masks", 0, "shape", value=[2, 2.5]), "masks[0].shape[1] is not a whole number"),
    (with_masks, put("learning", value=[]), "learning is not an object"),
    (with_masks, put("masks", 0, "feature_axis", value="1"), "feature_axis is not a whole number"),
    (with_scores, put("tap", "features", value=5), "4 scores for 5 features"),
    (with_scores, put("tap", "feature_axis", value=0), "tap.feature_axis is not a whole number from 1 on"),
    (with_scores, put("tap", "feature_axis", value=True), "tap.feature_axis is not a whole number"),
    (with_scores, put("tap", value=[]), "tap is not an object"),
    (with_scores, put("scores", value=[]), "0 scores"),
    (with_scores, put("scores", 1, value=-1), "negative"),
    (with_scores, put("scores", 1, value="1"), "scores[1] is not a number"),
    (with_scores, put("scores", 1, value=None), "scores[1] is not a number"),
    (with_scores, put("scores", 1, value=float("nan")), "scores[1] is not a finite number"),
    (with_scores, put("scores", 1, value=10**400), "scores[1] is not a finite number"),
    (with_scores, put("scores", value=[[1, 2], [3, 4]]), "scores[0] is not a number"),
    (with_scores, put("values_per_feature", value=1.5), "values_per_feature is not a whole number"),
    (with_scores, put("model", "sha256", value="abc"), "64 hex digits"),
    (with_scores, put("model", value="m.onnx"), "model is not an object"),
    (with_scores, put("preprocessing", "std", value=[0]), "std"),
    (with_scores, put("preprocessing", "mean", value="12"), "preprocessing.mean is not a list"),
    (with_scores, put("preprocessing", "layout", value="hwc"), "layout"),
    (with_scores, put("preprocessing", "bounds", value=[0, 1, 2]), "preprocessing.bounds has 3 entries"),
    (with_scores, put("samples", "count", value=3), "2 hashes for 3 samples"),
    (with_scores, put("samples", "hashes", value=[1, 2]), "samples.hashes[0] is not a string"),
    (with_scores, put("attack", value="pgd"), "attack is not an object"),
    (with_masks, put("attack", "eps", value=float("inf")), "attack.eps is not a finite number"),
    (with_masks, put("masks", 0, "data", value=3), "masks[0].data is not base64"),
    (with_scores, put("preprocessing", "layout", value="\ud800"), "half of a surrogate pair"),
    (with_scores, put("versions", value={"onnx": 1}), "versions[...] is not a string"),
    (with_scores, put("format", value="other"), "format is not"),
    (with_scores, put("version", value=2), "version 2 of the analysis format"),
]


@pytest.mark.parametrize(("make", "damage", "said"), DAMAGE, ids=[d[2] for d in DAMAGE])
def test_damaged(make: Callable[[], Analysis], damage: Callable[[Content], None], said: str) -> None:
    content = json.loads(make().to_json())
    damage(content)
    with pytest.raises(AnalysisError) as caught:
        Analysis.from_json(json.dumps(content), name="m.cloak.json")
    assert said in str(caught.value)
    assert str(caught.value).startswith("m.cloak.json ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [with_scores, with_masks])
def test_every_entry_is_needed_by_reader_and_schema(make: Callable[[], Analysis]) -> None:
    whole = json.loads(make().to_json())
    derived = {"dead_features"}  # told from the scores
    for key in whole.keys() - derived:
        content = {k: v for k, v in whole.items() if k != key}
        assert not VALIDATOR.is_valid(content)
        with pytest.raises(AnalysisError):
            Analysis.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"text"', "[" * 100_000, '{"format": []}', "\x00"])
def test_other_texts(text: str) -> None:
    with pytest.raises(AnalysisError):
        Analysis.from_json(text)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with_scores().save(tmp_path / "model.cloak.json")
    with pytest.raises(AnalysisError, match=r"did you mean 'model\.cloak\.json'.*cloakonnx analyze m\.onnx"):
        load_analysis(tmp_path / "modle.cloak.json", model="m.onnx")
    with pytest.raises(AnalysisError, match="Is a directory"):
        load_analysis(tmp_path, model="m.onnx")
    (tmp_path / "binary").write_bytes(b"\x08\x08\xff\xfe")
    with pytest.raises(AnalysisError, match="it is not text"):
        load_analysis(tmp_path / "binary", model="m.onnx")
    whole = (tmp_path / "model.cloak.json").read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 3):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(AnalysisError, match="is not JSON"):
            load_analysis(tmp_path / "cut", model="m.onnx")


def test_made_for_another_model() -> None:
    fixture = BY_NAME["mlp"]
    clean, adversarial = noisy(5, 4)
    made = analysed(fixture.model, clean, adversarial)
    made.check_model(load_bytes(fixture.model.SerializeToString()))
    with pytest.raises(AnalysisError, match=r"made for another model .*make one with: cloakonnx analyze"):
        made.check_model(load_bytes(BY_NAME["nchw"].model.SerializeToString()))


def test_default_path() -> None:
    assert default_path(Path("a/b.c.onnx")) == Path("a/b.c.cloak.json")
    assert default_path(Path("model")) == Path("model.cloak.json")
