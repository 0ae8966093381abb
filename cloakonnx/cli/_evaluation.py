"""An evaluation on the command line, opened and checked before it runs, so that several can be checked first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cloakonnx.cli._data import Data, warn_of_small_eps
from cloakonnx.cli._files import PATH
from cloakonnx.cli._gates import Gates
from cloakonnx.cli._output import announce, progress
from cloakonnx.cli._plan import Plan
from cloakonnx.cli._runs import Runs, warn_of_randomness
from cloakonnx.cli._shards import merges, own_samples
from cloakonnx.cli._verb import Group, option

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.classifier.latency import Latency
    from cloakonnx.data.samples import Dataset
    from cloakonnx.evaluation.estimate import Estimate
    from cloakonnx.evaluation.evaluation import Evaluation
    from cloakonnx.evaluation.gates import Decision, Gate
    from cloakonnx.graph.file.model import Model
    from cloakonnx.scoring.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class Beside(Group):
    """What the model is compared with, and where its masks come from."""

    baseline: Path | None = option(
        "--baseline", type=PATH, help="Model to compare with.  [MODEL without its masks, if it has any]"
    )
    analysis: Path | None = option(
        "--analysis",
        type=PATH,
        help="Analysis of the masks: reuses its preprocessing, and warns of samples that it was made with.",
    )

    adversarial: Path | None = option(
        "--adversarial",
        type=PATH,
        help="Inputs made elsewhere, in the order of --data or with an array index: they join the worst case.",
    )

    def load(self, model: Model, gates: Sequence[Gate]) -> tuple[Analysis | None, Model | None]:
        """Load the analysis and the baseline; raises OptionError where gates compare and there is no baseline."""
        from cloakonnx.evaluation.baseline import has_baseline
        from cloakonnx.evaluation.gates import check_compared
        from cloakonnx.graph.file.model import load
        from cloakonnx.scoring.analysis import load_analysis

        known = None if self.analysis is None else load_analysis(self.analysis, model=model.name)
        baseline = None if self.baseline is None else load(self.baseline)
        check_compared(gates, has_baseline=has_baseline(model, baseline))
        return known, baseline


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An evaluation whose files are open and whose options are checked.

    Attributes:
        classifier: The model, on the provider after :meth:`ready`.
        samples: The samples.
        other: The baseline that was named.
        known: The analysis of the masks.
        gates: What the result must show.
        plan: What it attacks with.
        runs: How models are run.
        sanity: Whether the sanity checks are made.
        adversarial: Inputs made elsewhere.
    """

    classifier: Classifier
    samples: Dataset
    other: Model | None
    known: Analysis | None
    gates: Sequence[Gate]
    plan: Plan
    runs: Runs
    sanity: bool
    adversarial: Path | None

    def ready(self) -> Self:
        """Return it with the model on the provider; warn of what makes its numbers doubtful."""
        warn_of_small_eps(self.plan.eps, self.samples)
        classifier = self.runs.ready(self.classifier)
        if not self.sanity:  # a flag of the sanity checks reports it otherwise
            warn_of_randomness(classifier)
        return replace(self, classifier=classifier)

    def check(self) -> None:
        """Check the attacks, models and inputs as :meth:`evaluated` does before it starts; raises CloakError."""
        from cloakonnx.data.loaded import check_labelled
        from cloakonnx.evaluation.adversarial import GivenInputs
        from cloakonnx.evaluation.baseline import check_alike
        from cloakonnx.evaluation.preparation import checked_plans, missing_labels

        checked_plans(self.samples, **self.plan.settings)
        check_labelled(self.samples, missing_labels(self.samples))
        _ = self.classifier.output_name  # one that is not there, or has to be named
        self.runs.asked_engine()
        if self.adversarial is not None:
            GivenInputs.of(self.adversarial, self.samples, self.classifier)
        if self.other is not None:
            check_alike(self.classifier, self._baseline())

    def _baseline(self) -> Classifier:
        assert self.other is not None
        return self.classifier.beside(self.other)

    def evaluated(self, **settings: Any) -> Evaluation:
        """Evaluate, and show how far it is; takes outputs, as :func:`cloakonnx.evaluate` does."""
        from cloakonnx.evaluation.evaluate import evaluate

        engine = self.runs.engine_for(self.classifier, self.samples)
        count = own_samples(self.samples.count(), self.runs.batch_size)
        what = f"evaluate, {self.plan.attack}"
        with progress(what, count, unit="samples", engine=engine) as advance:
            return evaluate(
                self.classifier,
                self.samples,
                **self.plan.settings,
                **settings,
                baseline=None if self.other is None else self._baseline(),
                analysis=self.known,
                adversarial=self.adversarial,
                sanity=self.sanity,
                batch_size=self.runs.batch_size,
                engine=engine,
                on_estimate=None if merges() else announce,
                on_progress=advance,
            )

    def estimated(self) -> Estimate:
        """Measure what the evaluation takes, without making it."""
        from cloakonnx.evaluation.preparation import Prepared

        prepared = Prepared.of(
            self.classifier,
            self.samples,
            **self.plan.settings,
            baseline=None if self.other is None else self._baseline(),
            adversarial=self.adversarial,
            batch_size=self.runs.batch_size,
            engine=self.runs.engine_for(self.classifier, self.samples),
        )
        return prepared.estimate(sanity=self.sanity, always=True)

    def check_latency(self) -> None:
        """Check that there is something to compare the latency with; raises OptionError."""
        from cloakonnx.errors import OptionError
        from cloakonnx.evaluation.baseline import has_baseline

        if not has_baseline(self.classifier.model, self.other):
            raise OptionError(
                f"{{latency}} compares with a baseline, and {self.classifier.model.name} is without masks that could "
                "be taken away; name one with {baseline}",
                parameter=("latency", "baseline"),
            )

    def timed(self, *, asked: bool) -> Latency | None:
        """Measure the latency where it is asked for, or a gate is about it, and show how far that is."""
        from cloakonnx.classifier.latency import MOST_SECONDS, SESSIONS
        from cloakonnx.evaluation.judging import asks_for_latency, timed

        is_judged = asks_for_latency(self.gates)
        if not (asked or is_judged):
            return None
        baseline, most = None if self.other is None else self._baseline(), None if is_judged else MOST_SECONDS
        with progress("latency", SESSIONS) as advance:
            return timed(self.classifier, baseline, most_seconds=most, on_progress=advance)

    def judged(self, found: Evaluation, latency: Latency | None = None) -> tuple[Decision, ...]:
        """Judge by the gates; measure the latency if one asks for it and it is not given."""
        if not self.gates:
            return ()
        from cloakonnx.evaluation.judging import judge

        latency = latency or self.timed(asked=False)
        baseline = None if self.other is None else self._baseline()
        return judge(found, self.gates, self.classifier, baseline=baseline, latency=latency)


def opened(model: Path, *, data: Data, beside: Beside, plan: Plan, runs: Runs, require: Gates, sanity: bool) -> Asked:
    """Open the files of an evaluation, and check its options against them; raises CloakError or UsageError."""
    from cloakonnx.graph.file.model import load

    gates = require.measured(plan.eps, sanity=sanity)
    loaded = load(model)
    known, other = beside.load(loaded, gates)
    runs = runs if known is None else runs.as_analysed(known.preprocessing)
    classifier = runs.classifier(loaded, data)
    return Asked(
        classifier=classifier,
        samples=data.samples(classifier),
        other=other,
        known=known,
        gates=gates,
        plan=plan,
        runs=runs,
        sanity=sanity,
        adversarial=beside.adversarial,
    )
