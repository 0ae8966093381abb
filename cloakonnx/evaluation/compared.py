"""The comparison of two models as work on batches, and what its results depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.engine.batches import Tell
from cloakonnx.evaluation.adversarial import GivenInputs
from cloakonnx.evaluation.comparison import Comparison
from cloakonnx.evaluation.outcomes import Found
from cloakonnx.evaluation.samples import MOST
from cloakonnx.graph.file.diff import external_digests
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.strip import found_masks
from cloakonnx.json_files import installed_versions


@dataclass(frozen=True)
class Conditions:
    """What every comparison of a run shares.

    Attributes:
        plans: The attacks, one plan for each eps.
        norm: Norm of the eps balls.
        seed: Random seed.
        sample: Shape of a sample in the model's layout.
    """

    plans: tuple[tuple[Attack, ...], ...]
    norm: Literal["linf", "l2"]
    seed: int
    sample: tuple[int, ...]

    def comparison(self, model: Victim, baseline: Victim | None, shuffled: Sequence[Victim]) -> Comparison:
        """Return a comparison of a model with a baseline, or of none, beside some with random masks."""
        return Comparison(model, baseline, shuffled, self.plans, norm=self.norm, seed=self.seed)

    def record(self, classifier: Classifier, control: dict[str, Any], control_masks: int) -> dict[str, Any]:
        """Return what results depend on beside models, masks and samples."""
        return {
            "plans": [[settings.record() for settings in attacks] for attacks in self.plans],
            "control": control,
            "control_masks": control_masks,
            "seed": self.seed,
            "input": classifier.input_name,
            "output": classifier.output_name,
            "preprocessing": asdict(classifier.preprocessing),
            "versions": installed_versions(),
            **classifier.record,
        }


@dataclass(frozen=True)
class ComparisonWork:
    """A model, its baseline where there is one, and models with random masks under the same attacks.

    Attributes:
        model: The model.
        baseline: What it is compared with; None where it is evaluated alone.
        shuffled: Models whose masks remove as many features at random.
        conditions: The attacks.
        is_stripped: Whether the baseline is the model without its masks.
        keeps_turned: Whether samples that are gained and lost are kept.
        keeps_won: Whether every input that wins against the model is kept.
        given: Inputs made elsewhere, which are tried on each model.
    """

    model: Classifier
    baseline: Classifier | None
    shuffled: tuple[Classifier, ...]
    conditions: Conditions
    is_stripped: bool
    keeps_turned: bool
    keeps_won: bool = False
    given: GivenInputs | None = None

    @property
    def result(self) -> type[Found]:
        """The type of a batch's result."""
        return Found

    @property
    def record(self) -> dict[str, Any]:
        """Everything that results depend on beside the samples."""
        control = self.comparison().control_settings()
        return {
            "model": model_digests(self.model.model),
            "baseline": self._baseline_record,
            **self.conditions.record(self.model, control, len(self.shuffled)),
            **({"samples": MOST} if self.keeps_turned else {}),
            **({"won": True} if self.keeps_won else {}),
            **({} if self.given is None else {"given": self.given.sha256}),
        }

    @property
    def _baseline_record(self) -> str | dict[str, str] | None:
        if self.baseline is None:
            return None
        return "stripped" if self.is_stripped else model_digests(self.baseline.model)

    def start(self, worker: int = 0) -> Callable[[LabelledBatch, Tell], Found]:
        """Return what evaluates a batch."""
        comparison = self.comparison(worker)

        def on(batch: LabelledBatch, tell: Tell) -> Found:
            self.model.task.check(batch.y, self.model.classes)
            return comparison.on(batch, tell, keep_turned=self.keeps_turned, keep_won=self.keeps_won, given=self.given)

        return on

    def comparison(self, worker: int = 0) -> Comparison:
        """Return the comparison, in the sessions of a worker."""

        def victim(classifier: Classifier) -> Victim:
            return Victim(classifier.for_worker(worker), self.conditions.sample)

        beside = None if self.baseline is None else victim(self.baseline)
        return self.conditions.comparison(victim(self.model), beside, [victim(each) for each in self.shuffled])


def model_digests(model: Model) -> dict[str, str]:
    """Return the sha256 of a model's file, of each file of external data, and of each mask: one in memory has them."""
    masks = {f"mask of {m.key}": hashlib.sha256(m.weights.tobytes()).hexdigest() for m in found_masks(model)[0]}
    return {model.name: model.sha256, **external_digests(model), **masks}
