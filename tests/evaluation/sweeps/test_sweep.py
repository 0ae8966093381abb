"""A sweep gives exactly what the hardened models give one by one, at every kind of tap, with controls beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import input_shape
from cloakonnx.classifier.split import Decided, SplitClassifier
from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.data.sources import ArraySource, open_source
from cloakonnx.errors import AnalysisError, DataError, OptionError, OutputError
from cloakonnx.evaluation.accuracy import accuracy
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import STATEMENT
from cloakonnx.evaluation.sweeps.record import OfMask, Sweep
from cloakonnx.evaluation.sweeps.sweep import sweep
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.scoring.analyze import analyze
from cloakonnx.selection.topk import Amount, Count, Share, select
from tests.attacks.helpers import DIGITS, convolution, digits_arrays, flat
from tests.fixtures.real import assets_folder
from tests.support.classifiers import cpu

DOCS = Path(__file__).parents[3] / "docs"
ASSETS = assets_folder()
NAMES = ("evaluation", "sweep")
SCHEMAS = {name: json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8")) for name in NAMES}
RANGE: list[Amount] = [Share(i / 100) for i in range(31)]


def pairs_of(model: Model, x: NDArray[Any], adversarial: NDArray[Any], y: NDArray[np.int64] | None) -> FittedPairs:
    sources = (ArraySource(name, values, y) for name, values in (("clean", x), ("adversarial", adversarial)))
    return FittedPairs(*(Dataset(source, Preprocessing(), input_shape(model)) for source in sources))


def one_by_one(model: Model, analysis: Analysis, pairs: FittedPairs, amount: Amount, batch_size: int) -> OfMask:
    assert analysis.scores is not None
    nothing = not isinstance(amount, Share | Count) or amount.value == 0
    alone = cpu(
        model if nothing else hardened(model, [select(analysis.scores, amount)]),
        preprocessing=pairs.clean.preprocessing,
    )
    return OfMask(*(accuracy(alone, data, batch_size=batch_size) for data in (pairs.clean, pairs.adversarial)))


def check(
    model: Model, pairs: FittedPairs, amounts: list[Amount], *, tap: str | None = None, batch_size: int = 64
) -> Sweep:
    classifier = cpu(model, preprocessing=pairs.clean.preprocessing)
    analysis = analyze(classifier, pairs, tap=tap)
    found = sweep(classifier, analysis, pairs, amounts=amounts, adaptive_at=(), batch_size=batch_size)
    known: dict[int, OfMask] = {}
    for point, amount in zip(found.points, amounts, strict=True):
        if point.removed not in known:
            known[point.removed] = one_by_one(model, analysis, pairs, amount, batch_size)
        assert point.mask == known[point.removed]
    return found


@cache
def digits() -> tuple[Model, FittedPairs]:
    model = load(DIGITS)
    x, y = digits_arrays()
    moved = np.clip(x + np.random.default_rng(0).uniform(-0.3, 0.3, x.shape), 0, 1).astype(np.float32)
    return model, pairs_of(model, x[:100], moved[:100], y[:100])


def test_the_digits_model_at_its_default_tap() -> None:
    found = check(*digits(), RANGE)
    assert found.points[0].mask.clean.value > 0.9
    assert len({point.mask for point in found.points}) > 3


def test_channels_of_a_convolution() -> None:
    model, pairs = digits()
    found = check(model, pairs, [Count(i) for i in range(0, 32, 6)], tap="/2/Conv_output_0")
    assert found.scores.features == 32
    assert len({point.mask for point in found.points}) == 6


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_and_a_batch_that_does_not_divide(dtype: Any) -> None:
    model = load_bytes(flat(4, dtype=dtype).SerializeToString())
    rng = np.random.default_rng(1)
    x = rng.random((50, 12)).astype(np.float32)
    adversarial = np.clip(x + rng.uniform(-0.2, 0.2, x.shape), 0, 1).astype(np.float32)
    y = cpu(model).predict(x)
    y[::7] = (y[::7] + 1) % 4
    found = check(model, pairs_of(model, x, adversarial, y), [Count(i) for i in range(9)], tap="a", batch_size=7)
    assert found.data.count == 50
    assert found.asked > 0 or dtype != np.float16


def test_a_fixed_batch() -> None:
    made = convolution(nhwc=False)
    for value in (made.graph.input[0], made.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    model = load_bytes(made.SerializeToString())
    rng = np.random.default_rng(1)
    x, y = rng.random((30, 3, 8, 8)).astype(np.float32), rng.integers(0, 5, 30)
    check(model, pairs_of(model, x, 1 - x, y), [Count(i) for i in range(5)], tap="r", batch_size=16)


def test_what_rounding_decides_is_asked_of_the_hardened_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the parts call everything close, and would tell another class, all comes from the hardened models."""
    model, pairs = digits()
    original = SplitClassifier.predict

    def unsure(self: SplitClassifier, *arguments: Any) -> Decided:
        found = original(self, *arguments)
        return Decided((found.classes + 1) % 10, np.ones_like(found.close))

    monkeypatch.setattr(SplitClassifier, "predict", unsure)
    found = check(model, pairs, [Count(0), Count(5), Count(20)])
    assert found.asked == 2 * 100 * (1 + 2 * 4)


@pytest.mark.skipif(ASSETS is None, reason="CLOAKONNX_ASSETS is not set")
def test_the_resnet_on_its_adversarial_inputs() -> None:
    assert ASSETS is not None
    model = load(ASSETS / "models" / "cifar10_resnet20.onnx")
    files = ("cifar10_test600.npz", "cifar10_resnet20_test600_fgsm4.npz")
    pairs = FittedPairs(
        *(Dataset(open_source(ASSETS / "data" / f), Preprocessing(), input_shape(model), limit=96) for f in files)
    )
    found = check(model, pairs, RANGE[::5])
    assert found.twins.largest_difference == 4 / 255
    assert check(model, pairs, [Share(0.1), Share(0.3)], tap=inside_a_block(model)).scores.features == 16


@pytest.mark.skipif(ASSETS is None, reason="CLOAKONNX_ASSETS is not set")
def test_a_real_model_with_preprocessing() -> None:
    assert ASSETS is not None
    model = load(ASSETS / "models" / "mnist_cnn_raw.onnx")
    batch = next(open_source(ASSETS / "data" / "mnist_test5000.npz").batches(128))
    assert batch.y is not None
    clean = ArraySource("clean", batch.x, batch.y)
    noise = np.random.default_rng(0).integers(-90, 91, batch.x.shape)
    adversarial = ArraySource("adversarial", np.clip(batch.x + noise, 0, 255).astype(np.uint8), batch.y)
    entry = Preprocessing(mean=(0.1307,), std=(0.3081,))
    pairs = FittedPairs(*(Dataset(each, entry, input_shape(model)) for each in (clean, adversarial)))
    found = check(model, pairs, [*RANGE[::6], Share(0.9)])
    assert found.points[0].mask.clean.value > 0.95
    assert found.points[-1].mask.clean.value < found.points[0].mask.clean.value


def inside_a_block(model: Model) -> str:
    """Return the output of the first Relu that a shortcut leads around."""
    relus = [node for node in model.proto.graph.node if node.op_type == "Relu"]
    return str(relus[1].output[0])


@cache
def attacked() -> tuple[Model, Analysis, FittedPairs, Sweep]:
    model, all_pairs = digits()
    pairs = FittedPairs(replace(all_pairs.clean, limit=40), replace(all_pairs.adversarial, limit=40))
    analysis = analyze(cpu(model), pairs)
    found = sweep(
        cpu(model), analysis, pairs, amounts=[Share(0), Share(0.1), Share(0.3)],
        adaptive_at=[Share(0.1), Share(0.3)], eps=[0.1], attack="pgd", max_iter=5, batch_size=16,
    )  # fmt: skip
    return model, analysis, pairs, found


def test_adaptive_accuracy_is_that_of_an_evaluation() -> None:
    model, analysis, pairs, found = attacked()
    assert analysis.scores is not None
    for adaptive, share in zip(found.adaptive, (0.1, 0.3), strict=True):
        alone = hardened(model, [select(analysis.scores, Share(share))])
        wanted = evaluate(cpu(alone), pairs.clean, eps=[0.1], attack="pgd", max_iter=5, batch_size=16)
        assert adaptive.clean == wanted.clean
        (at,), (other,) = adaptive.results, wanted.results
        assert at.hardened.robust == other.hardened.robust
        assert at.baseline.robust == other.baseline.robust
        assert at.pairs == other.pairs
        assert at.random_masks == other.random_masks
        assert at.hardened.robust.correct < adaptive.clean.both + adaptive.clean.only_first


def test_the_default_is_the_last_point_at_the_radius_of_the_inputs() -> None:
    model, analysis, pairs, _ = attacked()
    found = sweep(cpu(model), analysis, pairs, amounts=[Count(0), Count(8)], attack="fgsm")
    assert [each.removed for each in found.adaptive] == [8]
    assert found.attacks is not None
    assert found.attacks.eps_is_of_twins
    assert found.attacks.eps == (found.twins.largest_difference,)
    bare = sweep(cpu(model), analysis, pairs, amounts=[Count(0)])
    assert (bare.attacks, bare.adaptive) == (None, ())


def test_random_masks_are_controls() -> None:
    _, _, _, found = attacked()
    assert found.points[0].random_masks == ()
    model, analysis, pairs, _ = attacked()
    assert analysis.scores is not None
    features = len(analysis.scores.scores)
    for point in found.points[1:]:
        assert len(point.random_masks) == 3
        for index, random in enumerate(point.random_masks):
            weights = np.ones(features, np.float32)
            weights[select(analysis.scores, Count(point.removed)).removed] = 0
            shuffled = np.random.default_rng([0, index]).permutation(weights)
            alone = cpu(hardened(model, [Mask(found.scores.tap, shuffled)]))
            assert random == OfMask(*(accuracy(alone, data) for data in (pairs.clean, pairs.adversarial)))


def test_the_file_follows_its_schema() -> None:
    """It stands alone: the evaluation's schema is bundled in it, and is the one beside it."""
    assert SCHEMAS["sweep"]["$defs"]["evaluation"] == SCHEMAS["evaluation"]
    _, _, _, found = attacked()
    content = json.loads(found.to_json())
    validator = jsonschema.Draft202012Validator(SCHEMAS["sweep"])
    validator.validate(content)
    assert content["statement"] == STATEMENT
    assert content["data"]["seen"] == 40
    for wrong in ({**content, "extra": 1}, {**content, "points": []}, {**content, "adaptive": [{"remove": "5%"}]}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(wrong)


def test_resumed_it_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, analysis, pairs, whole = attacked()
    options: dict[str, Any] = {
        "amounts": [Share(0), Share(0.1), Share(0.3)], "adaptive_at": [Share(0.1), Share(0.3)], "eps": [0.1],
        "attack": "pgd", "max_iter": 5, "batch_size": 16, "output": tmp_path / "sweep.json",
    }  # fmt: skip
    calls = 0

    def interrupt(done: float) -> None:
        nonlocal calls
        calls += done >= 40 + 40  # three of the six batches under attack
        if calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(cpu(model), analysis, pairs, **options, on_progress=interrupt)
    assert len(list(tmp_path.glob(".sweep.json.parts/0*.npz"))) >= 2
    assert not (tmp_path / "sweep.json").exists()
    seen: list[float] = []
    again = sweep(cpu(model), analysis, pairs, **options, resume=True, on_progress=seen.append)
    assert again.to_json() == whole.to_json() == (tmp_path / "sweep.json").read_text(encoding="utf-8")
    assert seen[-1] == 40 * 3
    assert seen == sorted(seen)
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep.json"]


def test_bad_input() -> None:
    model, analysis, pairs, _ = attacked()
    other = load_bytes(flat(4).SerializeToString())
    with pytest.raises(AnalysisError, match="made for another model"):
        sweep(cpu(other), analysis, pairs, amounts=[Count(1)])
    learned = replace(analysis, scores=None, masks=(Mask("a", np.ones(3, np.float32)),))
    with pytest.raises(AnalysisError, match="a sweep needs scores"):
        sweep(cpu(model), learned, pairs, amounts=[Count(1)])
    with pytest.raises(OptionError, match="amounts names nothing"):
        sweep(cpu(model), analysis, pairs, amounts=[])
    x, y = digits_arrays()
    unlabelled = pairs_of(model, x[:4], x[:4], None)
    with pytest.raises(DataError, match="has no labels; a sweep needs them"):
        sweep(cpu(model), analysis, unlabelled, amounts=[Count(1)], adaptive_at=())
    strange = pairs_of(model, x[:4], x[:4], y[:4] + 90)
    with pytest.raises(DataError, match="which has 10 classes"):
        sweep(cpu(model), analysis, strange, amounts=[Count(1)], adaptive_at=())


def test_an_output_that_cannot_be_written_is_found_before_the_pass(tmp_path: Path) -> None:
    model, pairs = digits()
    classifier = cpu(model)
    analysis = analyze(classifier, pairs)
    seen: list[float] = []
    output = tmp_path / "nowhere" / "sweep.json"
    with pytest.raises(OutputError, match="there is no folder"):
        sweep(classifier, analysis, pairs, amounts=["5%"], adaptive_at=(), output=output, on_progress=seen.append)
    assert seen == []
