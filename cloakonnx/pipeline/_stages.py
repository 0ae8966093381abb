"""The stages of a hardening, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import of_randomness
from cloakonnx.classifier.latency import Latency
from cloakonnx.classifier.masked import ones
from cloakonnx.classifier.relabelled import first_data_doubt
from cloakonnx.engine.folder import forget
from cloakonnx.errors import CheckError, NoGainError, ZeroGradientError
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import Evaluation, load_evaluation
from cloakonnx.evaluation.gates import Decision, check_gates
from cloakonnx.evaluation.preparation import estimate_of_masks
from cloakonnx.evaluation.verification.attestation import attest
from cloakonnx.evaluation.verification.verify import verify
from cloakonnx.graph.file.diff import file_sha256
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.fold.fold import fold_file
from cloakonnx.graph.index.randomness import random_ops
from cloakonnx.graph.masks.harden import Watch, harden_file
from cloakonnx.graph.masks.insert import check_opset
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.pipeline import _masks as masks
from cloakonnx.pipeline import _views as views
from cloakonnx.pipeline._hardening import Hardening
from cloakonnx.pipeline.settings import HardenSettings
from cloakonnx.pipeline.stage import BESIDE, Duration, WorkStage
from cloakonnx.reporting.tables import converged_lines
from cloakonnx.scoring.analysis import Analysis, load_analysis, masks_path
from cloakonnx.selection.greedy.within import within_budget
from cloakonnx.selection.learn.places import first_masks
from cloakonnx.selection.learn.settled import placed
from cloakonnx.selection.topk import select

HARDENED, ANALYSIS, EVALUATION = "hardened.onnx", "analysis.cloak.json", "evaluation.json"
ATTESTATION = "attestation.json"


def places_of(model: Model, settings: HardenSettings) -> list[Mask]:
    """Return where a hardening masks a model: masks of 1.

    Raises:
        ModelError, TapError: it can't carry masks, or not there.
    """
    check_opset(model)
    if settings.method == "learn":
        granularity = placed(settings.granularity, at_taps=bool(settings.taps))
        return first_masks(model, granularity, taps=settings.taps, layers=settings.layers)
    tap = find_tap(model, settings.tap)
    return [ones(tap)] if tap.features else []


class Stages:
    """The stages of one hardening.

    Args:
        work: What they work with.
    """

    def __init__(self, work: Hardening) -> None:
        self._work = work
        self._source = work.source_record()
        running = {"source": self._source, **work.running_record(work.parts.learn.data)}
        settings, parts = work.settings, work.parts
        attacked = {
            **running,
            "report": parts.report.digest,
            "eps": settings.radii,
            "attack": settings.attack,
            "norm": settings.norm,
            "seed": settings.seed,
            "batch_size": settings.batch_size,
            **({} if settings.max_iter is None else {"max_iter": settings.max_iter}),
            **work.threads_record(work.engine_for(parts.report.data)),
        }
        self._attacks = attacked
        self.all: list[WorkStage] = [
            WorkStage("inspect", self._inspect, settings={"source": self._source, **settings.places}),
            WorkStage(
                settings.method,
                self._analyse,
                settings={
                    **running,
                    **masks.method_record(work),
                    **settings.places,
                    "learn": parts.learn.digest,
                    "select": parts.select.digest,
                },
                writes=(ANALYSIS,),
                choice={} if settings.method == "score" else {"budget": settings.budget},
                seconds=(lambda: Duration(masks.seconds(work))) if settings.method == "learn" else None,
            ),
            WorkStage(
                "apply",
                self._apply,
                settings={
                    "source": self._source,
                    "fold": settings.fold,
                    **(
                        {"budget": settings.budget, "select": parts.select.digest} if settings.method == "score" else {}
                    ),
                },
                reads=(ANALYSIS,),
                writes=(HARDENED,),
            ),
            WorkStage("verify", self._verify, settings=running, reads=(ANALYSIS, HARDENED)),
            WorkStage(
                "evaluate",
                self._evaluate,
                settings=attacked,
                reads=(ANALYSIS, HARDENED),
                writes=(EVALUATION, views.SAMPLES),
                seconds=self._evaluation_seconds,
            ),
        ]
        measured: list[str] = []
        if settings.latency:
            measured.append(work.folder.record(views.TIMED))
            timed = {**running, "for_gate": settings.is_latency_judged}
            self.all.append(WorkStage(views.TIMED, self._latency, settings=timed, reads=(HARDENED,)))
        signer = {} if work.sign_key is None else {"signed_by": work.sign_key.keyid}
        self.all.append(
            WorkStage(
                "attest",
                self._attest,
                settings={**self._attested_settings(), **signer},
                reads=(ANALYSIS, HARDENED, EVALUATION),
                writes=(ATTESTATION,),
            )
        )
        self.all.append(
            WorkStage(
                "report",
                self._report,
                settings={"gates": [gate.text for gate in settings.gates], "command": work.command},
                reads=(ANALYSIS, HARDENED, EVALUATION, views.SAMPLES, *measured),
                writes=(views.SUMMARY, views.REPORT) if settings.report else (views.SUMMARY,),
                is_view=True,
            )
        )

    def without_gain(self, error: NoGainError | None = None) -> tuple[WorkStage, ...]:
        """Return the stages where no masks gain: the source evaluated by itself, and a page with what was tried."""
        evaluated = WorkStage(
            "source",
            self._evaluate_source,
            settings=self._attacks,
            writes=(views.SOURCE_EVALUATION,),
            is_view=True,  # made again for every other setting
        )
        tried = () if error is None else (str(error), *error.tried)

        def write(resumed: bool) -> Mapping[str, Any]:
            views.write_source_views(self._work, tried)
            return {}

        shown = WorkStage(
            "source-report",
            write,
            settings={"command": self._work.command, "tried": tried},
            reads=(views.SOURCE_EVALUATION,),
            writes=(views.SOURCE_SUMMARY, views.SOURCE_REPORT)
            if self._work.settings.report
            else (views.SOURCE_SUMMARY,),
            is_view=True,
        )
        return evaluated, shown

    def decisions(self, found: Evaluation) -> tuple[Decision, ...]:
        """Judge the evaluation by the gates."""
        timed = self.latency()
        return check_gates(found, self._work.settings.gates, latency=None if timed is None else timed.ratios)

    def forget_doubtful(self, decisions: Sequence[Decision]) -> None:
        """Have the latency measured again next time if it did not pass: the machine may be quieter then."""
        for gate, decision in zip(self._work.settings.gates, decisions, strict=True):
            if gate.name == "latency-ratio" and decision.verdict != "pass":
                self._work.folder.forget(views.TIMED)

    def files(self) -> dict[str, Path]:
        """Return where the results are, by what they are."""
        named = {
            "model": HARDENED,
            "analysis": ANALYSIS,
            "evaluation": EVALUATION,
            "samples": views.SAMPLES,
            "attestation": ATTESTATION,
            "summary": views.SUMMARY,
        }
        found = {what: self._work.folder.file(name) for what, name in named.items()}
        return {**found, "report": self._work.folder.file(views.REPORT)} if self._work.settings.report else found

    def evaluation(self) -> Evaluation:
        """Return what the evaluation found."""
        return load_evaluation(self._work.folder.file(EVALUATION))

    def analysis(self) -> Analysis:
        """Return what the masks come from."""
        return load_analysis(self._work.folder.file(ANALYSIS), model=self._work.model.name)

    def latency(self) -> Latency | None:
        """Return the latency of the hardened model and its source; None where it is not asked for."""
        return views.latency(self._work)

    def _inspect(self, resumed: bool) -> Mapping[str, Any]:
        doubt = first_data_doubt(self._work.classifier, self._work.parts.learn.data)
        classifier = self._work.classifier
        random = random_ops(classifier.model.proto, classifier.output_name)
        self._warn((*([] if doubt is None else [doubt]), *of_randomness(random)))
        return {"masks": [mask.key for mask in self._places()]}

    def _warn(self, notes: Iterable[str]) -> None:
        """Say what makes the figures worth less than they look."""
        for note in notes:
            self._work.observer.say(f"warning: {note}")

    def _places(self) -> list[Mask]:
        return places_of(self._work.model, self._work.settings)

    def _analyse(self, resumed: bool) -> Mapping[str, Any]:
        target = self._work.folder.file(ANALYSIS)
        try:
            made = masks.make_analysis(self._work, target, resume=resumed)
        except ZeroGradientError as error:
            why = str(error).partition(";")[0]
            raise ZeroGradientError(f"{why}; harden the model before it is rounded or quantised") from None
        made.save(target)
        self._warn(made.notes)
        forget(target)
        return {BESIDE: [masks_path(target).name]} if made.masks_lie_beside else {}

    def _apply(self, resumed: bool) -> Mapping[str, Any]:
        work = self._work
        write = fold_file if work.settings.fold else harden_file
        watch = Watch(copies=lambda copy: work.observer.say(f"copies {copy}"))
        write(work.model, self._masks(), work.folder.file(HARDENED), force=True, watch=watch)
        return {BESIDE: sorted(self._hardened().external_files)}

    def _masks(self) -> list[Mask]:
        """Return the masks of the analysis; of scores the one that removes as much as the budget allows."""
        work, analysis = self._work, self.analysis()
        if analysis.scores is None:
            return list(analysis.masks)
        amount = within_budget(
            work.classifier,
            analysis.scores,
            work.parts.select.data,
            budget=work.settings.budget,
            batch_size=work.settings.batch_size,
        )
        return [select(analysis.scores, amount)]

    def _verify(self, resumed: bool) -> Mapping[str, Any]:
        work = self._work
        found = verify(
            work.classifier.beside(self._hardened()),
            source=work.model,
            analysis=self.analysis(),
            samples=work.parts.select.data,
            seed=work.settings.seed,
        )
        if not found.passed:
            failed = next(check for check in found.checks if check.status == "failed")
            raise CheckError(f"{work.folder.file(HARDENED)} failed verification: {failed.name}: {failed.detail}")
        return {"checks": [check.name for check in found.checks if check.status == "passed"]}

    def _evaluate(self, resumed: bool) -> Mapping[str, Any]:
        work = self._work
        found = self._attacked(
            work.classifier.beside(self._hardened()),
            output=work.folder.file(EVALUATION),
            baseline=work.classifier if work.settings.fold else None,
            analysis=self.analysis(),
            keep=work.folder.file(views.SAMPLES),
            resume=resumed,
        )
        for line in converged_lines(found):
            work.observer.say(line)
        self._warn(found.notes)
        return {}

    def _evaluate_source(self, resumed: bool) -> Mapping[str, Any]:
        """Evaluate the source by itself."""
        work = self._work
        self._attacked(work.classifier, output=work.folder.file(views.SOURCE_EVALUATION), resume=resumed)
        return {}

    def _attacked(self, model: Classifier, *, output: Path, **given: Any) -> Evaluation:
        """Attack a model on the report part, and say how far that is."""
        work, settings = self._work, self._work.settings
        engine = work.engine_for(work.parts.report.data)
        if engine.workers > 1:
            work.observer.say(str(engine))
        with work.observer.progress(f"evaluate, {settings.attack}", work.parts.report.count) as advance:
            return evaluate(
                model,
                work.parts.report.data,
                eps=settings.radii,
                attack=settings.attack,
                max_iter=settings.max_iter,
                norm=settings.norm,
                seed=settings.seed,
                batch_size=settings.batch_size,
                output=output,
                engine=engine,
                on_estimate=lambda estimate: work.observer.say(str(estimate)),
                on_progress=advance,
                **given,
            )

    def _evaluation_seconds(self) -> Duration:
        """Measure on masks of 1, which cost what any do, and withstand what the source does."""
        work, settings = self._work, self._work.settings
        engine = work.engine_for(work.parts.report.data)
        found = estimate_of_masks(
            work.classifier.with_threads(engine.threads),
            work.parts.report.data,
            masks=self._places(),
            samples=work.parts.report.count,
            eps=settings.radii,
            attack=settings.attack,
            max_iter=settings.max_iter,
            norm=settings.norm,
            batch_size=settings.batch_size,
            workers=engine.workers,
        )
        assert found.seconds is not None  # the samples are counted
        return Duration(found.seconds, found.expected_seconds)

    def _latency(self, resumed: bool) -> Mapping[str, Any]:
        return views.measure(self._work, self._hardened())

    def _attested_settings(self) -> dict[str, Any]:
        """Return what is put on record: names and digests, no paths."""
        settings, parts = self._work.settings, self._work.parts
        return {
            "verb": "harden",
            "method": settings.method,
            "preset": settings.preset,
            "eps": list(settings.eps),
            "budget": settings.budget,
            "norm": settings.norm,
            "fold": settings.fold,
            "attack": settings.attack,
            **({} if settings.max_iter is None else {"max_iter": settings.max_iter}),
            "seed": settings.seed,
            "data": {
                name: {"name": part.data.source.name, "count": part.count, "digest": part.digest}
                for name, part in (("learn", parts.learn), ("select", parts.select), ("report", parts.report))
            },
        }

    def _attest(self, resumed: bool) -> Mapping[str, Any]:
        folder = self._work.folder
        made = {name: {"name": name, "sha256": file_sha256(folder.file(name))} for name in (ANALYSIS, EVALUATION)}
        settings = {**self._attested_settings(), "analysis": made[ANALYSIS], "evaluation": made[EVALUATION]}
        made_of = attest(self._hardened(), self._work.model, settings=settings)
        made_of.save(folder.file(ATTESTATION), key=self._work.sign_key)
        return {}

    def _report(self, resumed: bool) -> Mapping[str, Any]:
        found = self.evaluation()
        views.write_views(self._work, found, self.decisions(found), analysis=self.analysis(), hardened=self._hardened())
        return {}

    def _hardened(self) -> Model:
        return load(self._work.folder.file(HARDENED))
