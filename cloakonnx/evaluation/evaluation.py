"""What an evaluation found: counts, and the shares and intervals that follow from them.

The file is JSON; its schema is published as docs/evaluation.schema.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from cloakonnx.entries import OMITTED, At, Norm, Positive, Whole, derived
from cloakonnx.errors import DataError
from cloakonnx.evaluation.consistency import (
    check_clean,
    check_data,
    check_masks,
    check_model,
    check_norm,
    check_results,
    check_stated,
)
from cloakonnx.evaluation.per_sample import PerSample
from cloakonnx.evaluation.results import AtEps, DataRecord, MaskRecord, ModelRecord
from cloakonnx.evaluation.sanity.flags import Sanity
from cloakonnx.evaluation.verdict import Verdict, verdict
from cloakonnx.json_files import JsonFile, JsonRecord, installed_versions, read_text
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.statistics import CONFIDENCE, Accuracy, Paired, difference_cells, share_cell
from cloakonnx.text import eps_text, line, table, title

STATEMENT = (
    "A constant mask is known to the attacker; this is an empirical result under the named attacks, not a certificate."
)
"""Stands in every file, and below the numbers of a model with masks."""
_EMPIRICAL = "This is an empirical result under the named attacks, not a certificate."


@dataclass(frozen=True)
class Evaluation(JsonRecord):
    """An evaluation of a model, alone or beside a baseline.

    Attributes:
        model: The model.
        baseline: What it is compared with; None where it was evaluated alone.
        baseline_is_stripped: Whether the baseline is the model without its masks, taken out for the evaluation.
        masks: What the model carries.
        data: The samples.
        preprocessing: From pixel space to the model's input.
        attack: Name of the preset or of the attack, or several with commas between.
        norm: Norm of the eps balls.
        seed: Random seed.
        batch_size: Batch size.
        provider: The execution provider.
        control: Settings of the control attack, except eps.
        clean_hardened: Clean accuracy of the model.
        clean: Clean samples that the model (first) and the baseline (second) classify correctly; None without one.
        results: One for each eps.
        notes: What the attacks took instead of their own losses or targets or could not do, and what the labels and
            scores are not, in words.
        sanity: The sanity checks of the hardened model; None where they were not made.
        versions: Versions of the packages that decide the numbers.
        threads: Intra-op threads of each session; None for ONNX Runtime's own choice.
        classes: The number of classes; None in files of versions that did not record it.
        samples: What became of each sample; None in files of versions that did not record it.
        baseline_is_source: Whether the baseline is the model without its masks, named or taken out: inputs made on it
            and replayed are the static protocol then, and plain transfer between two models where it is not.

    Examples:
        >>> import cloakonnx as ck
        >>> samples = {"model": "samples/digits_cnn.onnx", "samples": "samples/digits_test_fgsm.npz"}
        >>> ck.evaluate(**samples, eps=0.01, attack="noise", sanity=False).attack
        'noise'
    """

    JSON_FILE: ClassVar[JsonFile] = JsonFile(
        "evaluation", 1, "evaluate", DataError, {"statement": STATEMENT, "confidence": CONFIDENCE}
    )

    model: ModelRecord
    baseline: ModelRecord | None
    baseline_is_stripped: bool
    masks: tuple[MaskRecord, ...]
    data: DataRecord
    preprocessing: Annotated[Mapping[str, Any], At(described=Preprocessing)]
    attack: str
    norm: Norm
    seed: Whole
    batch_size: Positive
    provider: str
    control: Mapping[str, Any]
    clean_hardened: Annotated[Accuracy, At("clean.hardened")]
    clean: Annotated[Paired | None, At("clean.difference")]
    results: Annotated[tuple[AtEps, ...], Meta(extra_json_schema={"minItems": 1})]
    notes: tuple[str, ...] = ()
    sanity: Sanity | None = None
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    threads: Annotated[Positive | None, OMITTED] = None
    classes: Annotated[Positive | None, OMITTED] = None
    baseline_is_source: Annotated[bool, OMITTED] = True
    samples: Annotated[PerSample | None, OMITTED] = None

    @property
    @derived("clean.baseline", before="clean")
    def clean_baseline(self) -> Accuracy | None:
        """Clean accuracy of the baseline; None without one."""
        pairs = self.clean
        return None if pairs is None else Accuracy(pairs.both + pairs.only_second, pairs.count)

    def as_written(self, eps: float) -> float:
        """Return a radius as it was written for the evaluation, if it is one of its own."""
        return next((each.eps for each in self.results if each.eps == eps), eps)

    @property
    def statement(self) -> str:
        """What people read below the numbers."""
        return STATEMENT if self.masks else _EMPIRICAL

    @property
    def replayed(self) -> str:
        """Name of the accuracy on inputs that were made on the baseline."""
        return "static" if self.baseline_is_source else "transfer"

    @property
    def columns(self) -> tuple[str, str]:
        """Names of the baseline and of the model in tables."""
        return ("before", "after") if self.baseline_is_source else ("baseline", "model")

    @property
    def sha256(self) -> str:
        """sha256 of the file's text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def verdict(self) -> Verdict:
        """What it shows, in words, by its paired 95% intervals."""
        return verdict(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return evaluation_html(self)

    def _check(self, stated: Mapping[str, Any]) -> None:
        """Check the counts against each other, and what the file states against the counts; raises ValueError."""
        if not self.results:
            raise ValueError("results is empty")
        check_model(self.model, "model")
        if self.baseline is not None:
            check_model(self.baseline, "baseline")
        check_masks(self.masks)
        check_data(self.data)
        check_norm(self.norm, "norm")
        if (self.clean is None) != (self.baseline is None):
            raise ValueError("baseline and clean.difference: one of them is null, the other is not")
        check_clean(self.clean_hardened, self.clean, self.data.count, where="clean")
        check_results(self.results, self.clean_hardened, self.clean, self.data.count, where="results")
        if self.samples is not None:
            self.samples.check(self.results, self.clean_hardened, where="samples")
        if self.sanity is not None:
            self.sanity.check()
        if self.sanity is not None and self.sanity.samples > self.clean_hardened.correct:
            raise ValueError(
                f"sanity.samples is {self.sanity.samples}, more than the {self.clean_hardened.correct} clean samples "
                "that the model gets right"
            )
        follows = self.as_dict()
        for key in ("confidence", "clean", "results"):
            check_stated(stated.get(key), follows[key], key)
        by_class = (stated.get("samples") or {}).get("per_class")
        if by_class is not None:
            check_stated(by_class, follows["samples"]["per_class"], "samples.per_class")


def load_evaluation(path: str | Path) -> Evaluation:
    """Read an evaluation's file.

    Raises:
        DataError: missing or damaged, or its numbers contradict each other.
    """
    return Evaluation.from_json(read_text(path, kind="evaluation", error=DataError), name=str(path))


def evaluation_html(found: Evaluation) -> str:
    """Return an evaluation as a piece of HTML."""
    judged = verdict(found)
    under = f"Attack: {found.attack} ({found.norm}). Data: {found.data.name}, n = {found.data.count}. Intervals: 95%."
    return "".join(
        (
            title(f"{judged.title}: {found.model.name}"),
            line(judged.sentence),
            *map(line, judged.caveats),
            _html_table(found),
            line(under),
            line(found.statement),
        )
    )


def _html_table(found: Evaluation) -> str:
    if found.clean is None or found.clean_baseline is None:
        alone = [("clean", share_cell(found.clean_hardened))]
        alone += [(f"robust at {eps_text(each.eps)}", share_cell(each.hardened.robust)) for each in found.results]
        return table(("", "accuracy"), alone)
    rows = [
        ("clean", share_cell(found.clean_baseline), share_cell(found.clean_hardened), *difference_cells(found.clean))
    ]
    for each in found.results:
        if each.beside is not None:
            before, after = share_cell(each.beside.baseline.robust), share_cell(each.hardened.robust)
            cells = difference_cells(each.beside.pairs)
            rows.append((f"robust at {eps_text(each.eps)} (adaptive)", before, after, *cells))
            replayed = f"{found.replayed} at {eps_text(each.eps)} (no claim)"
            rows.append((replayed, "", share_cell(each.beside.static), "", ""))
    return table(("", *found.columns, "difference, points", "p"), rows)
