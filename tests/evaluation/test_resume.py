"""An interrupted evaluation, resumed: the same bytes as one that ran through, and errors where it can't go on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import DataError, InferenceError, OptionError, OutputError
from cloakonnx.evaluation.comparison import Comparison
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.support.classifiers import cpu

COUNT, SIZE = 22, 4
OPTIONS: dict[str, Any] = {
    "eps": (1 / 16, 2 / 16),
    "attack": "pgd",
    "max_iter": 3,
    "batch_size": SIZE,
    "sanity": False,
}


@pytest.fixture(scope="module")
def model() -> Model:
    removed = np.ones(64, np.float32)
    removed[[3, 17, 40, 41]] = 0
    return hardened(load(DIGITS), [Mask("/6/Relu_output_0", removed)])


def dataset(model: Model, *, changed: int | None = None, label: int | None = None, count: int = COUNT) -> Dataset:
    x, y = (values[:count].copy() for values in digits_arrays())
    if changed is not None:
        x[changed] = x[changed, ..., ::-1]
    if label is not None:
        y[label] = (y[label] + 1) % 10
    return Dataset(ArraySource("digits.npz", x, y), Preprocessing(), input_shape(model), classes=10)


def stopper(after: int, error: type[BaseException]) -> Callable[[float], None]:
    def on_progress(samples: float) -> None:
        if samples >= after:
            raise error("stop")

    return on_progress


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output: Path = tmp_path_factory.mktemp("whole") / "r.json"
    found = evaluate(cpu(model), dataset(model), output=output, **OPTIONS)
    assert list(output.parent.iterdir()) == [output]
    assert output.read_text(encoding="utf-8") == found.to_json()
    assert evaluate(cpu(model), dataset(model), **OPTIONS).to_json() == found.to_json()
    return output.read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, InferenceError])
def test_resumed_twice_it_ends_with_the_same_bytes(
    model: Model, whole: bytes, tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "r.json"
    rng = random.Random(error.__name__)
    for least, most in ((1, COUNT // 2), (COUNT // 2 + 1, COUNT)):
        with pytest.raises(error):
            evaluate(
                cpu(model),
                dataset(model),
                output=output,
                resume=True,
                on_progress=stopper(rng.randint(least, most), error),
                **OPTIONS,
            )
        assert [each.name for each in tmp_path.iterdir()] == [".r.json.parts"]
    asked: list[int] = []
    real = Comparison.on
    monkeypatch.setattr(
        "cloakonnx.evaluation.comparison.Comparison.on",
        lambda self, batch, *rest, **options: asked.append(len(batch.x)) or real(self, batch, *rest, **options),
    )
    evaluate(cpu(model), dataset(model), output=output, resume=True, **OPTIONS)
    assert sum(asked) < COUNT // 2  # what was done is not done again
    assert output.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [output]


def test_interrupted_in_the_sanity_checks(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**OPTIONS, "eps": (2 / 16,), "max_iter": 1, "sanity": True}
    straight, output = tmp_path / "straight.json", tmp_path / "r.json"
    found = evaluate(cpu(model), dataset(model), output=straight, **options)
    assert found.sanity is not None
    assert found.sanity.samples > COUNT / 2

    def stop(*arguments: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cloakonnx.evaluation.evaluate.check", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(cpu(model), dataset(model), output=output, **options)
    monkeypatch.setattr("cloakonnx.evaluation.comparison.Comparison.on", stop)  # every batch is done
    evaluate(cpu(model), dataset(model), output=output, resume=True, **options)
    assert output.read_bytes() == straight.read_bytes()


def interrupted(model: Model, output: Path) -> list[str]:
    with pytest.raises(KeyboardInterrupt):
        evaluate(cpu(model), dataset(model), output=output, on_progress=stopper(SIZE * 2, KeyboardInterrupt), **OPTIONS)
    return left(output)


def left(output: Path) -> list[str]:
    return sorted(each.name for each in (output.parent / f".{output.name}.parts").iterdir())


def test_damage_is_done_again(model: Model, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    assert interrupted(model, output) == ["000000.npz", "000001.npz", "settings.json"]
    part = tmp_path / ".r.json.parts" / "000001.npz"
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    evaluate(cpu(model), dataset(model), output=output, resume=True, **OPTIONS)
    assert output.read_bytes() == whole


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "control, plans, seed"),
        ({"attack": "apgd-ce"}, "plans"),
        ({"eps": (1 / 16,)}, "plans"),
        ({"batch_size": 5}, "batch_size"),
        ({"baseline": cpu(DIGITS)}, "baseline"),
    ],
)
def test_with_other_settings(model: Model, tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    before = interrupted(model, tmp_path / "r.json")
    with pytest.raises(OutputError, match=rf"left by an evaluation with other settings \({named}\)"):
        evaluate(cpu(model), dataset(model), output=tmp_path / "r.json", resume=True, **{**OPTIONS, **changed})
    assert left(tmp_path / "r.json") == before


def test_with_another_model_or_version(model: Model, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    interrupted(model, output)
    other = hardened(load(DIGITS), [Mask("/6/Relu_output_0", np.r_[np.zeros(4), np.ones(60)].astype(np.float32))])
    with pytest.raises(OutputError, match=r"other settings \(model\)"):
        evaluate(cpu(other), dataset(other), output=output, resume=True, **OPTIONS)
    settings = tmp_path / ".r.json.parts" / "settings.json"
    record = json.loads(settings.read_text())
    record["versions"]["onnxruntime"] = "1.0.0"
    settings.write_text(json.dumps(record, sort_keys=True))
    with pytest.raises(OutputError, match=r"other settings \(versions\)"):
        evaluate(cpu(model), dataset(model), output=output, resume=True, **OPTIONS)


@pytest.mark.parametrize("changed", [{"changed": 0}, {"changed": 5}, {"label": 6}])
def test_with_other_samples(model: Model, whole: bytes, tmp_path: Path, changed: dict[str, int]) -> None:
    output = tmp_path / "r.json"
    before = interrupted(model, output)
    with pytest.raises(DataError, match=r"digits\.npz has other samples than an evaluation that is resumed"):
        evaluate(cpu(model), dataset(model, **changed), output=output, resume=True, **OPTIONS)
    assert left(output) == before
    evaluate(cpu(model), dataset(model), output=output, resume=True, **OPTIONS)
    assert output.read_bytes() == whole


def test_without_resume_it_starts_again(model: Model, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    interrupted(model, output)
    settings = tmp_path / ".r.json.parts" / "settings.json"
    settings.write_text("{}")
    evaluate(cpu(model), dataset(model), output=output, **OPTIONS)
    assert output.read_bytes() == whole


def test_bad_input_leaves_nothing(model: Model, tmp_path: Path) -> None:
    data = dataset(model)
    assert isinstance(data.source, ArraySource)
    data.source.x[13, 0, 0, 0] = 1.5
    with pytest.raises(DataError, match="sample 13"):
        evaluate(cpu(model), data, output=tmp_path / "r.json", **OPTIONS)
    with pytest.raises(OptionError, match="eps 8"):
        evaluate(cpu(model), dataset(model), output=tmp_path / "r.json", **{**OPTIONS, "eps": (8.0,)})
    assert not list(tmp_path.iterdir())
