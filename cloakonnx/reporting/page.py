"""The report: one HTML file that loads nothing, made of the values that exist.

Jinja2 fills the page and escapes what goes in; the charts are SVG of our own (:mod:`cloakonnx.reporting._charts`). The
page's Content-Security-Policy allows its one style sheet and its one script by their hashes, images that are in the
page, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from os import PathLike
from typing import Any

from cloakonnx.classifier.given import ModelLike, model_of
from cloakonnx.classifier.latency import Latency
from cloakonnx.errors import DataError, MissingDependencyError
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.samples import TurnedSamples
from cloakonnx.evaluation.sweeps.record import Sweep
from cloakonnx.files import check_output, write_text
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.masks.metadata import InWeight, entries, folded_masks, is_folded
from cloakonnx.graph.masks.strip import found_masks
from cloakonnx.remote import local
from cloakonnx.reporting import _accuracy as accuracy_part
from cloakonnx.reporting import _masks as mask_part
from cloakonnx.reporting._cost import cost_sheet
from cloakonnx.reporting._learning import learning_part
from cloakonnx.reporting._per_sample import class_sheet, outcome_sheet
from cloakonnx.reporting._samples import sample_part
from cloakonnx.reporting.cost import latency_note
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.text import eps_exact, escaped, shown_line

_TEMPLATES = "templates"

_WORD = re.compile(r"""\s+|(?:'[^']*'|"[^"]*"|\S)+""")
"""A word of a command line, or what is between two."""

_EXPONENT = re.compile(r"[\d.]+e[-+]\d+")


def report_html(
    found: Evaluation,
    *,
    analysis: Analysis | None = None,
    sweep: Sweep | None = None,
    model: Model | None = None,
    command: str | None = None,
    samples: TurnedSamples | None = None,
    shipped: Evaluation | None = None,
    latency: Latency | None = None,
    tried: Sequence[str] = (),
) -> str:
    """Return the report as the text of an HTML file; the same values always give the same text.

    Args:
        found: The evaluation.
        analysis: What the masks come from.
        sweep: Of the same analysis.
        model: The hardened model, to mark the features that it really masks.
        command: The command line that does it again; that of the evaluation where None.
        samples: What ``evaluate(keep=...)`` wrote with the evaluation.
        shipped: An evaluation of the model that is deployed, of the same samples: the third column.
        latency: Of the model and its baseline, where it was measured.
        tried: What was tried to harden the model without a gain, a sentence each.

    Raises:
        DataError: the values are not of the same model or samples, the samples not of the evaluation, or the analysis
            is damaged.
        MissingDependencyError: Jinja2 is not installed.
    """
    _check_alike(found, analysis, sweep, model)
    if shipped is not None:
        _check_shipped(shipped, found)
    environment = _environment()
    style, script = _text("report.css"), _text("report.js")
    masks = None if model is None or _has_them_inside(model) else found_masks(model)[0]
    page = environment.get_template("report.html.j2").render(
        found=found,
        title=_title(found, analysis),
        statement=found.statement,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        verdict=found.verdict,
        accuracy=accuracy_part.accuracy_figure(found, shipped),
        accuracy_sheet=accuracy_part.accuracy_sheet(found, shipped),
        cost=cost_sheet(found, shipped=shipped, latency=latency),
        latency_note=None if latency is None else latency_note(latency),
        tried=tuple(tried),
        shipped=shipped,
        curve=accuracy_part.curve_figure(found),
        sweep=None if sweep is None else mask_part.sweep_figure(sweep),
        sweep_sheet=None if sweep is None else mask_part.sweep_sheet(sweep),
        masks=mask_part.mask_part(analysis, masks, found),
        learning=None if analysis is None or analysis.learning is None else learning_part(analysis.learning),
        samples=None if samples is None else sample_part(samples, found),
        sanity=None if found.sanity is None else accuracy_part.sanity_sheet(found, found.sanity),
        classes=class_sheet(found),
        outcomes=outcome_sheet(found),
        controls=accuracy_part.control_sheets(found),
        settings=accuracy_part.settings_lines(found),
        attacks=accuracy_part.attack_lines(found),
        norm=accuracy_part.norm_text(found.norm),
        words=_WORD.findall(command or accuracy_part.command(found)),
        reconstructed=command is None,
    )
    return str(page)


def _check_shipped(shipped: Evaluation, found: Evaluation) -> None:
    """Check that what is shipped was evaluated as the other models were."""
    radii = {each.eps for each in shipped.results}
    asked = (found.data.sha256, found.attack, found.norm)
    if (shipped.data.sha256, shipped.attack, shipped.norm) != asked or not {e.eps for e in found.results} <= radii:
        radius = ",".join(eps_exact(each.eps) for each in found.results)
        raise DataError(
            f"the evaluation of {shipped.model.name} is not beside that of {found.model.name}: other samples, attack, "
            f"norm or eps; evaluate both on {found.data.name} with {{attack}} {found.attack} {{eps}} {radius} {{norm}} "
            f"{found.norm}",
            parameter=("attack", "eps", "norm"),
        )


def _has_them_inside(model: Model) -> bool:
    """Whether the numbers of a folded model's masks are to be had from the analysis only."""
    return is_folded(model.proto) and any(isinstance(mask, InWeight) for mask in folded_masks(model.proto))


def _title(found: Evaluation, analysis: Analysis | None) -> str:
    """Return the name of the user's model: the masks' source where it is known, else the file that was evaluated."""
    if not found.masks:
        return found.model.name
    if analysis is not None:
        return analysis.model_name
    named = found.baseline if found.baseline_is_source and not found.baseline_is_stripped else None
    return (named or found.model).name


def report(
    evaluation: Evaluation,
    output: str | PathLike[str] | None = None,
    *,
    analysis: Analysis | None = None,
    sweep: Sweep | None = None,
    model: ModelLike | None = None,
    samples: TurnedSamples | None = None,
    shipped: Evaluation | None = None,
    force: bool = False,
) -> str:
    """Return an evaluation as one HTML page that loads nothing, and write it where an output is named.

    Args:
        evaluation: The evaluation.
        output: The page, written atomically.
        analysis: What the masks come from.
        sweep: A sweep of the same analysis.
        model: The hardened model, to mark the features that it really masks.
        samples: What ``evaluate(keep=...)`` wrote with the evaluation, of :func:`cloakonnx.read`.
        shipped: An evaluation of the model that is deployed (quantised, say), of the same samples: the third column.
        force: Whether the output may be overwritten.

    Returns:
        The text of the page; the same values always give the same text.

    Raises:
        DataError: the values are not of the same model or samples, or ``samples`` not of the evaluation.
        MissingDependencyError: Jinja2 is not installed.
        OutputError: the output exists or can't be written.

    Examples:
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=50)
        >>> clf = ck.Classifier("samples/digits_cnn.onnx")
        >>> found = ck.evaluate(clf, data, eps=1 / 16, attack="fgsm", baseline=clf, sanity=False)
        >>> ck.report(found).startswith("<!DOCTYPE html>")
        True
    """
    if output is not None:
        check_report()
        check_output(local(output, writes=True), force=force)
    hardened = None if model is None else model_of(model)
    page = report_html(evaluation, analysis=analysis, sweep=sweep, model=hardened, samples=samples, shipped=shipped)
    if output is not None:
        write_text(local(output, writes=True), page)
    return page


def check_report() -> None:
    """Check, before any work is done, that a report can be written; raises MissingDependencyError."""
    _environment()


def _check_alike(found: Evaluation, analysis: Analysis | None, sweep: Sweep | None, model: Model | None) -> None:
    """Check that all values are of one model; a baseline that was named may be any model, so nothing is asked of it."""
    if model is not None and model.sha256 != found.model.sha256:
        raise DataError(
            f"{model.name} is not the model of the evaluation ({found.model.name}): sha256 {model.sha256[:16]}..., not "
            f"{found.model.sha256[:16]}...; name the hardened model that was evaluated"
        )
    baseline = found.baseline or found.model
    source = None if model is None else entries(model.proto).get(SOURCE_KEY)
    known = {baseline.sha256, source or baseline.sha256}
    parts = [] if analysis is None else [("analysis", "analyze", analysis.model_name, analysis.model_sha256)]
    parts += [] if sweep is None else [("sweep", "sweep", sweep.model.name, sweep.model.sha256)]
    for kind, verb, name, digest in parts:
        if found.baseline_is_stripped and digest not in known:
            raise DataError(
                f"the {kind} is of another model ({name}, sha256 {digest[:16]}...) than the evaluation's baseline "
                f"({baseline.sha256[:16]}...); give the one of that model (cloakonnx {verb} makes it)"
            )


def _environment() -> Any:
    try:
        from jinja2 import DictLoader, Environment, StrictUndefined  # noqa: PLC0415
    except ImportError:
        raise MissingDependencyError("a report needs Jinja2: pip install jinja2") from None
    loader = DictLoader({"report.html.j2": _text("report.html.j2")})
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters["whole"] = _whole
    return environment


def _whole(text: str) -> Any:
    """Keep numbers such as 1.0e-04 in one line."""
    from markupsafe import Markup, escape  # noqa: PLC0415 - comes with Jinja2

    return Markup(_EXPONENT.sub(r'<span class="whole">\g<0></span>', str(escape(shown_line(text)))))


def _printable(value: Any) -> Any:
    """Spell out what no reader of the page can see; what is markup already (charts, style, script) keeps its lines."""
    if not isinstance(value, str):
        return value
    if hasattr(value, "__html__"):
        return type(value)(escaped(value, keep="\n\t"))
    return shown_line(value)


def _text(name: str) -> str:
    """Return a file of the package, with line ends that its hash can count on."""
    path = resources.files("cloakonnx.reporting").joinpath(_TEMPLATES, name)
    return path.read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
