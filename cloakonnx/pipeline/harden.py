"""Hardens a model in one go, and keeps every finished stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Unpack

from cloakonnx.attacks.ball import radii_of
from cloakonnx.attacks.presets import as_text, check_eps
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.company import check_batch_first
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.latency import Latency
from cloakonnx.data.samples import Dataset, SamplesLike
from cloakonnx.engine.batches import Engine
from cloakonnx.errors import NoGainError, OutputError
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.gates import Decision, parse_gate
from cloakonnx.evaluation.verdict import Verdict
from cloakonnx.evaluation.verification.signing import SigningKey
from cloakonnx.graph.file.companions import check_names, is_elsewhere
from cloakonnx.pipeline._hardening import Hardening, Silence
from cloakonnx.pipeline._hardening import Observer as Observer  # noqa: PLC0414 - public
from cloakonnx.pipeline._parts import part_data
from cloakonnx.pipeline._stages import Stages, places_of
from cloakonnx.pipeline.settings import HardenOptions, HardenSettings
from cloakonnx.pipeline.stage import PlannedStage, ResultFolder, WorkStage
from cloakonnx.remote import local
from cloakonnx.reporting.page import check_report
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.text import table


@dataclass(frozen=True)
class StageRun:
    """What became of a stage: whether its results were there."""

    name: str
    cached: bool


@dataclass(frozen=True)
class Hardened:
    """A hardened model, and what is known of it.

    Attributes:
        folder: Where everything is.
        analysis: What the masks come from.
        evaluation: Under attacks made on the hardened model.
        gates: What became of the gates.
        stages: What was done, and what was there.
        files: By what they are: ``model``, ``analysis``, ``evaluation``, ``attestation``, ``summary``, ``report``.
        split: How the data was split, in words; None where every part has its own file.
        latency: Of the hardened model and its source; None where it was left out.
    """

    folder: Path
    analysis: Analysis
    evaluation: Evaluation
    gates: tuple[Decision, ...]
    stages: tuple[StageRun, ...]
    files: Mapping[str, Path]
    split: str | None
    latency: Latency | None = None

    @property
    def verdict(self) -> Verdict:
        """What the evaluation comes to."""
        return self.evaluation.verdict

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the evaluation, the gates, and where the files are."""
        gates = [(each.gate, each.verdict, each.detail) for each in self.gates]
        return "".join(
            (
                self.evaluation._repr_html_(),
                table(("gate", "", "measured"), gates) if gates else "",
                table(("file", ""), [(what, str(path)) for what, path in self.files.items()]),
            )
        )

    def passed(self, *, allow_inconclusive: bool = False) -> bool:
        """Whether every gate passed."""
        allowed = {"pass", "inconclusive"} if allow_inconclusive else {"pass"}
        return all(each.verdict in allowed for each in self.gates)


class Task:
    """A hardening that can be planned and run.

    Args:
        classifier: The source.
        data: Labelled samples, fitted to it; split among the parts that have none of their own.
        settings: What is asked for.
        select: Samples to choose on.
        report: Samples to report on.
        output: The folder for the results.
        engine: Where batches are handled; None chooses for each stage.
        observer: Called with the progress.
        command: The command line that does it again, for the page.
        sign_key: What signs the attestation.

    Raises:
        DataError: no labels, or too few samples for a part.
        OptionError: radii that make no sense.
        ModelError, TapError: the model can't carry masks, or not there, or its external data has names that nothing is
            written under.
        OutputError: the folder can't be made, or another run works in it.
        MissingDependencyError: the page is wanted and Jinja2 is not installed.
    """

    def __init__(
        self,
        classifier: Classifier,
        data: Dataset,
        settings: HardenSettings,
        *,
        select: Dataset | None = None,
        report: Dataset | None = None,
        output: Path,
        engine: Engine | None = None,
        observer: Observer | None = None,
        command: str | None = None,
        sign_key: SigningKey | None = None,
    ) -> None:
        if settings.report:
            check_report()
        check_batch_first(classifier, "harden")
        self._folder = ResultFolder(output)
        self._folder.check_place()
        bounds, shape = data.preprocessing.bounds, data.sample_shape
        check_eps(settings.eps, norm=settings.norm, bounds=bounds, shape=shape)
        places_of(classifier.model, settings)
        if is_elsewhere(classifier.model, output):
            check_names(classifier.model, classifier.model.external_files)
        amount = settings.amount
        parts = part_data(
            data,
            select,
            report,
            strata=classifier.task.strata,
            learn_most=amount.learn_most,
            report_most=amount.report_most,
            seed=settings.seed,
        )
        self.split = parts.split
        self._observer = observer or Silence()
        self._stages = Stages(
            Hardening(
                classifier,
                parts,
                settings,
                self._folder,
                engine=engine,
                observer=self._observer,
                command=command,
                sign_key=sign_key,
            )
        )

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The folder, and every file that it may write there."""
        stages = (*self._stages.all, *self._stages.without_gain())
        names = dict.fromkeys(name for stage in stages for name in stage.writes)
        return (self._folder.path, *map(self._folder.file, names))

    def plan(self, *, force: bool = False) -> tuple[PlannedStage, ...]:
        """Say what would be done and about how long it takes, without doing it.

        Raises:
            OutputError: the folder holds results of other settings and ``force`` was not given.
        """
        stages = self._stages.all
        done = self._folder.check(stages, force=force)
        planned = []
        for stage in stages:
            cached = stage.name in done
            found = None if cached or stage.seconds is None else stage.seconds()
            at_most, expected = (None, None) if found is None else found
            planned.append(PlannedStage(stage.name, cached, at_most, expected, stage.writes))
        return tuple(planned)

    def run(self, *, force: bool = False) -> Hardened:
        """Do what is not done yet.

        An interrupt leaves finished stages, and what learning and evaluation have got through: the next run goes on.

        Args:
            force: Whether results of other settings may be overwritten.

        Raises:
            OutputError: the folder holds such results, or can't be written.
            NoGainError: no masks within the budget gain; the folder has an evaluation and a page of the source.
            CheckError: the hardened model fails verification.
            CloakError: as the stages do.
        """
        stages, folder = self._stages.all, self._folder
        folder.check([*stages, *self._stages.without_gain()], force=force)
        runs = []
        with folder.opened():
            for number, stage in enumerate(stages, 1):
                cached = folder.is_done(stage)
                self._observer.stage(stage.name, number, len(stages), cached=cached)
                if not cached:
                    try:
                        self._done(stage)
                    except NoGainError as error:
                        self._report_source(error)
                        raise
                runs.append(StageRun(stage.name, cached))
        found = self._stages.evaluation()
        gates, latency = self._stages.decisions(found), self._stages.latency()
        self._stages.forget_doubtful(gates)
        return Hardened(
            folder=folder.path,
            analysis=self._stages.analysis(),
            evaluation=found,
            gates=gates,
            stages=tuple(runs),
            files=self._stages.files(),
            split=self.split,
            latency=latency,
        )

    def _done(self, stage: WorkStage) -> None:
        """Run a stage and put it on record."""
        resumed = self._folder.begin(stage)
        self._folder.finish(stage, stage.run(resumed))

    def _report_source(self, error: NoGainError) -> None:
        """Evaluate the source alone, where no masks gain: what it is worth is known then, at least."""
        evaluated, shown = self._stages.without_gain(error)
        if not self._folder.is_done(evaluated):
            self._observer.say("no masks gain; evaluates the source alone")
            self._done(evaluated)
        if not self._folder.is_done(shown):
            self._done(shown)
        self._observer.say(f"wrote {', '.join((*evaluated.writes, *shown.writes))} to {self._folder.path}")


def harden(
    model: ModelLike,
    samples: SamplesLike,
    *,
    eps: float | Sequence[float],
    select_data: SamplesLike | None = None,
    report_data: SamplesLike | None = None,
    output: str | PathLike[str] | None = None,
    force: bool = False,
    engine: Engine | None = None,
    observer: Observer | None = None,
    sign_key: SigningKey | None = None,
    **settings: Unpack[HardenOptions],
) -> Hardened:
    """Harden a model in one go: masks within a budget, the hardened file, its verification, evaluation and report.

    Args:
        model: The classifier; or a model or the path of one, that takes pixels.
        samples: Labelled samples (:class:`cloakonnx.Samples`). Split 40/20/40 into samples to learn or score on, to
            choose on, and to report on; parts with samples of their own take no share.
        eps: Radius of the ball in pixel space; of several the first is what masks are made against, all are reported.
        select_data: Samples to choose on.
        report_data: Samples to report on.
        output: The folder for the results; ``MODEL-hardened`` beside the model where None.
        force: Whether to overwrite results of other settings in it.
        engine: Where batches are handled; None chooses for each stage.
        observer: Called with the progress.
        sign_key: What signs the attestation, of :func:`cloakonnx.keys.load_signing_key`.
        settings: ``require``: gates, such as ``robust-gain>=5%@2/255``. ``budget``: clean accuracy that
            may be lost on the select part, as a share (0.04: 4 points). ``method``: ``learn`` masks on the weights or
            at activations, select features of one tap with ``greedy``, or
            take away those that ``score`` highest by DeepCloak's criterion, as many as the budget allows. ``preset``:
            ``full``, or ``quick``, which takes at most 2,000 samples, 4 epochs, 200 samples to report on, one radius.
            ``attack``: of the evaluation, ``quick``, ``standard``, an attack's name, or several in a list. ``norm`` of
            the balls. ``taps``: activations to mask; the method's own choice where empty. ``granularity``: what one
            number of a learned mask multiplies, as in :class:`cloakonnx.Recipe`. ``layers``: for masks on weights,
            globs over the names of weights and layers. ``parts`` of each step of learning, as in
            :class:`cloakonnx.Recipe`. ``fold``: whether masks go into weights where that is exact. ``report``: whether
            to write the page, which needs Jinja2. ``latency``: whether to time the hardened model beside its source,
            some seconds; page and summary show it. ``seed``, ``batch_size``.

    Returns:
        The result: its ``verdict``, ``evaluation``, ``analysis``, ``gates`` and the ``files`` that were written.

    Raises:
        CheckError: no masks within the budget gain, or the hardened model fails verification.
        CloakError: bad input; its children say which.

    Examples:
        >>> import tempfile
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=200)
        >>> options = {"eps": 1 / 16, "preset": "quick", "method": "score", "attack": "fgsm", "budget": 0.2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = ck.harden("samples/digits_cnn.onnx", data, output=folder, report=False, **options)
        >>> done.evaluation.results[0].eps
        0.0625
    """
    clf = classifier_of(model)
    if output is None and clf.model.path is None:
        raise OutputError(
            f"{clf.name} is in memory, so there is no folder beside it: name one with {{output}}", parameter="output"
        )

    def fitted(part: SamplesLike | None) -> Dataset | None:
        return None if part is None else Dataset.of(part, clf)

    gates = tuple(map(parse_gate, settings.pop("require", ())))
    attack = as_text(settings.pop("attack", HardenSettings.attack))
    return Task(
        clf,
        Dataset.of(samples, clf),
        HardenSettings(
            eps=radii_of(eps),
            gates=gates,
            attack=attack,
            **settings,  # type: ignore[misc, arg-type]
        ),
        select=fitted(select_data),
        report=fitted(report_data),
        output=default_folder(clf.model.path or Path()) if output is None else local(output, writes=True),
        engine=engine,
        observer=observer,
        sign_key=sign_key,
    ).run(force=force)


def default_folder(model: Path) -> Path:
    """Return where results go: ``MODEL-hardened`` beside ``MODEL.onnx``."""
    return model.with_name(f"{model.stem}-hardened")
