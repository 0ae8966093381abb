"""Models of any batch dimension and input type, fed any number of samples."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.classifier.activations import Activations
from cloakonnx.classifier.classifier import Classifier, input_shape
from cloakonnx.errors import DataError, InferenceError, ModelError
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from tests.fixtures import core, models

CPU = choose_provider("cpu")
BY_NAME = {fixture.name: fixture for fixture in models.FIXTURES}


def batch(count: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(5).random((count, *shape)).astype(np.float32)


def taps(proto: onnx.ModelProto, *names: str, **options: Any) -> Activations:
    return Classifier(load_bytes(proto.SerializeToString()), provider=CPU, **options).activations(names or [core.TAP])


def relu(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the tap of core.mlp()."""
    weights = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in core.mlp().graph.initializer}
    return np.asarray(np.maximum(x.astype(np.float64) @ weights["w1"] + weights["b1"], 0))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 9])
@pytest.mark.parametrize("dimension", [1, 3, "N", None])
def test_any_number_of_samples(dimension: int | str | None, count: int) -> None:
    run = taps(core.mlp(batch=dimension), core.TAP, "logits")
    x = batch(count, 4)
    features, logits = run(x)
    assert logits.shape == (count, 3)
    np.testing.assert_allclose(features, relu(x), atol=1e-5)
    chunks = list(run.chunks(x))
    step = dimension if isinstance(dimension, int) else count
    assert [chunk.start for chunk in chunks] == list(range(0, count, step))


@pytest.mark.parametrize("opset", [7, 8])
def test_initializers_listed_as_inputs(opset: int) -> None:
    fixture = BY_NAME[f"opset_{opset}"]
    assert fixture.model.ir_version == 3
    assert len(fixture.model.graph.input) > 1
    x = batch(5, 4)
    np.testing.assert_allclose(taps(fixture.model)(x)[0], relu(x), atol=1e-5)


def pass_through(elem_type: int, shape: list[Any] | None = None) -> onnx.ModelProto:
    """Make a model whose `seen` is its input as float64."""
    nodes = [core.node("Cast", "x", "seen", to=int(TensorProto.DOUBLE)), core.node("Identity", "seen", "y")]
    dims = shape or ["N", 4]
    return core.model(
        core.graph(nodes, [core.value("x", dims, elem_type)], [core.value("y", dims, int(TensorProto.DOUBLE))])
    )


NORMALISATIONS = [
    Preprocessing(),
    Preprocessing(scale=255.0),
    Preprocessing(mean=(0.5,), std=(0.25,)),
    Preprocessing(scale=2.0, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(
    ("elem_type", "kind"),
    [(TensorProto.FLOAT, np.float32), (TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)],
)
def test_floating_inputs(elem_type: int, kind: Any, normalisation: Preprocessing) -> None:
    x = batch(5, 3, 2, 2)
    made = pass_through(elem_type, ["N", 3, 2, 2])
    (seen,) = taps(made, "seen", preprocessing=normalisation)(x)
    mean, std = (
        np.array(v or (d,), np.float32).reshape(-1, 1, 1) for v, d in ((normalisation.mean, 0), (normalisation.std, 1))
    )
    wanted = ((x * np.float32(normalisation.scale) - mean) / std).astype(kind)
    np.testing.assert_array_equal(seen, wanted.astype(np.float64))


@pytest.mark.parametrize("elem_type", [TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64])
def test_integer_inputs_are_rounded(elem_type: int) -> None:
    levels = np.arange(256, dtype=np.float32).reshape(64, 4)
    (seen,) = taps(pass_through(elem_type), "seen", preprocessing=Preprocessing(scale=255.0))(levels / np.float32(255))
    np.testing.assert_array_equal(seen, levels)


def test_strings_are_refused() -> None:
    made = core.model(
        core.graph(
            [core.node("StringNormalizer", "x", "y")],
            [core.value("x", ["N"], int(TensorProto.STRING))],
            [core.value("y", ["N"], int(TensorProto.STRING))],
        )
    )
    with pytest.raises(ModelError, match="input 'x' has element type string"):
        taps(made, "y")


def test_channels_that_do_not_fit() -> None:
    for elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
        with pytest.raises(DataError, match="mean has 2 numbers for 3 channels of the samples; give one number"):
            taps(pass_through(elem_type, ["N", 3, 2, 2]), "seen", preprocessing=Preprocessing(mean=(0.1, 0.2)))
        made = pass_through(elem_type, ["N", "C", 2, 2])
        run = taps(made, "seen", preprocessing=Preprocessing(std=(0.1, 0.2)))
        assert run(batch(3, 2, 2, 2))[0].shape == (3, 2, 2, 2)
        with pytest.raises(DataError, match="std has 2 numbers for 3 channels of the samples"):
            run(batch(3, 3, 2, 2))


def test_an_input_of_no_declared_rank() -> None:
    """Channels come first, as nothing tells that they do not; the samples tell which axis that is."""
    x = batch(5, 3, 2, 3)
    how = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    for elem_type, kind in ((TensorProto.FLOAT, np.float32), (TensorProto.FLOAT16, np.float16)):
        made = pass_through(elem_type, ["N", 3, 2, 3])
        made.graph.input[0].type.tensor_type.ClearField("shape")
        (seen,) = taps(made, "seen", preprocessing=how)(x)
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (how.mean, how.std))
        np.testing.assert_array_equal(seen, ((x - mean) / std).astype(kind))
        with pytest.raises(DataError, match="mean has 3 numbers for 2 channels of the samples"):
            taps(made, "seen", preprocessing=how)(batch(5, 2, 2, 3))


def two_inputs() -> onnx.ModelProto:
    nodes = [core.node("Relu", "x", "alone"), core.node("Add", "alone z", "both")]
    return core.model(
        core.graph(
            nodes,
            [core.value("x", ["N", 4]), core.value("z", ["N", 4])],
            [core.value("both", ["N", 4]), core.value("alone", ["N", 4])],
        )
    )


def test_several_inputs() -> None:
    with pytest.raises(ModelError, match=r"2 inputs \(x, z\); name one with input_name"):
        taps(two_inputs(), "alone")
    with pytest.raises(ModelError, match="no input 'w'; it has x, z"):
        taps(two_inputs(), "alone", input_name="w")
    with pytest.raises(ModelError, match="the model needs 'z' beside 'x'"):
        taps(two_inputs(), "both", input_name="x")
    x = batch(3, 4)
    np.testing.assert_array_equal(taps(two_inputs(), "alone", input_name="x")(x)[0], x)


def test_a_graph_that_onnx_runtime_refuses() -> None:
    made = core.mlp([core.node("NoSuchOp", core.TAP, "odd", domain="org.example")], domains={"org.example": 1})
    made.graph.output.append(core.value("odd", ["N", 6]))
    np.testing.assert_allclose(taps(made)(batch(2, 4))[0], relu(batch(2, 4)), atol=1e-5)  # not needed for this tap
    with pytest.raises(InferenceError, match=r"ONNX Runtime .* cannot load the model: .*NoSuchOp") as caught:
        taps(made, "odd")
    assert "\n" not in str(caught.value)


def test_inputs_that_do_not_fit(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InferenceError, match="cannot run the model") as caught:
        taps(core.mlp())(batch(2, 5))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_results_outlive_the_session() -> None:
    found = [taps(core.mlp(batch=dimension))(batch(4, 4))[0] for dimension in ("N", 1, 3) for _ in range(5)]
    for each in found:
        np.testing.assert_allclose(each, relu(batch(4, 4)), atol=1e-5)


def test_input_shape() -> None:
    cases: list[tuple[Any, tuple[int | None, ...] | None]] = [
        (["N", 3, "H", 7], (3, None, 7)), ([1, 4], (4,)), ([None, 4], (4,)), (None, None),
    ]  # fmt: skip
    for dims, shape in cases:
        made = core.model(core.graph([core.node("Relu", "x", "y")], [core.value("x", dims)], [core.value("y", None)]))
        assert input_shape(load_bytes(made.SerializeToString())) == shape
