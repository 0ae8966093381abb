"""An evaluation as a CycloneDX 1.6 ML-BOM: the model, and its accuracy as metrics of a model card.

https://cyclonedx.org/docs/1.6/json/, machine-learning-model components. Merge the component into a BOM of your own, or
keep it beside that.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from cloakonnx.evaluation.coverage import coverage
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.json_files import json_text
from cloakonnx.statistics import Accuracy, Interval, newcombe_paired
from cloakonnx.text import eps_text

_SPACE = uuid.UUID("a3a9c2f8-7a0e-4c1d-9a53-0f6c0f2b6f2e")
"""Namespace of serial numbers: the same evaluation has the same one."""


def ml_bom(found: Evaluation) -> str:
    """Return the text of a BOM with the model, its metrics, and the baseline where there is one.

    Example:
        >>> import json
        >>> import cloakonnx as ck
        >>> samples = {"model": "samples/digits_cnn.onnx", "samples": "samples/digits_test_fgsm.npz"}
        >>> bom = json.loads(ml_bom(ck.evaluate(**samples, eps=0.01, attack="fgsm", sanity=False)))
        >>> [each["type"] for each in bom["components"]]
        ['machine-learning-model']
    """
    components = [_component(found.model.name, found.model.sha256, _card(found))]
    if found.baseline is not None and found.baseline.sha256 != found.model.sha256:
        metrics = list(_metrics_of_baseline(found))
        card = {"modelParameters": _parameters(found), "quantitativeAnalysis": {"performanceMetrics": metrics}}
        components.append(_component(found.baseline.name, found.baseline.sha256, card))
    made_by = {"type": "application", "name": "cloakonnx", "version": found.versions.get("cloakonnx", "unknown")}
    return json_text(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, found.sha256)}",
            "version": 1,
            "metadata": {"tools": {"components": [made_by]}},
            "components": components,
        }
    )


def _component(name: str, sha256: str, card: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model-{sha256}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "modelCard": card,
    }


def _card(found: Evaluation) -> dict[str, Any]:
    covered = coverage(found)
    limits = [found.statement, *found.verdict.caveats, *found.notes, *(str(each) for each in covered if not each.tried)]
    states = ((each, "tried" if each.tried else "not tried") for each in covered)
    return {
        "modelParameters": _parameters(found),
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(found))},
        "considerations": {"technicalLimitations": limits},
        "properties": [
            {"name": "cloakonnx:evaluation:sha256", "value": found.sha256},
            *(
                {"name": f"cloakonnx:{each.framework}:{each.id}", "value": f"{state}: {each.name} ({each.how})"}
                for each, state in states
            ),
        ],
    }


def _parameters(found: Evaluation) -> dict[str, Any]:
    digest = {"name": "sha256 of pixels and labels", "value": found.data.sha256}
    count = {"name": "samples", "value": str(found.data.count)}
    dataset = {"type": "dataset", "name": found.data.name, "contents": {"properties": [count, digest]}}
    return {"task": "classification", "datasets": [dataset]}


def _metrics(found: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield the model's accuracy: clean, under attack at each eps, and of each class."""
    yield _share("clean accuracy", found.clean_hardened)
    for at in found.results:
        yield _share("robust accuracy", at.hardened.robust, _ball(found, at.eps))
        if at.static is not None:
            made = "inputs made on the baseline, replayed: no evidence of robustness"
            yield _share(f"{found.replayed} accuracy", at.static, f"{_ball(found, at.eps)}, {made}")
    if found.clean is not None:
        yield _metric(
            "clean accuracy, difference to the baseline", found.clean.difference, newcombe_paired(found.clean)
        )
    for at in found.results:
        if at.pairs is not None:
            name = "robust accuracy, difference to the baseline"
            yield _metric(name, at.pairs.difference, newcombe_paired(at.pairs), _ball(found, at.eps))
    for each in () if found.samples is None else found.samples.per_class:
        label = f"class {each.label}" + (f" ({each.name})" if each.name else "")
        yield _share("clean accuracy", each.clean, label)
        for at, robust in zip(found.results, each.robust, strict=True):
            yield _share("robust accuracy", robust, f"{label}, {_ball(found, at.eps)}")


def _metrics_of_baseline(found: Evaluation) -> Iterator[dict[str, Any]]:
    if found.clean_baseline is not None:
        yield _share("clean accuracy", found.clean_baseline)
    for at in found.results:
        if at.baseline is not None:
            yield _share("robust accuracy", at.baseline.robust, _ball(found, at.eps))


def _ball(found: Evaluation, eps: float) -> str:
    return f"under {found.attack}, {found.norm} eps {eps_text(eps)}"


def _share(kind: str, share: Accuracy, part: str = "") -> dict[str, Any]:
    return _metric(kind, share.value, share.interval, part)


def _metric(kind: str, value: float, interval: Interval, part: str = "") -> dict[str, Any]:
    """Return a metric with its 95% interval; CycloneDX has numbers as texts."""
    bounds = {"lowerBound": f"{interval.low:.6f}", "upperBound": f"{interval.high:.6f}"}
    found: dict[str, Any] = {"type": kind, "value": f"{value:.6f}"}
    return {**found, **({"slice": part} if part else {}), "confidenceInterval": bounds}
