"""All kinds of inputs and outputs: few classes, one score, layouts, element types, fixed batches, preprocessing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from cloakonnx.attacks.base import make
from cloakonnx.attacks.methods.apgd import APGDCE, APGDT
from cloakonnx.attacks.methods.pgd import FGSM, PGD
from cloakonnx.attacks.methods.square import Square
from cloakonnx.attacks.victim import Victim
from cloakonnx.gradient.losses import Loss
from cloakonnx.preprocessing import Preprocessing
from tests.fixtures import subgraphs

from .helpers import convolution, flat, victim

ATTACKS: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "pgd": {"max_iter": 10},
    "apgd-ce": {"max_iter": 10},
    "apgd-dlr": {"max_iter": 10},
}
BLACK: dict[str, dict[str, Any]] = {"square": {"max_iter": 30}, "noise": {}, "apgd-t": {"max_iter": 5}}


def samples(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).random(shape).astype(np.float32)


def results(classifier: Victim, x: NDArray[np.float32], eps: float = 0.15) -> dict[str, int]:
    """Attack with the model's own predictions as labels; return how many samples each attack fooled."""
    y = classifier.predict(x)
    found = {}
    for attack, options in {**ATTACKS, **BLACK}.items():
        made = make(attack, eps=eps, **options).run(classifier, x, y)
        np.testing.assert_array_equal(classifier.predict(made.x) != y, made.success)
        assert np.abs(made.x - x).max() <= eps + 1e-6
        found[attack] = int(made.success.sum())
    return found


def test_one_score_is_two_classes() -> None:
    x = samples(60, 12)
    counts = []
    for final in (None, "Sigmoid"):
        classifier = victim(flat(1, final=final))
        assert classifier.classes == 2
        logits = classifier.logits(x)
        assert logits.shape == (60, 2)
        assert (logits[:, 0] == 0).all()
        assert set(classifier.predict(x)) == {0, 1}
        counts.append(results(classifier, x))
    assert counts[0] == counts[1]
    assert counts[0]["pgd"] >= counts[0]["fgsm"] > counts[0]["noise"]


def test_three_classes_margin_stands_in_for_dlr() -> None:
    x = samples(60, 12)
    classifier = victim(flat(3, final="Softmax"))
    y = classifier.predict(x)
    dlr, margin = (classifier.gradient(x, y, loss=loss) for loss in (Loss.DLR, Loss.MARGIN))
    np.testing.assert_array_equal(dlr.loss, margin.loss)
    counts = results(classifier, x)
    assert min(counts["pgd"], counts["apgd-ce"], counts["apgd-dlr"], counts["apgd-t"]) >= counts["fgsm"] > 0


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (5, 4), (12, 9)])
def test_targets_are_nine_or_all_other_classes(classes: int, targets: int) -> None:
    classifier = victim(flat(classes))
    x = samples(4, 12)
    y = classifier.predict(x)
    classifier.counts.gradients = 0
    found = APGDT(eps=1e-6, max_iter=3).run(classifier, x, y)  # nothing is fooled, so every target is tried
    assert not found.success.any()
    assert classifier.counts.gradients == targets * 4 * 4


LOOPS = {f.name: f for f in subgraphs.fixtures()}


@pytest.mark.parametrize("name", ["tap_from_if", "tap_from_loop", "scan_capture"])
def test_control_flow_has_gradients(name: str) -> None:
    """Nothing infers the shape behind a body, so the declared output tells the classes."""
    made = LOOPS[name].model
    output = made.graph.output[-1].name
    shape = made.graph.output[-1].type.tensor_type.shape
    classifier = victim(made, output_name=output)
    assert classifier.classes == shape.dim[1].dim_value
    x = samples(40, 4)
    y = classifier.predict(x)
    found = Square(eps=0.3, max_iter=40).run(classifier, x, y)
    np.testing.assert_array_equal(classifier.predict(found.x) != y, found.success)
    assert found.success.any()
    for attack in (FGSM, PGD, APGDCE, APGDT):
        made_by = attack(eps=0.3).run(classifier, x, y)
        np.testing.assert_array_equal(classifier.predict(made_by.x) != y, made_by.success)
        assert attack is FGSM or made_by.success.sum() >= found.success.sum() - 2


def test_nhwc_is_as_nchw() -> None:
    """The same network in both layouts: white-box results agree; Square sees channels as channels."""
    first, last = victim(convolution(nhwc=False)), victim(convolution(nhwc=True))
    x = samples(40, 3, 8, 8)
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    y = first.predict(x)
    np.testing.assert_array_equal(y, last.predict(turned))
    one, two = FGSM(eps=0.1).run(first, x, y), FGSM(eps=0.1).run(last, turned, y)
    np.testing.assert_allclose(two.x.transpose(0, 3, 1, 2), one.x, atol=1e-7)
    one = Square(eps=0.1, max_iter=30).run(first, x, y)
    two = Square(eps=0.1, max_iter=30).run(last, turned, y)
    np.testing.assert_allclose(two.x.transpose(0, 3, 1, 2), one.x, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_floats(dtype: Any) -> None:
    x = samples(60, 12)
    wide, other = victim(flat(4)), victim(flat(4, dtype=dtype))
    y = wide.predict(x)
    clear = np.sort(wide.logits(x), axis=1)[:, -2:] @ [-1, 1] > 0.05
    np.testing.assert_array_equal(other.predict(x)[clear], y[clear])
    counts, expected = results(other, x), results(wide, x)
    assert all(abs(counts[name] - expected[name]) <= 3 for name in counts)


def test_a_fixed_batch() -> None:
    open_batch, fixed = flat(4), flat(4)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    x = samples(21, 12)
    y = victim(open_batch).predict(x)
    for attack in (FGSM, PGD, APGDCE):
        one, two = (attack(eps=0.1).run(victim(made), x, y) for made in (open_batch, fixed))
        np.testing.assert_allclose(two.x, one.x, atol=1e-5)


def test_preprocessing_is_part_of_the_graph() -> None:
    """A model that takes normalised input, attacked in pixel space, equals the model with the step inside."""
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    bare, whole = convolution(nhwc=False), convolution(nhwc=False)
    weights = {"mean": mean, "std": std}
    for name, values in weights.items():
        whole.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(values, np.float32).reshape(3, 1, 1), name)
        )
    whole.graph.node[0].input[0] = "normal"
    for node in (
        helper.make_node("Div", ["centred", "std"], ["normal"]),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
    ):
        whole.graph.node.insert(0, node)
    x = samples(40, 3, 8, 8)
    one = victim(whole)
    two = victim(bare, preprocessing=Preprocessing(mean=mean, std=std))
    y = one.predict(x)
    for attack in (FGSM, PGD):
        first, second = attack(eps=0.05).run(one, x, y), attack(eps=0.05).run(two, x, y)
        np.testing.assert_allclose(second.x, first.x, atol=1e-5)
    scaled = victim(flat(4), preprocessing=Preprocessing(scale=2.0))
    moved = PGD(eps=0.1, early_stop=False).run(scaled, samples(20, 12), scaled.predict(samples(20, 12))).x
    np.testing.assert_allclose(np.abs(moved - samples(20, 12)).max(), 0.1, atol=1e-6)  # eps is in pixel space


def test_bounds_of_pixel_space() -> None:
    x = samples(20, 12) * 255
    classifier = victim(flat(4), preprocessing=Preprocessing(scale=1 / 255, bounds=(0.0, 255.0)))
    plain = victim(flat(4))
    y = plain.predict(x / 255)
    one, two = PGD(eps=0.1).run(plain, x / 255, y), PGD(eps=25.5).run(classifier, x, y)
    assert two.x.max() > 1
    np.testing.assert_allclose(two.x / 255, one.x, atol=1e-5)


def test_square_on_odd_shapes() -> None:
    """Vectors, one row, one column, a single pixel."""
    for shape in ((12,), (1, 1, 12), (1, 12, 1), (3, 2, 2), (12, 1, 1)):
        made = flat(4)
        if len(shape) > 1:
            made.graph.node.insert(0, helper.make_node("Flatten", ["x"], ["v"]))
            made.graph.node[1].input[0] = "v"
            del made.graph.input[0].type.tensor_type.shape.dim[1:]
            for size in shape:
                made.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
        classifier = victim(made)
        x = samples(30, *shape)
        y = classifier.predict(x)
        for norm, eps in (("linf", 0.2), ("l2", 0.7)):
            found = Square(eps=eps, max_iter=40, norm=norm).run(classifier, x, y)  # type: ignore[arg-type]
            np.testing.assert_array_equal(classifier.predict(found.x) != y, found.success)
            assert found.success.any(), (shape, norm)
