"""verify folds again and names what anyone changed in a folded model; evaluate asks for the source."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import ModelError
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.verification.verify import verify
from cloakonnx.graph.file.model import load
from cloakonnx.graph.fold.fold import fold_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from tests.attacks.helpers import DIGITS
from tests.evaluation.helpers import checked, failures, flip, statuses, weight, write
from tests.fixtures.models import TAP, mlp, write_external
from tests.support.classifiers import cpu

MASK = np.array([0, 1, 0.5, 2, 0, 1], np.float32)
HIDDEN = np.array([0.5, 1, 0.5, 2, 1, 1], np.float32)


def fold(path: Path, *masks: Mask) -> Path:
    target = path.with_name("folded.onnx")
    assert all(fate.folded for fate in fold_file(load(path), masks or [Mask(TAP, MASK)], target))
    return target


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "model.onnx", mlp())


def test_a_folded_model_passes(source: Path) -> None:
    made = fold(source, Mask(TAP, MASK), Mask("hidden", HIDDEN))
    found = checked(made, source)
    assert found.passed
    assert set(statuses(found).values()) == {"passed"}
    assert set(statuses(found)) == {"metadata", "source", "structure", "external data", "numbers"}


def test_masks_of_elements_that_fold_are_checked_too(tmp_path: Path) -> None:
    source = tmp_path / "digits.onnx"
    source.write_bytes(DIGITS.read_bytes())
    rng = np.random.default_rng(0)
    taps = {"/3/Relu_output_0": (32, 4, 4), "/6/Relu_output_0": (64,)}
    masks = [Mask(tap, rng.uniform(0.5, 1.5, shape).astype(np.float32), 1) for tap, shape in taps.items()]
    assert checked(fold(source, *masks), source).passed


def test_without_its_source_nothing_can_be_said(source: Path) -> None:
    with pytest.raises(
        ModelError, match="is folded, so its weights can only be checked by folding again; name the model"
    ):
        checked(fold(source))


def _bit(made: ModelProto) -> None:
    flip(weight(made, "w2"))


def _bit_elsewhere(made: ModelProto) -> None:
    flip(weight(made, "b1"), at=0)


def _mask(made: ModelProto) -> None:
    entry = next(each for each in made.metadata_props if each.key == "cloakonnx.folded")
    (fields,) = json.loads(entry.value)
    weights = np.frombuffer(base64.b64decode(fields["weights"]), "<f4").copy()
    weights[2] += np.float32(0.25)
    fields["weights"] = base64.b64encode(weights.tobytes()).decode()
    entry.value = json.dumps([fields], sort_keys=True, separators=(",", ":"))


def _node(made: ModelProto) -> None:
    made.graph.node[1].op_type = "Tanh"


def _name(made: ModelProto) -> None:
    made.graph.node[1].name = "other"


def _author(made: ModelProto) -> None:
    made.metadata_props.add(key="author", value="someone")


@pytest.mark.parametrize("change", [_bit, _bit_elsewhere, _mask, _node, _name, _author], ids=lambda each: each.__name__)
def test_changes_are_found(source: Path, change: Callable[[ModelProto], None]) -> None:
    path = fold(source)
    made = ModelProto.FromString(path.read_bytes())
    change(made)
    write(path, made)
    wrong = failures(checked(path, source))
    wanted = {
        _bit: "initializer 'w2' changed", _bit_elsewhere: "initializer 'b1' changed", _mask: "'w2' changed",
        _node: "Tanh node 'relu'", _name: "Relu node 'other'", _author: "metadata 'author' added",
    }[change]  # fmt: skip
    assert wanted in wrong["structure"]
    assert "source" not in wrong


def test_numbers_follow_the_change(source: Path) -> None:
    path = fold(source)
    made = ModelProto.FromString(path.read_bytes())
    _node(made)
    write(path, made)
    assert "of the tolerance" in failures(checked(path, source))["numbers"]


def test_another_source_fails(source: Path, tmp_path: Path) -> None:
    made = fold(source)
    other = mlp()
    flip(weight(other, "w1"))
    wrong = failures(checked(made, write(tmp_path / "other.onnx", other)))
    assert "is recorded" in wrong["source"] and "initializer 'w1' changed" in wrong["structure"]


@pytest.mark.parametrize("key", ["folded", "source_sha256", "version"])
def test_missing_metadata(source: Path, key: str) -> None:
    path = fold(source)
    made = ModelProto.FromString(path.read_bytes())
    made.metadata_props.remove(next(p for p in made.metadata_props if p.key == f"cloakonnx.{key}"))
    write(path, made)
    found = checked(path, source)
    assert statuses(found)["metadata"] == "failed" and statuses(found)["structure"] == "not checked"


def test_another_version_of_cloakonnx_is_no_change(source: Path) -> None:
    path = fold(source)
    made = ModelProto.FromString(path.read_bytes())
    next(p for p in made.metadata_props if p.key == "cloakonnx.version").value = "0.0.1"
    write(path, made)
    assert checked(path, source).passed


@pytest.mark.parametrize(("hashed", "said"), [(True, "is not as the metadata records it"), (False, "differs")])
def test_external_data(hashed: bool, said: str, tmp_path: Path) -> None:
    path = write_external(tmp_path)
    target = tmp_path / "there" / "folded.onnx"
    target.parent.mkdir()
    fold_file(load(path), [Mask(TAP, MASK)], target, hash_external=hashed)
    assert checked(target, path).passed
    (data,) = load(target).external_files
    raw = bytearray((target.parent / data).read_bytes())
    raw[-1] ^= 1
    (target.parent / data).write_bytes(raw)
    assert said in failures(checked(target, path))["external data"]


def test_evaluate_compares_with_a_named_baseline(source: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = ArraySource("data.npz", rng.random((8, 4), np.float32), np.arange(8) % 3)
    made = fold(source)
    arguments = {"attack": "fgsm", "eps": [0.1]}
    data = Dataset(pixels, Preprocessing(), input_shape(load(made)), classes=3)
    alone = evaluate(cpu(made), data, **arguments)  # type: ignore[arg-type]
    assert (alone.baseline, alone.clean, alone.masks) == (None, None, ())
    assert "is folded: its masks are in its weights and can't be taken out, so it is evaluated alone" in alone.notes[0]
    found = evaluate(cpu(made), data, baseline=cpu(source), **arguments)  # type: ignore[arg-type]
    assert found.masks[0].tap == TAP and found.results[0].random_masks, "the source carries the random masks"
    with pytest.raises(ModelError, match="carries no cloakonnx masks"):
        verify(cpu(source))
