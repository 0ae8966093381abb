"""One classifier made from another: what they share, and what is made and chosen only when it is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from cloakonnx.classifier import classifier as home
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import DataError, ModelError, ProviderError
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import Provider
from tests.attacks.helpers import CPU, convolution, flat, model
from tests.fixtures import core

X = np.random.default_rng(0).random((20, 12)).astype(np.float32)
Y = np.arange(20) % 4


def weights(count: int, *removed: int) -> NDArray[np.float32]:
    made = np.ones(count, np.float32)
    made[list(removed)] = 0
    return made


def classifier(made: onnx.ModelProto | None = None, **options: Any) -> Classifier:
    return Classifier(load_bytes((made or flat(4)).SerializeToString()), provider=CPU, **options)


def assert_is(found: Classifier, masks: list[Mask]) -> None:
    """Compare with the model that is hardened with these masks."""
    alone = Classifier(hardened(found.model, masks) if masks else found.model, provider=CPU)
    np.testing.assert_allclose(found.scores(X), alone.scores(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.predict(X), alone.predict(X))
    np.testing.assert_array_equal(found.right(X, Y), alone.predict(X) == Y)
    np.testing.assert_allclose(found.logits(X), alone.logits(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.gradient(X, Y), alone.gradient(X, Y), rtol=1e-3, atol=1e-6)


def test_masks_at_the_same_taps_share_the_sessions() -> None:
    first = classifier(masks=[Mask("a", weights(16, 0))])
    assert_is(first, [Mask("a", weights(16, 0))])
    other = first.with_masks([Mask("a", weights(16, 1, 2))])
    assert other.sessions is first.sessions
    assert_is(other, [Mask("a", weights(16, 1, 2))])
    assert_is(first, [Mask("a", weights(16, 0))])  # nothing of the other one's


def test_masks_at_other_taps_have_sessions_of_their_own() -> None:
    first = classifier(masks=[Mask("a", weights(16, 0))])
    assert_is(first, [Mask("a", weights(16, 0))])
    several = [Mask("h", weights(16, 3)), Mask("a", weights(16, 1))]
    for masks in ([], [Mask("h", weights(16, 3))], several):
        other = first.with_masks(masks)
        assert other.sessions is not first.sessions
        assert_is(other, masks)
    both = first.with_masks(several)
    assert both.with_masks(several[::-1]).sessions is both.sessions


def test_masks_of_features_and_of_elements_share_nothing() -> None:
    made = convolution(nhwc=False)
    first = classifier(made, masks=[Mask("r", weights(8, 0))])
    wide = np.random.default_rng(1).random((8, 8, 8)).astype(np.float32)
    other = first.with_masks([Mask("r", wide)])
    assert other.sessions is not first.sessions
    x = np.random.default_rng(0).random((5, 3, 8, 8)).astype(np.float32)
    alone = Classifier(hardened(first.model, [Mask("r", wide)]), provider=CPU)
    np.testing.assert_allclose(other.logits(x), alone.logits(x), rtol=1e-4, atol=1e-5)


def test_masks_set_anew_are_those_of_the_file_and_of_the_derived_graphs() -> None:
    first = classifier()
    masked = MaskedClassifier(first, [ones(find_tap(first.model, "a"))])
    assert_is(masked, [])
    sessions = masked.sessions
    for removed in ((0, 1), (5,)):
        masked.weights = {"a": weights(16, *removed)}
        assert_is(masked, [Mask("a", weights(16, *removed))])
        assert_is(masked.on(CPU), [Mask("a", weights(16, *removed))])
    assert masked.sessions is sessions


def test_beside_and_on() -> None:
    first = classifier(preprocessing=Preprocessing(mean=(0.5,)), input_name="x", masks=[Mask("a", weights(16, 0))])
    other = first.beside(load_bytes(flat(3).SerializeToString()))
    assert (other.preprocessing, other.provider, other.masks) == (first.preprocessing, CPU, ())
    assert other.logits(X).shape == (20, 3)
    moved = first.on(Provider("CPUExecutionProvider", 0))
    assert (moved.asked_names, moved.masks) == (("x", None), first.masks)
    np.testing.assert_array_equal(moved.logits(X), first.logits(X))
    renamed = flat(4)
    renamed.graph.input[0].name = renamed.graph.node[0].input[0] = "pixels"
    assert first.beside(load_bytes(renamed.SerializeToString())).input_name == "pixels"


def test_the_provider_is_chosen_when_something_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def choose() -> Provider:
        asked.append(None)
        return CPU

    monkeypatch.setattr(home, "choose_provider", choose)
    made = Classifier(load_bytes(flat(4).SerializeToString()), masks=[Mask("a", weights(16))])
    assert (made.input_shape, made.channel_axis, made.declared_classes, made.rounds_in_use) == ((12,), 1, 4, False)
    Dataset.of(ArraySource("x", X, Y), made).check_not_empty()
    assert made.task.right(np.eye(4), np.arange(4)).all()
    beside = made.beside(load_bytes(flat(3).SerializeToString()))
    assert not asked
    made.predict(X)
    made.logits(X)
    assert len(asked) == 1
    beside.predict(X)
    assert len(asked) == 2


def test_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose() -> Provider:
        raise ProviderError("none loads")

    monkeypatch.setattr(home, "choose_provider", choose)
    made = Classifier(load_bytes(flat(4).SerializeToString()))
    with pytest.raises(ProviderError, match="none loads"):
        made.predict(X)


def test_an_output_that_cannot_be_told_is_told_of_when_it_is_needed() -> None:
    made = flat(4)
    made.graph.output.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["N", 16]))
    several = classifier(made)
    assert several.input_name == "x"
    assert several.declared_classes is None
    np.testing.assert_array_equal(several.activations(["a"])(X)[0], classifier().activations(["a"])(X)[0])
    for needs in (lambda: several.output_name, lambda: several.task, lambda: several.predict(X), several.prepare):
        with pytest.raises(ModelError, match=r"2 outputs \(scores, h\); name one with output_name"):
            needs()
    assert classifier(made, output_name="scores").predict(X).shape == (20,)


def grey(shape: tuple[int, ...], classes: int = 4) -> onnx.ModelProto:
    """Return Flatten and Gemm on (N, ...) images."""
    nodes = [core.node("Flatten", "x", "f"), core.node("MatMul", "f w", "scores")]
    made = np.random.default_rng(0).normal(size=(int(np.prod(shape)), classes)).astype(np.float32)
    return model(nodes, {"w": made}, ["N", *shape], classes)


@pytest.mark.parametrize(
    ("shape", "axis"), [((1, 6, 5), 1), ((6, 5, 1), 3), ((3, 6, 1), 1), ((4, 6, 1), 1), ((6, 3, 1), 3)]
)
def test_samples_without_a_channel_axis(shape: tuple[int, ...], axis: int) -> None:
    """Wherever mean and std are put, they run along the axis that the model's layout tells."""
    stored = tuple(size for size in shape if size != 1)
    made = grey(shape)
    channels = shape[axis - 1]
    numbers = tuple(np.linspace(0.2, 0.8, channels).tolist())
    how = Preprocessing(mean=numbers, std=numbers)
    under = classifier(made, preprocessing=how)
    data = Dataset.of(ArraySource("x", np.random.default_rng(1).random((9, *stored)).astype(np.float32), None), under)
    assert (data.sample_shape, data.arrangement.channel_axis, under.channel_axis) == (shape, axis, axis)
    x = next(data.batches(9)).x
    along = np.array(numbers, np.float32).reshape([-1 if i == axis else 1 for i in range(4)])
    wanted = classifier(made).scores((x - along) / along)
    np.testing.assert_allclose(under.scores(x), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(under.logits(x), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        under.gradient(x, np.zeros(9, np.int64)),
        classifier(made).gradient((x - along) / along, np.zeros(9, np.int64)) / along,
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(3, 6, 5), ("C", 6, 5)])
def test_mean_and_std_that_do_not_fit_the_channels(shape: tuple[Any, ...]) -> None:
    """Whatever runs first says so, where the file tells how many channels there are and where only the samples do."""
    made = convolution(nhwc=False)
    for dim, size in zip(made.graph.input[0].type.tensor_type.shape.dim[1:], shape, strict=True):
        dim.Clear()
        setattr(dim, "dim_param" if isinstance(size, str) else "dim_value", size)
    x = np.random.default_rng(0).random((4, 3, 6, 5)).astype(np.float32)
    y = np.zeros(4, np.int64)

    def fresh() -> Classifier:
        return classifier(made, preprocessing=Preprocessing(mean=(0.1, 0.2)))

    source = ArraySource("x", x, y, layout="nchw")
    for run in (
        lambda: fresh().scores(x),
        lambda: fresh().predict(x),
        lambda: fresh().logits(x),
        lambda: fresh().gradient(x, y),
        lambda: fresh().activations(["r"])(x),
        lambda: fresh().prepare((3, 6, 5)),
        lambda: Dataset.of(source, fresh()).fitted_to(fresh()),
    ):
        with pytest.raises(DataError, match="mean has 2 numbers for 3 channels of the samples"):
            run()
