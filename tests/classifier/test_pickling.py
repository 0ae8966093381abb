"""A pickled classifier: a path and a digest, or the bytes of what has no file; everywhere the same predictions."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.preprocessing import Preprocessing
from tests.attacks.helpers import CPU, DIGITS, digits_arrays, flat

HOW = Preprocessing(mean=(0.1,), std=(0.5,))
TAP = "/6/Relu_output_0"
X, Y = (each[:30] for each in digits_arrays())


def half(features: int) -> np.ndarray[Any, Any]:
    return (np.arange(features) % 2).astype(np.float32)


def there_and_back(classifier: Classifier) -> Classifier:
    found = pickle.loads(pickle.dumps(classifier))
    assert type(found) is type(classifier)
    assert found.preprocessing == classifier.preprocessing
    assert found.asked_names == classifier.asked_names
    assert found.model.sha256 == classifier.model.sha256
    return found


def same(classifier: Classifier, found: Classifier) -> None:
    np.testing.assert_array_equal(found.scores(X), classifier.scores(X))
    np.testing.assert_array_equal(found.logits(X), classifier.logits(X))
    np.testing.assert_array_equal(found.gradient(X, Y), classifier.gradient(X, Y))
    assert found.provider == classifier.provider


def test_a_file_on_disk() -> None:
    classifier = Classifier(DIGITS, preprocessing=HOW, provider=CPU)
    same(classifier, there_and_back(classifier))  # sessions, which do not travel, are there by now
    same(classifier, there_and_back(classifier))
    assert len(pickle.dumps(classifier)) < 2000 < DIGITS.stat().st_size


def test_with_masks() -> None:
    classifier = Classifier(DIGITS, preprocessing=HOW, provider=CPU, masks=[Mask(TAP, half(64))])
    found = there_and_back(classifier)
    same(classifier, found)
    (mask,) = found.masks
    np.testing.assert_array_equal(mask.weights, half(64))
    assert np.abs(found.logits(X) - Classifier(DIGITS, preprocessing=HOW, provider=CPU).logits(X)).max() > 1


def test_masks_that_were_set_anew() -> None:
    classifier = Classifier(DIGITS, provider=CPU)
    masked = MaskedClassifier(classifier, [ones(find_tap(classifier.model, TAP))])
    masked.weights = {TAP: half(64)}
    found = there_and_back(masked)
    assert isinstance(found, MaskedClassifier)
    np.testing.assert_array_equal(found.weights[TAP], half(64))
    same(masked, found)


def test_a_model_in_memory() -> None:
    for model in (load_bytes(DIGITS.read_bytes()), hardened(load(DIGITS), [Mask(TAP, half(64))])):
        classifier = Classifier(model, preprocessing=HOW, provider=CPU)
        same(classifier, there_and_back(classifier))


def test_a_file_that_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(DIGITS, path)
    pickled = pickle.dumps(Classifier(path, provider=CPU))
    other = onnx.load(path)
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    path.unlink()
    onnx.save(other, path)
    with pytest.raises(ModelError, match=r"model\.onnx has changed since the classifier was pickled"):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(ModelError, match=r"no file .*model\.onnx"):
        pickle.loads(pickled)
    shutil.copy(DIGITS, path)
    np.testing.assert_array_equal(pickle.loads(pickled).predict(X), Classifier(DIGITS, provider=CPU).predict(X))


def test_names_and_what_is_not_chosen_yet() -> None:
    """A model whose input and output can't be told, and a provider that nobody has asked for."""
    made = flat(4)
    made.graph.output.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["N", 16]))
    model = load_bytes(made.SerializeToString())
    named = there_and_back(Classifier(model, input_name="x", output_name="scores"))
    assert (named.input_name, named.output_name) == ("x", "scores")
    unnamed = there_and_back(Classifier(model))
    with pytest.raises(ModelError, match="2 outputs"):
        _ = unnamed.output_name


def test_another_process(tmp_path: Path) -> None:
    classifier = Classifier(DIGITS, preprocessing=HOW, provider=CPU, masks=[Mask(TAP, half(64))])
    (tmp_path / "classifier").write_bytes(pickle.dumps(classifier))
    np.save(tmp_path / "x.npy", X)
    code = (
        "import pickle, numpy as np\n"
        "np.save('scores.npy', pickle.loads(open('classifier', 'rb').read()).scores(np.load('x.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), classifier.scores(X), rtol=1e-5)
