"""Scores on small models of many shapes and types, dead features, and activations that are not finite."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import DataError, InferenceError, OptionError, TapError
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.scoring.analyze import analyze
from cloakonnx.selection.topk import ranking
from tests.fixtures import core, models

from .reference import CRITERIA, activations, relative_difference, scores

BY_NAME = {fixture.name: fixture for fixture in models.FIXTURES}
COUNT = 23
SHAPES = (
    "mlp", "nchw", "nhwc_tap_inside", "nhwc_tap_last", "transformer", "transformer_norm", "conv1d", "conv3d",
    "batch_fixed_1", "batch_fixed_3", "batch_unknown", "float16", "float64", "float16_inside", "float64_inside",
    "opset_8", "ir_13",
)  # fmt: skip


def noisy(*shape: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    clean = rng.random(shape).astype(np.float32)
    return clean, np.clip(clean + rng.uniform(-0.02, 0.02, shape), 0, 1).astype(np.float32)


def analysed(
    proto: onnx.ModelProto,
    clean: NDArray[Any],
    adversarial: NDArray[Any],
    *,
    batch_size: int = 8,
    bounds: tuple[float, float] = (0.0, 1.0),
    **options: Any,
) -> Analysis:
    classifier = Classifier(
        load_bytes(proto.SerializeToString()),
        preprocessing=Preprocessing(bounds=bounds),
        provider=choose_provider("cpu"),
    )
    sources = (ArraySource(name, x, None) for name, x in (("clean", clean), ("adversarial", adversarial)))
    pairs = FittedPairs(*(Dataset.of(source, classifier) for source in sources))
    return analyze(classifier, pairs, batch_size=batch_size, **options)


@pytest.mark.parametrize("name", [name for name in SHAPES if name in BY_NAME and BY_NAME[name].runs_in_ort])
def test_scores_equal_numpy(name: str) -> None:
    fixture = BY_NAME[name]
    ((input_name, example),) = fixture.feed.items()
    clean, adversarial = noisy(COUNT, *example.shape[1:])
    raw = [activations(fixture.model, fixture.tap, input_name, x.astype(example.dtype)) for x in (clean, adversarial)]
    for criterion, batch_size in zip(CRITERIA, (1, 8, 64), strict=True):
        found = analysed(
            fixture.model, clean, adversarial, tap=fixture.tap, batch_size=batch_size, criterion=criterion
        ).scores
        assert found is not None
        assert found.feature_axis == fixture.axis
        wanted = scores(raw[0], raw[1], fixture.axis, criterion)
        assert wanted.max() > 0
        assert relative_difference(found.scores, wanted) <= 1e-6


def test_feature_axis_can_be_overruled() -> None:
    fixture = BY_NAME["transformer"]
    clean, adversarial = noisy(COUNT, 7, 4)
    raw = [activations(fixture.model, fixture.tap, "tokens", x) for x in (clean, adversarial)]
    found = analysed(fixture.model, clean, adversarial, tap=fixture.tap, feature_axis=1).scores
    assert found is not None
    assert relative_difference(found.scores, scores(raw[0], raw[1], 1, "deepcloak")) <= 1e-6


def identity(op: str = "Identity", elem_type: int = core.F32) -> onnx.ModelProto:
    """Make a model whose tap is the input, or a function of it; then a Gemm."""
    nodes = [core.node(op, "x", core.TAP), core.node("MatMul", [core.TAP, "w"], "logits")]
    kind = {"dtype": np.float64} if elem_type == TensorProto.DOUBLE else {}
    return core.model(
        core.graph(
            nodes,
            [core.value("x", ["N", 4], elem_type)],
            [core.value("logits", ["N", 3], elem_type)],
            [core.weights("w", 4, 3, **kind)],
        )
    )


@pytest.mark.parametrize("criterion", CRITERIA)
def test_dead_features_are_reported_and_ranked_last(criterion: str) -> None:
    clean, adversarial = noisy(COUNT, 4)
    clean[:, 2] = adversarial[:, 2] = 0  # silent
    adversarial[:, 0] = clean[:, 0]  # never moves
    found = analysed(identity(), clean, adversarial, criterion=criterion).scores
    assert found is not None
    assert found.dead == [0, 2]
    assert ranking(found)[2:] == [0, 2]
    assert set(ranking(found)[:2]) == {1, 3}


@pytest.mark.parametrize("criterion", ["relative", "standardised"])
def test_silent_on_clean_inputs_only_ranks_first(criterion: str) -> None:
    clean, adversarial = noisy(COUNT, 4)
    clean[:, 2] = 0
    found = analysed(identity(), clean, adversarial, criterion=criterion)
    assert found.scores is not None
    assert ranking(found.scores)[0] == 2
    assert np.isfinite(found.scores.scores).all()
    assert Analysis.from_json(found.to_json()).scores is not None


def test_standardised_keeps_its_digits_far_from_zero() -> None:
    clean, adversarial = noisy(COUNT, 4)
    clean, adversarial = clean / np.float32(100) + np.float32(1000), adversarial / np.float32(100) + np.float32(1000)
    found = analysed(identity(), clean, adversarial, criterion="standardised", batch_size=5, bounds=(0, 2000)).scores
    assert found is not None
    wanted = scores(clean.astype(np.float64), adversarial.astype(np.float64), 1, "standardised")
    assert relative_difference(found.scores, wanted) <= 1e-6


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("kind", ["clean", "adversarial"])
@pytest.mark.parametrize(
    ("op", "bad", "said"), [("Log", 0.0, "-inf"), ("Reciprocal", 0.0, "inf"), ("Log", -1.0, "nan")]
)
def test_activations_that_are_not_finite(op: str, bad: float, said: str, kind: str, criterion: str) -> None:
    clean, adversarial = noisy(COUNT, 4)
    clean, adversarial = clean + np.float32(0.1), adversarial + np.float32(0.1)
    (clean if kind == "clean" else adversarial)[17, 3] = bad
    for batch_size in (1, 4, 64):
        with pytest.raises(InferenceError) as caught:
            analysed(identity(op), clean, adversarial, criterion=criterion, batch_size=batch_size, bounds=(-2, 2))
        assert str(caught.value).startswith(f"tap 'features' is {said} at feature 3 of {kind} sample 17:")


def test_not_finite_behind_a_fixed_batch() -> None:
    proto = identity("Log")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    clean, adversarial = (x + np.float32(1) for x in noisy(COUNT, 4))
    adversarial[22, 1] = 0
    with pytest.raises(InferenceError, match="feature 1 of adversarial sample 22:"):
        analysed(proto, clean, adversarial, bounds=(0, 3))


def test_faults() -> None:
    clean, adversarial = noisy(COUNT, 4)
    with pytest.raises(OptionError, match=r"no criterion 'relativ'.*did you mean 'relative'"):
        analysed(identity(), clean, adversarial, criterion="relativ")
    with pytest.raises(TapError, match="'featurs' does not exist; did you mean 'features'"):
        analysed(identity(), clean, adversarial, tap="featurs")
    with pytest.raises(DataError, match="clean is empty"):
        analysed(identity(), clean[:0], adversarial[:0])


def test_progress_counts_samples() -> None:
    told: list[int] = []
    clean, adversarial = noisy(COUNT, 4)
    analysed(identity(), clean, adversarial, batch_size=10, on_progress=told.append)
    assert told == [10, 20, 23]


def bfloat16(batch: int | str) -> onnx.ModelProto:
    """Make a model whose tap is the logarithm of its input in bfloat16."""
    nodes = [
        core.node("Log", "x", "log"),
        core.node("Cast", "log", core.TAP, to=int(TensorProto.BFLOAT16)),
        core.node("Cast", core.TAP, "wide", to=core.F32),
        core.node("MatMul", "wide w", "logits"),
    ]
    inputs, outputs = [core.value("x", [batch, 4])], [core.value("logits", [batch, 3])]
    return core.model(core.graph(nodes, inputs, outputs, [core.weights("w", 4, 3)]))


def rounded(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Round to bfloat16, half to even."""
    bits = x.view(np.uint32).astype(np.uint64)
    kept = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)
    return kept.view(np.float32).astype(np.float64)


@pytest.mark.parametrize("batch", ["N", 3])
def test_bfloat16(batch: int | str) -> None:
    clean, adversarial = (x + np.float32(0.1) for x in noisy(COUNT, 4))
    try:
        found = analysed(bfloat16(batch), clean, adversarial, tap=core.TAP, bounds=(0, 2)).scores
    except InferenceError as error:
        pytest.skip(f"this ONNX Runtime has no bfloat16 kernels: {error}")
    assert found is not None
    assert found.dtype == "bfloat16"
    wanted = scores(rounded(np.log(clean)), rounded(np.log(adversarial)), 1, "deepcloak")
    np.testing.assert_allclose(found.scores, wanted, rtol=0.02)  # a rounding may fall the other way
    clean[22, 2] = 0
    with pytest.raises(InferenceError, match="tap 'features' is -inf at feature 2 of clean sample 22:"):
        analysed(bfloat16(batch), clean, adversarial, tap=core.TAP, bounds=(0, 2))
