"""Greedy selection: logits without features as hardened files give them, the path as brute force finds it, budgets."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from scipy.special import expit

from cloakonnx.attacks.base import make
from cloakonnx.classifier.classifier import input_shape
from cloakonnx.classifier.task import SingleLabel
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import CheckError, DataError, OptionError, TapError
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.greedy.ablation import Ablations
from cloakonnx.selection.greedy.path import Part, Step, best_prefix, greedy_path, least_correct
from cloakonnx.selection.greedy.select import select_greedy
from tests.attacks.helpers import DIGITS, digits_arrays, victim_of
from tests.fixtures import models
from tests.support.classifiers import cpu

CPU = choose_provider("cpu")
DENSE, CHANNELS = "/6/Relu_output_0", "/3/Relu_output_0"
ATTACK = make("pgd", eps=0.1, max_iter=5, early_stop=False)
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "analysis.schema.json").read_text())
Floats = NDArray[np.float64]
Keep = NDArray[np.bool_]


@cache
def digits() -> Model:
    return load(DIGITS)


def dataset(x: NDArray[Any], y: NDArray[np.int64] | None, name: str = "digits.npz") -> Dataset:
    return Dataset(ArraySource(name, x, y), Preprocessing(), input_shape(digits()), classes=10)


def samples(start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x, y = digits_arrays()
    return x[start:stop], y[start:stop]


def task() -> SingleLabel:
    return cpu(digits()).task


def real_logits(model: Model, tap: str, axis: int, keep: Keep, x: NDArray[np.float32]) -> Floats:
    masked = hardened(model, [Mask(tap, keep.astype(np.float32), axis)])
    return cpu(masked).scores(x).astype(np.float64)


def keep_all_but(features: int, removed: Sequence[int]) -> Keep:
    keep = np.ones(features, np.bool_)
    keep[list(removed)] = False
    return keep


@pytest.mark.parametrize(("tap", "features", "linear"), [(DENSE, 64, True), (CHANNELS, 32, False)])
def test_every_candidate_is_its_hardened_file(tap: str, features: int, linear: bool) -> None:
    x, _ = samples(0, 20)
    made = Ablations(cpu(digits()), find_tap(digits(), tap))
    assert made.is_linear == linear
    ablation = made.of([x[:7], x[7:]])
    keep = np.random.default_rng(0).random(features) < 0.7
    np.testing.assert_allclose(ablation.logits(keep), real_logits(digits(), tap, 1, keep, x), rtol=1e-4, atol=1e-4)
    seen = []
    for block, logits in ablation.without_each(keep):
        for feature, found in zip(block, logits, strict=True):
            seen.append(int(feature))
            if len(seen) % 4 == 0:
                tried = keep.copy()
                tried[feature] = False
                np.testing.assert_allclose(found, real_logits(digits(), tap, 1, tried, x), rtol=1e-4, atol=1e-4)
    assert seen == list(np.flatnonzero(keep))


@pytest.mark.parametrize("name", ["nchw", "nhwc_tap_last", "transformer", "batch_fixed_3", "float16", "float64"])
def test_layouts_and_types(name: str) -> None:
    fixture = next(f for f in models.FIXTURES if f.name == name)
    model = load_bytes(fixture.model.SerializeToString())
    ((_, example),) = fixture.feed.items()
    x = np.random.default_rng(3).random((10, *example.shape[1:])).astype(np.float32)
    tap = find_tap(model, fixture.tap)
    assert tap.features is not None
    ablation = Ablations(cpu(model), tap).of([x[:4], x[4:]])
    keep = keep_all_but(tap.features, [1])
    slack = 2e-2 if name == "float16" else 1e-5
    wanted = real_logits(model, tap.name, tap.feature_axis, keep, x)
    np.testing.assert_allclose(ablation.logits(keep), wanted, rtol=slack, atol=slack)
    for block, logits in ablation.without_each(keep):
        for feature, found in zip(block, logits, strict=True):
            removed = keep_all_but(tap.features, [1, int(feature)])
            wanted = real_logits(model, tap.name, tap.feature_axis, removed, x)
            np.testing.assert_allclose(found, wanted, rtol=slack, atol=slack)


@pytest.mark.parametrize("name", ["cifar10_resnet20_raw", "mnist_cntk_ir3", "text_direction_rapidocr"])
def test_real_models(name: str) -> None:
    """Preprocessing, a batch fixed at 1 with a tap before Reshape and MatMul, a Softmax at the end."""
    known = models.manifest()
    if known is None or name not in known:
        pytest.skip(f"the real model {name} is not beside the checkout (set CLOAKONNX_ASSETS)")
    asset = known[name]
    model = load(asset.path)
    preprocessing = Preprocessing(scale=asset.scale, mean=asset.mean, std=asset.std)
    data = Dataset(ArraySource(name, asset.images(6), None), preprocessing, input_shape(model))
    tap, batches = find_tap(model), [batch.x for batch in data.batches(4)]
    made = Ablations(cpu(model, preprocessing=preprocessing), tap)
    assert made.is_linear
    keep = np.random.default_rng(1).random(asset.features) < 0.8
    masked = hardened(model, [Mask(tap.name, keep.astype(np.float32), tap.feature_axis)])
    victim = victim_of(masked, preprocessing=preprocessing, sample_shape=data.sample_shape)
    wanted = np.concatenate([victim.logits(batch) for batch in batches])
    np.testing.assert_allclose(made.of(batches).logits(keep), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_bfloat16_taps_are_refused() -> None:
    """ONNX Runtime's CPU provider has no Mul for them."""
    fixture = next(f for f in models.FIXTURES if f.name == "bfloat16_inside")
    model = load_bytes(fixture.model.SerializeToString())
    with pytest.raises(TapError, match="bfloat16, which greedy selection can't mask"):
        Ablations(cpu(model), find_tap(model, fixture.tap))


def by_definition(logits: Floats, y: NDArray[np.int64]) -> float:
    """Return the mean of sigmoid(margin)."""
    return float(np.mean([expit(z[t] - np.delete(z, t).max()) for z, t in zip(logits, y, strict=True)]))


@pytest.mark.parametrize("tap", [DENSE, CHANNELS])
def test_the_path_is_that_of_brute_force_with_hardened_files(tap: str) -> None:
    x, y = samples(0, 30)
    features = 64 if tap == DENSE else 32
    victim = victim_of(digits())
    adversarial = ATTACK.run(victim, x, y).x
    made = Ablations(cpu(digits()), find_tap(digits(), tap))
    least = least_correct(30, 30, 0.1)
    path = greedy_path(Part(y, made.of([x]), (made.of([adversarial]),), task()), features, least=least)
    assert len(path) > 2
    removed: list[int] = []
    for step in path[1 : 2 if tap == DENSE else 3]:
        tried = {}
        for feature in set(range(features)) - set(removed):
            keep = keep_all_but(features, [*removed, feature])
            if (real_logits(digits(), tap, 1, keep, x).argmax(axis=1) == y).sum() >= least:
                tried[feature] = by_definition(real_logits(digits(), tap, 1, keep, adversarial), y)
        best = max(tried, key=lambda feature: tried[feature])
        removed.append(best)
        assert step.removed == tuple(removed)
        assert step.objective == pytest.approx(tried[best], rel=1e-4)


class Table:
    """An ablation whose logits are a function of which features are there."""

    def __init__(self, gains: Floats) -> None:
        self._gains = gains

    def logits(self, mask: Keep) -> Floats:
        own = (self._gains * ~mask[:, None]).sum(axis=0)
        return np.stack([own, np.zeros_like(own)], axis=1)

    def without_each(self, mask: Keep) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        for feature in np.flatnonzero(mask):
            tried = mask.copy()
            tried[feature] = False
            yield np.array([feature]), self.logits(tried)[None]


def test_budget_ties_and_the_last_feature() -> None:
    """Removing feature i adds gains[i] to the margin of each sample; the clean ones decide what may go."""
    y = np.zeros(3, np.int64)
    attacked = Table(np.array([[1.0, 1, 1], [2, 2, 2], [2, 2, 2], [5, 5, 5], [-1, -1, -1]]))
    clean = Table(np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [-1, 0, 0], [0, 0, 0]]))
    part = Part(y, clean, (attacked,), task())
    assert [step.removed for step in greedy_path(part, 5, least=3)] == [(), (1,), (1, 2), (1, 2, 0)]
    assert [step.removed for step in greedy_path(part, 5, least=2)][1:] == [(3,), (3, 1), (3, 1, 2), (3, 1, 2, 0)]
    everything = Part(y, Table(np.zeros((3, 3))), (Table(np.ones((3, 3))),), task())
    assert greedy_path(everything, 3, least=0)[-1].removed == (0, 1)


def test_the_worst_of_several_attacks_counts() -> None:
    y = np.zeros(2, np.int64)
    first, second = Table(np.array([[3.0, 3], [1, 1]])), Table(np.array([[-9.0, -9], [1, 1]]))
    clean = Table(np.zeros((2, 2)))
    assert greedy_path(Part(y, clean, (first,), task()), 2, least=0)[1].removed == (0,)
    assert greedy_path(Part(y, clean, (first, second), task()), 2, least=0)[1].removed == (1,)


def test_the_prefix_is_chosen_on_other_samples() -> None:
    path = [Step((), 4, 0.1), Step((2,), 4, 0.2), Step((2, 0), 4, 0.3), Step((2, 0, 1), 4, 0.4)]
    y = np.zeros(2, np.int64)
    # Clean: removing feature 1 costs a sample. Attacked: feature 2 helps, feature 0 harms a little, feature 1 helps.
    clean = Table(np.array([[0.0, 0], [-1, 0], [0, 0], [0, 0]]))
    attacked = Table(np.array([[-0.5, -0.5], [2, 2], [1, 1], [0, 0]]))
    part = Part(y, clean, (attacked,), task())
    assert best_prefix(path, part, 4, least=2).removed == (2,)
    assert best_prefix(path, part, 4, least=1).removed == (2, 0, 1)
    assert best_prefix(path[:1], part, 4, least=2).removed == ()


def test_a_share_of_the_samples_is_rounded_down() -> None:
    assert [least_correct(90, 100, b) for b in (0, 0.009, 0.01, 0.29)] == [90, 90, 89, 61]


def selected(**changes: Any) -> Analysis:
    x, y = samples(0, 150)
    options: dict[str, Any] = {"budget": 0.02, "attack": ATTACK, "rounds": 2, "without_gain": True}
    return select_greedy(cpu(digits()), dataset(x, y), **(options | changes))


@pytest.mark.parametrize(("tap", "budget"), [(DENSE, 0.0), (DENSE, 0.02), (DENSE, 0.1), (CHANNELS, 0.05)])
def test_the_file_says_what_the_hardened_model_does(budget: float, tap: str) -> None:
    x, y = samples(150, 250)
    made = selected(budget=budget, tap=tap, select=dataset(x, y, "more.npz"), rounds=1 if tap == CHANNELS else 2)
    Draft202012Validator(SCHEMA).validate(json.loads(made.to_json()))
    assert Analysis.from_json(made.to_json()).to_json() == made.to_json()
    record, (mask,) = made.selection, made.masks
    assert record is not None
    assert mask.tap == tap
    assert set(np.unique(mask.weights)) == {0, 1}
    best = next(each for each in record["rounds"] if each["round"] == record["chosen_round"])
    assert sorted(best["removed"]) == mask.removed
    victim = victim_of(hardened(digits(), [mask]), sample_shape=(1, 8, 8))
    correct = int((victim.predict(x) == y).sum())
    assert correct == best["select_clean"]
    assert correct >= record["select"]["clean_before"] - int(budget * 100)
    moved = [ATTACK.run(victim, x[rows], y[rows], samples=rows) for rows in (np.arange(64), np.arange(64, 100))]
    assert sum(int((~each.success).sum()) for each in moved) == best["select_robust"]
    assert made.samples.count == 250
    assert made.samples.largest_difference == pytest.approx(0.1, abs=1e-6)


def test_held_out_and_the_same_bytes_again() -> None:
    first, second = selected(), selected()
    assert first.to_json() == second.to_json()
    assert first.selection is not None
    assert first.selection["select"]["held_out"]
    assert (first.selection["fit"]["count"], first.selection["select"]["count"]) == (120, 30)
    assert len(set(first.samples.hashes)) == 150


def test_adversarial_inputs_are_static_and_take_one_round() -> None:
    x, y = samples(0, 150)
    adversarial = ATTACK.run(victim_of(digits()), x, y).x
    made = selected(attack=None, adversarial=dataset(adversarial, None, "adversarial.npz"), rounds=None)
    Draft202012Validator(SCHEMA).validate(json.loads(made.to_json()))
    assert made.selection is not None
    assert not made.selection["attack_made_again"]
    assert len(made.selection["rounds"]) == 1
    assert made.samples.adversarial == "adversarial.npz"
    assert made.samples.largest_difference == pytest.approx(0.1, abs=1e-6)


def test_no_gain_is_an_error() -> None:
    """Under an attack that moves nothing and no budget, no removal makes a correct sample more than correct."""
    x, y = samples(0, 40)
    with pytest.raises(CheckError, match=r"within the budget of 0 points .*(gains nothing|helps none)"):
        select_greedy(
            cpu(digits()), dataset(x, y), budget=0.0, attack=make("fgsm", eps=0.0, early_stop=False), rounds=1
        )


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"budget": 1.5}, OptionError, "budget 1.5 must be a share"),
        ({"rounds": 0}, OptionError, "rounds 0"),
        ({"attack": None}, OptionError, "either an attack or adversarial versions"),
        ({"attack": make("pgd", eps=0.1, targeted=True)}, OptionError, "untargeted"),
        ({"tap": "/6/Relu"}, TapError, "did you mean"),
    ],
)
def test_bad_settings(changes: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        selected(**changes)


def test_adversarial_inputs_and_other_samples_exclude_each_other() -> None:
    x, y = samples(0, 20)
    adversarial = dataset(x, y, "adversarial.npz")
    with pytest.raises(OptionError, match="select goes with attack"):
        selected(attack=None, adversarial=adversarial, rounds=1, select=dataset(x, y))
    with pytest.raises(OptionError, match="there is one round"):
        selected(attack=None, adversarial=adversarial, rounds=2)


def test_bad_labels() -> None:
    x, y = samples(0, 40)
    with pytest.raises(DataError, match=r"digits.npz has no labels"):
        select_greedy(cpu(digits()), dataset(x, None), budget=0.1, attack=ATTACK)
    with pytest.raises(DataError, match="all 40 labels are class 3"):
        select_greedy(cpu(digits()), dataset(x, np.full(40, 3)), budget=0.1, attack=ATTACK)
    wrong = Dataset(ArraySource("odd.npz", x, y + 5), Preprocessing(), input_shape(digits()))
    with pytest.raises(DataError, match=r"odd.npz: label 1\d does not fit the model, which has 10 classes"):
        select_greedy(cpu(digits()), wrong, budget=0.1, attack=ATTACK)
