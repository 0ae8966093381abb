"""Masks learned on the sample classifier: they hold under attack, keep within the budget, and come out the same."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cloakonnx.attacks.methods.pgd import PGD
from cloakonnx.attacks.victim import Victim
from cloakonnx.data.loaded import Loaded, split
from cloakonnx.errors import CheckError, DataError, OptionError, TapError
from cloakonnx.graph.file.model import Model, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.learn.choosing import SelectPart, TrialWork
from cloakonnx.selection.learn.learn import learn
from cloakonnx.selection.learn.recipe import Recipe
from tests.attacks.helpers import DIGITS, digits_arrays, victim_of
from tests.selection.helpers import EPS, QUICK, dataset, learned, learning_data, model, select_data, training_arrays
from tests.support.classifiers import cpu

pytest.importorskip("sklearn")


def correct(target: Model, attack: Callable[[Victim], NDArray[np.float32]]) -> NDArray[np.bool_]:
    victim = victim_of(target, sample_shape=(1, 8, 8))
    _, y = digits_arrays()
    return victim.predict(attack(victim)) == y[200:]


@pytest.mark.parametrize("granularity", ["feature", "element", "weight-channel", "kernel", "weight"])
def test_masks_hold_against_an_attack_made_again_on_other_samples(granularity: Any) -> None:
    recipe = Recipe(eps=EPS, budget=0.04, epochs=6, learning_rate=0.05, granularity=granularity)
    analysis = learn(cpu(model()), learning_data(500), recipe, select=select_data(200))
    x, y = digits_arrays()
    x, y = x[200:], y[200:]
    made, attack = hardened(model(), analysis.masks), PGD(eps=EPS, max_iter=20, seed=5)
    before, after = (correct(each, lambda v: attack.run(v, x, y).x) for each in (model(), made))
    clean_before, clean_after = (correct(each, lambda v: x) for each in (model(), made))
    assert clean_before.mean() - clean_after.mean() <= 0.04
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    assert after.mean() >= before.mean() + 0.04
    assert (gained - lost) ** 2 / (gained + lost) > 6.63  # McNemar, p < 0.01


def test_the_same_seed_gives_the_same_bytes_and_another_others() -> None:
    first = learned().to_json()
    assert learned().to_json() == first
    assert learned(Recipe(eps=EPS, budget=0.04, epochs=2, batch_size=50, learning_rate=0.05, seed=1)).to_json() != first


def test_nothing_is_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of an epoch's end that keep to the budget are chosen among by the counts of then: the same bytes."""
    tried: list[tuple[bytes, bool]] = []
    holding = SelectPart._holding

    def noted(self: SelectPart, work: TrialWork, rows: NDArray[np.int64] | None) -> int:
        tried.append((b"".join(mask.tobytes() for mask in work.weights.values()), work.attack is not None))
        return holding(self, work, rows)

    monkeypatch.setattr(SelectPart, "_holding", noted)
    recipe = replace(QUICK, budget=0.5)
    found = learned(recipe).to_json()
    assert len(tried) == len(set(tried)) == 6  # no masks, and two epochs: clean and attacked
    monkeypatch.setattr(SelectPart, "_once", SelectPart._holding)
    assert learned(recipe).to_json() == found
    assert len(tried) > 12


@pytest.mark.parametrize("granularity", ["element", "weight-channel"])
def test_an_analysis_is_read_as_it_was_written(granularity: Any, tmp_path: Path) -> None:
    found = learned(Recipe(eps=EPS, budget=0.04, epochs=1, granularity=granularity, l1=0.5))
    found.save(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    again = Analysis.from_json(text)
    assert again.to_json() == text
    assert [(m.key, m.granularity, m.weights.shape) for m in found.masks] == [
        (m.key, m.granularity, m.weights.shape) for m in again.masks
    ]
    first = json.loads(text)["masks"][0]
    stored = np.frombuffer(base64.b64decode(first["data"]), "<f4").reshape(first["shape"])
    assert np.array_equal(stored, found.masks[0].weights)


def test_a_budget_that_cannot_be_met() -> None:
    recipe = Recipe(eps=EPS, budget=0, epochs=1, batch_size=50, learning_rate=1e-9)
    with pytest.raises(CheckError, match="no masks gain robust accuracy within the budget of 0 points") as error:
        learned(recipe, over_budget=False)
    assert error.value.exit_code == 1
    found = learned(recipe).learning
    assert found is not None
    assert found["chosen"]["within_budget"] is False


@pytest.mark.parametrize("budget", [0.0, 0.02, 0.1])
def test_the_clean_loss_on_the_select_part_keeps_within_the_budget(budget: float) -> None:
    recipe = Recipe(eps=3 / 16, budget=budget, epochs=2, batch_size=50, learning_rate=0.1)
    found = learned(recipe).learning
    assert found is not None
    select, chosen = found["select"], found["chosen"]
    if chosen["within_budget"]:
        assert select["clean_before"] - chosen["clean"] <= budget * select["count"]
        assert chosen["robust"] > select["robust_before"]


def test_weights_keep_within_their_bounds() -> None:
    recipe = Recipe(
        eps=EPS,
        budget=0.5,
        epochs=2,
        batch_size=50,
        learning_rate=0.3,
        granularity="feature",
        bounds=(0, 1.2),
        foldable=True,
    )
    masks = learned(recipe).masks
    values = np.concatenate([m.weights.ravel() for m in masks])
    assert values.min() >= np.float32(0.05)
    assert values.max() <= np.float32(1.2)
    assert values.min() < 0.5


def test_l1_leaves_weights_at_exactly_1_and_small_ones_become_exactly_0() -> None:
    recipe = Recipe(eps=EPS, budget=0.9, epochs=2, learning_rate=0.3, granularity="feature", l1=0.02, zero_below=0.7)
    values = np.concatenate([m.weights.ravel() for m in learned(recipe).masks])
    assert (values == 1).any()
    assert (values == 0).any()
    assert not ((values > 0) & (values < np.float32(0.7))).any()


def test_a_fifth_of_each_class_is_held_out() -> None:
    x, y = training_arrays()
    samples = Loaded.read(dataset(x, y))
    train, held = split(samples, strata=cpu(model()).task.strata, seed=3)
    assert sorted(train.hashes + held.hashes) == sorted(samples.hashes)
    for label in range(10):
        assert (held.y == label).sum() == round(0.2 * (y == label).sum())
    assert split(samples, strata=cpu(model()).task.strata, seed=3)[1].hashes == held.hashes
    assert split(samples, strata=cpu(model()).task.strata, seed=4)[1].hashes != held.hashes


def test_without_select_data_the_held_out_part_chooses() -> None:
    x, y = training_arrays()
    found = learn(cpu(model()), dataset(x[:150], y[:150]), QUICK, over_budget=True)
    assert found.samples.count == 150
    assert found.learning is not None
    assert found.learning["select"]["held_out"] is True
    assert found.learning["select"]["count"] < 40


def test_bad_data() -> None:
    x, _ = training_arrays()
    bad = {
        "train: all 50 labels are class 3": dataset(x[:50], np.full(50, 3), "train"),
        "too few to hold out": dataset(x[:2], np.array([0, 1]), "train"),
    }
    for message, data in bad.items():
        with pytest.raises(DataError, match=message):
            learn(cpu(model()), data, QUICK)


def test_without_labels_predictions_stand_in() -> None:
    """The same masks as with the predictions for labels, and a note."""
    x, _ = training_arrays()
    sx, _ = digits_arrays()
    x, sx, victim = x[:150], sx[:60], cpu(model())
    named = learned(select=dataset(sx, victim.predict(sx), "s"), samples=dataset(x, victim.predict(x), "t"))
    found = learned(select=dataset(sx, None, "s"), samples=dataset(x, None, "t"))
    assert [mask.key for mask in found.masks] == [mask.key for mask in named.masks]
    assert all(np.array_equal(a.weights, b.weights) for a, b in zip(found.masks, named.masks, strict=True))
    assert [note.split(":")[0] for note in found.notes] == ["t has no labels", "s has no labels"]
    assert named.notes == ()


def right(x: NDArray[np.float32], y: NDArray[np.int64]) -> int:
    """How many the model itself gets right, asked in a session of its own."""
    session = onnxruntime.InferenceSession(DIGITS, providers=["CPUExecutionProvider"])
    scores = session.run(None, {session.get_inputs()[0].name: x})[0]
    return int((scores.argmax(1) == y).sum())


@pytest.mark.parametrize(
    ("count", "wrong", "labelled", "noted"),
    [(200, 1, True, True), (200, 2, True, False), (199, 0, True, False), (400, 2, True, True), (200, 0, False, False)],
)
def test_a_select_part_that_the_model_knows_by_heart(count: int, wrong: int, labelled: bool, noted: bool) -> None:
    """Training samples, of which some labels were changed; without labels all are right, which tells nothing."""
    x, y = (each[200 : 200 + count] for each in training_arrays())
    y = np.where(np.arange(count) < wrong, (y + 1) % 10, y)
    assert right(x, y) == count - wrong
    recipe = Recipe(eps=EPS, budget=0.9, epochs=1, batch_size=60)
    found = learned(recipe, samples=learning_data(60), select=dataset(x, y if labelled else None, "s"))
    said = f"the model has {count - wrong} of {count} select samples right, so it may have been trained on them"
    assert any(note.startswith(said) and "--select-data" in note for note in found.notes) == noted
    assert len(found.notes) == noted + (not labelled)


def test_the_masks_of_eight_epochs_are_tried() -> None:
    """Evenly spaced, the last one among them."""
    found = learned(replace(QUICK, epochs=11, batch_size=150)).learning
    assert found is not None
    assert [entry["epoch"] for entry in found["curve"]] == [1, 3, 5, 7, 9, 11]


def test_a_fixed_batch_is_learned_on_in_whole_runs() -> None:
    """The model with its batch fixed at 4, on 60 samples: steps of 28 of them, what is left makes a smaller one."""
    proto = load_bytes(model().buf[:]).proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    recipe = Recipe(eps=EPS, budget=0.04, epochs=1, batch_size=28, learning_rate=0.05)
    options: dict[str, Any] = {"select": select_data(30), "over_budget": True}
    found, wanted = (
        learn(cpu(m), learning_data(60), recipe, **options) for m in (load_bytes(proto.SerializeToString()), model())
    )
    for mask, other in zip(found.masks, wanted.masks, strict=True):
        np.testing.assert_allclose(mask.weights, other.weights, atol=1e-3)
    assert learn(cpu(load_bytes(proto.SerializeToString())), learning_data(63), recipe, **options).samples.count == 93
    with pytest.raises(DataError, match="3 samples to learn on are fewer than the model's fixed batch of 4"):
        learn(cpu(load_bytes(proto.SerializeToString())), learning_data(3), recipe, **options)


def test_bad_taps() -> None:
    with pytest.raises(TapError, match=r"'/1/Relu' does not exist; did you mean '/1/Relu_output_0'"):
        learned(taps=["/1/Relu"])
    with pytest.raises(TapError, match=r"tap_patterns relu\* finds no tap"):
        learned(tap_patterns=["relu*"])


def test_layers_are_for_masks_on_weights_and_taps_for_those_at_activations() -> None:
    with pytest.raises(OptionError, match="layers chooses weights"):
        learned(replace(QUICK, granularity="feature"), layers=["*"])
    with pytest.raises(OptionError, match="taps and tap_patterns choose activations"):
        learned(replace(QUICK, granularity="kernel"), taps=["/1/Relu_output_0"])
    only = learned(replace(QUICK, granularity="kernel", epochs=1), layers=["*Gemm*"]).masks
    assert 0 < len(only) < len(learned(replace(QUICK, granularity="kernel", epochs=1)).masks)


@pytest.mark.parametrize("op", ["Hardmax", "Sign"])
def test_a_tap_without_gradient(op: str) -> None:
    """What rounds is passed straight through, which is said; a decision is not."""
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node(op, ["h"], ["s"]),
        helper.make_node("Gemm", ["s", "w"], ["logits"]),
    ]
    weights = onnx.numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [weights],
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    blocked = load_bytes(made.SerializeToString())
    data = dataset(np.random.default_rng(0).random((30, 4), np.float32), np.arange(30) % 3)
    data = type(data)(data.source, data.preprocessing, (4,), classes=3)
    if op == "Sign":
        found = learn(cpu(blocked), data, QUICK, taps=["h"], over_budget=True)
        assert any("gradients pass that straight through" in note for note in found.notes)
        return
    with pytest.raises(TapError, match="does not depend on tap 'h' in a way that can be differentiated: Hardmax"):
        learn(cpu(blocked), data, QUICK, taps=["h"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": 0}, "eps 0 must be above 0"),
        ({"eps": 2}, "eps 2 is wider than pixel space"),
        ({"budget": 4}, "budget 4 must be a share"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"bounds": (0.5, 0.9)}, "bounds 0.5,0.9"),
        ({"foldable": True, "zero_below": 0.1}, "foldable"),
        ({"warm_up": 2}, "warm_up"),
        ({"eps_factor": 0}, "eps_factor 0 must be above 0"),
        ({"shift": -1}, "shift -1 is negative"),
    ],
)
def test_bad_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        learned(Recipe(**({"eps": EPS, "budget": 0.04} | wrong)))


def test_the_former_name_of_a_granularity() -> None:
    with pytest.warns(FutureWarning, match="'channel' is named 'feature' now"):
        assert Recipe(eps=1, budget=0, granularity="channel").granularity == "feature"  # type: ignore[arg-type]
