r"""Which models work: every .onnx of some folders through gradients, scores, masks and the rest, as docs/models.md.

    python benchmarks/models.py FOLDER... > docs/models.md

Beside MODEL.onnx there may be MODEL.npz (x) and MODEL.json ({"output": name}); else inputs are random. Labels are the
model's own predictions. A folder with refused.json ({name: reason}) lists what was not exported. The columns are

- attack: a gradient that is not 0 (straight through: --straight-through, or by itself), or scores alone;
- agrees: how well it agrees with the change of the loss along a direction, 1 at best, from the best of three steps;
- torch: the relative error of the gradient of the logits by ``cotangent`` against torch's ``gradient`` in MODEL.npz
  (benchmarks/exports.py makes them), and torch's own in float32;
- FGSM: whether a step along the signs of the gradient raises the loss of both samples;
- score: the features of the default tap, or of the first other one, from two pairs: moved by FGSM, or by random signs;
- mask: that tap is hardened and stripped, to the byte;
- learn: the gradient of masks, on weights or at activations;
- evaluate: the hardened file beside itself without masks, else the bare model, by FGSM, or by Square on scores alone.

Seconds a model, and in all, go to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import table

import cloakonnx as ck
from cloakonnx.classifier.abilities import abilities
from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.errors import CloakError, DifferentiationError
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.index.index import FLOATS
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.records import Granularity
from cloakonnx.selection.learn.places import first_masks

PROVIDER = ck.Provider("CPUExecutionProvider", threads=1)
STEPS = (1e-2, 3e-3, 1e-3)
_FGSM = 0.01
"""Of the largest value of the samples: the step of FGSM."""
_NOISE = 0.25
"""Likewise, of random signs where there is no gradient: trees do not heed small steps."""
QUERIES = 10
"""Of Square."""
OPEN = {4: (3, 64, 64), 3: (32, 16), 2: (16,)}
"""Sizes of open dimensions behind the batch, by the rank of the input."""


_HEAD = """# Which models work

Made by `python benchmarks/models.py FOLDER...`. Every model of a folder is taken as it is, with two samples, random
where the folder has none, and its own predictions as labels. `cloakonnx inspect` says the same of one model, without
running it.

- **attack**: whether there is a gradient that is not 0; *straight through*: past rounding and quantisation, as if they
  were not there; *scores alone*: `--attack square`.
- **agrees**: how near the change of the loss along a direction is to what the gradient says, 1 at best; kinks (Relu,
  MaxPool) and float16 keep it below. Straight-through gradients are none of the model's own.
- **torch**: the relative error of the gradient against PyTorch's in float64, and that of PyTorch's own in float32 in
  brackets. Such models are made by `benchmarks/exports.py`; their names end in the exporter and the opset.
- **FGSM**: whether a step along the signs of the gradient raises the loss of both samples.
- **score**: whether `analyze` scores the features of the default tap, or of the first other one, from two pairs.
- **mask**: whether that tap is hardened and stripped again to the byte.
- **learn**: what the masks that `learn` takes are on.
- **evaluate**: whether the hardened file is evaluated beside itself without its masks, by FGSM (`--attack square` where
  there are scores alone); *bare*: the model as it is, because it takes no mask.

Weights of transformers' and timm's models are random. Gradients of lcnet and repvgg are then 1e-7 and 1e-17, below the
rounding of the loss, so no step shows; one Relu of mnasnet is at its kink in float32 (a sample moved by 1e-7 agrees).

Behind each table is why the rest does not work; what no attack takes is not evaluated, for the same reason. Several
data inputs, attacks on integers, several rows of scores a sample and outputs that are no class scores are refused by
name until they are built.
"""


def main() -> None:
    """Try every model and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parts, counts = [], []
    for folder in parser.parse_args().folders:
        found = {path.stem: tried(path) for path in sorted(folder.glob("*.onnx"))}
        counts.append([folder.name, str(len(found)), *_counted(list(found.values()))])
        against = any(each["torch"] for each in found.values())
        columns = [name for name in _COLUMNS if against or name != "torch"]
        rows = [[name, *(each[key] for key in columns[1:])] for name, each in found.items()]
        reasons = [f"- {name}: {why}" for name, each in found.items() for why in dict.fromkeys(each["why"])]
        beside = folder / "refused.json"
        refused = json.loads(beside.read_text()) if beside.exists() else {}
        reasons += [f"- {name} is not exported: {why}" for name, why in refused.items()]
        parts.append("\n".join([f"## {folder.name}\n", table(columns, rows), *(["", *reasons] if reasons else [])]))
    head = ["", "files", "gradients", "straight through", "scores alone", "no attack", *_WORKS]
    print(_HEAD, table(head, counts), *parts, sep="\n\n")


_COLUMNS = ["model", "attack", "agrees", "torch", "FGSM", "score", "mask", "learn", "evaluate"]


def _counted(found: list[dict[str, Any]]) -> list[str]:
    attacks = [each["attack"] for each in found]
    kinds = [attacks.count(kind) for kind in ("gradients", "straight through", "scores alone", "no")]
    works = [sum(each[key] not in _NOT for each in found) for key in _WORKS]
    return [str(count) for count in (*kinds, *works)]


_WORKS = ("score", "mask", "learn", "evaluate")
_NOT = {"", "no", "no layer", "no tap"}


def tried(path: Path) -> dict[str, Any]:
    """Return what works with a model, in words, and why the rest does not."""
    start = time.perf_counter()
    no = dict.fromkeys(("attack", *_WORKS), "no")
    found: dict[str, Any] = {**dict.fromkeys(_COLUMNS, ""), **no, "why": []}
    with tempfile.TemporaryDirectory() as folder:
        _try(found, lambda: _fill(found, path, Path(folder) / path.name))
    print(f"{path.name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    return found


def _try(found: dict[str, Any], step: Callable[[], None]) -> None:
    """Do a step, and note why it is refused; an error that is no refusal is noted with its type."""
    try:
        step()
    except CloakError as error:
        found["why"].append(_line(error))
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        found["why"].append(f"{type(error).__name__}: {_line(error)}")


def _fill(found: dict[str, Any], path: Path, hardened: Path) -> None:
    """Fill the columns, one after the other."""
    classifier, x = opened(path)
    tap = chosen_tap(classifier.model)
    gradients: list[Any] = []

    def mask() -> None:
        found["mask"] = "no tap" if tap is None else masked(classifier.model, tap, hardened)

    def attack() -> None:
        y = classifier.predict(x)
        gradients.extend(_attack(found, classifier, x, y))
        if gradients and found["attack"] == "gradients":
            _try(found, lambda: found.update(torch=against_torch(classifier, path.with_suffix(".npz"))))
        if found["attack"] != "no":
            kept = opened_again(hardened, classifier) if hardened.exists() else classifier
            by_scores = found["attack"] == "scores alone"
            _try(found, lambda: found.update(evaluate=evaluated(kept, x, y, by_scores=by_scores)))

    def score() -> None:
        found["score"] = scored(classifier, tap or find_tap(classifier.model), x, gradients)

    for step in (mask, attack, score):
        _try(found, step)


def _attack(found: dict[str, Any], classifier: ck.Classifier, x: Any, y: Any) -> list[Any]:
    """Fill the columns that are of gradients, and learn's; return the gradient where there is one."""
    gradients: list[Any] = []
    try:
        found["attack"], gradient = attacked(classifier, x, y)
        gradients.append(gradient)
        found["agrees"] = f"{agreement(classifier, x, y, gradient):.4f}" if found["attack"] == "gradients" else ""
        through = found["attack"] == "straight through"
        found["FGSM"] = "yes" if raised(classifier, x, y, gradient, straight_through=through) else "no"
        found["learn"] = learned(classifier, x)
    except DifferentiationError as error:
        able = abilities(classifier.model)[0]
        by_scores = found["attack"] == "no" and able.works
        found["attack"] = "scores alone" if by_scores else found["attack"]
        found["why"].append(_line(error) if able.works else able.how)
    except CloakError as error:
        found["why"].append(_line(error))
    return gradients


def opened(path: Path) -> tuple[ck.Classifier, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return a classifier and two samples."""
    model, beside = ck.load(path), path.with_suffix(".json")
    options = json.loads(beside.read_text()) if beside.exists() else {}
    floats = [value.name for value in model.inputs if value.type.tensor_type.elem_type in FLOATS]
    outputs = [value.name for value in model.proto.graph.output]
    scores = [name for name in outputs if name in model.structure.infos and model.structure.is_float(name)]
    output = options.get("output") or ((scores or outputs)[0] if len(scores) > 1 else None)
    name = options.get("input") or (floats or [value.name for value in model.inputs])[0]
    arrays = path.with_suffix(".npz")
    if arrays.exists():
        x = np.load(arrays)["x"][:2].astype(np.float32)
    else:
        declared = ck.Classifier(model, input_name=name, output_name=output).input_shape or ()
        guess = OPEN.get(len(declared) + 1, (8,) * len(declared))
        sizes = [d or size for d, size in zip(declared, guess, strict=False)]
        x = np.random.default_rng(0).random((2, *sizes)).astype(np.float32)
    pixels = ck.Preprocessing(bounds=(min(0.0, float(x.min())), max(1.0, float(x.max()))))
    return ck.Classifier(model, preprocessing=pixels, provider=PROVIDER, input_name=name, output_name=output), x


def opened_again(hardened: Path, like: ck.Classifier) -> ck.Classifier:
    """Return a classifier of a hardened file, with another's options."""
    name, output = like.asked_names
    pixels = like.preprocessing
    return ck.Classifier(hardened, preprocessing=pixels, provider=PROVIDER, input_name=name, output_name=output)


def attacked(classifier: ck.Classifier, x: Any, y: Any) -> tuple[str, Any]:
    """Return how there is a gradient, and the gradient."""
    try:
        found, how = classifier.answer(x, y, loss=Loss.CE.climbed), "gradients"
    except ck.CloakError as error:
        if "zero gradient" not in str(error):
            raise
        found, how = classifier.answer(x, y, loss=Loss.CE.climbed, straight_through=True), "straight through"
    gradient = np.asarray(found.gradient, np.float64)
    return (how if np.abs(gradient).max() > 0 else "all gradients 0"), gradient


def agreement(classifier: ck.Classifier, x: Any, y: Any, gradient: Any) -> float:
    """Return how near the loss's change along a direction is to what the gradient says, 1 at best."""
    rng = np.random.default_rng(1)
    direction = _unit(gradient) + 0.5 * _unit(rng.normal(size=gradient.shape))
    wanted = (gradient * direction).reshape(len(gradient), -1).sum(1)

    def loss(step: float) -> Any:
        moved = (x + step * direction).astype(np.float32)
        return np.asarray(classifier.answer(moved, y, loss=Loss.CE.climbed).loss, np.float64)

    errors = [np.abs((loss(h) - loss(-h)) / (2 * h) - wanted).max() / np.abs(wanted).max() for h in STEPS]
    return 1 - float(min(errors))


def raised(classifier: ck.Classifier, x: Any, y: Any, gradient: Any, *, straight_through: bool) -> bool:
    """Return whether a step along the signs raises the loss of every sample."""

    def loss(x: Any) -> Any:
        found = classifier.answer(x, y, loss=Loss.CE.climbed, straight_through=straight_through)
        return np.asarray(found.loss)

    step = _FGSM * float(np.abs(x).max())
    return bool((loss((x + step * np.sign(gradient)).astype(np.float32)) > loss(x)).all())


def against_torch(classifier: ck.Classifier, arrays: Path) -> str:
    """Return the relative error of the gradient by a cotangent against torch's, and that of torch's own float32."""
    given = np.load(arrays) if arrays.exists() else {}
    if "gradient" not in given:
        return ""
    found = np.asarray(classifier.vjp(given["x"].astype(np.float32), given["cotangent"].astype(np.float32)), np.float64)
    if not given["gradient"].any():
        return "both 0" if not found.any() else "torch's is 0"
    error = np.linalg.norm(found - given["gradient"]) / np.linalg.norm(given["gradient"])
    return f"{error:.0e} ({float(given['float32']):.0e})"


def chosen_tap(model: ck.Model) -> ck.Tap | None:
    """Return the default tap, or the first other one that has several features; None where there is none."""
    taps = [tap for tap in ck.taps(model) if tap.features is None or tap.features > 1]
    return next((tap for tap in taps if tap.is_default), next(iter(taps), None))


def scored(classifier: ck.Classifier, tap: ck.Tap, x: Any, gradients: list[Any]) -> str:
    """Score the features of a tap from pairs whose second half is moved along the gradient, else by random signs."""
    signs = np.sign(gradients[0]) if gradients else np.random.default_rng(2).choice((-1.0, 1.0), x.shape)
    step = (_FGSM if gradients else _NOISE) * float(np.abs(x).max())
    moved = np.clip(x + step * signs, *classifier.bounds).astype(np.float32)
    found = ck.analyze(classifier, ck.Pairs(x, moved), tap=tap.name).scores
    if found is None or not found.scores.any():
        raise CloakError(f"every score at {tap.name!r} is 0")
    return "yes"


def masked(model: ck.Model, tap: ck.Tap, hardened: Path) -> str:
    """Harden at the tap, strip again, and compare the bytes; the hardened file stays."""
    mask = ones(tap)
    weights = np.linspace(0.5, 1.5, mask.weights.size).astype(np.float32).reshape(mask.weights.shape)
    stripped = hardened.with_name("stripped.onnx")
    ck.apply(model, [replace(mask, weights=weights)], hardened)
    ck.strip(ck.load(hardened), stripped)
    same = model.path is not None and stripped.read_bytes() == model.path.read_bytes()
    return ("default" if tap.is_default else "named") + ("" if same else ", strip differs")


def evaluated(classifier: ck.Classifier, x: Any, y: Any, *, by_scores: bool) -> str:
    """Attack the model itself, and where it carries masks, itself without them."""
    eps = _FGSM * float(np.abs(x).max())
    attack: dict[str, Any] = {"attack": "square", "max_iter": QUERIES} if by_scores else {"attack": "fgsm"}
    found = ck.evaluate(classifier, (x, y), eps=eps, sanity=False, **attack)
    if ck.masks(classifier.model) and not (found.baseline_is_stripped and found.masks):
        raise CloakError("it was not compared with the model without masks")
    return "yes" if found.masks else "bare"


def learned(classifier: ck.Classifier, x: Any) -> str:
    """Build the gradient of masks on weights, else at activations."""
    wanted: tuple[tuple[Granularity, bool], ...] = (("weight", False), ("feature", False), ("feature", True))
    for granularity, at_default in wanted:
        try:
            taps = [find_tap(classifier.model).name] if at_default else []
            masks = first_masks(classifier.model, granularity, taps=taps)
        except CloakError:
            continue
        learner = MaskedClassifier(classifier, masks)
        learner.prepare_masks(Loss.CE, by_input=True, sample=x.shape[1:])
        return f"{granularity}s" + (", straight through" if learner.passes_straight else "")
    return "no layer"


def _unit(values: Any) -> Any:
    norms = np.linalg.norm(values.reshape(len(values), -1), axis=1)
    return values / np.maximum(norms, 1e-30).reshape(-1, *(1,) * (values.ndim - 1))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:240]


if __name__ == "__main__":
    main()
