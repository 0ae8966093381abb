"""``cloakonnx evidence``: an evaluation in the formats that reviewers and supply chains read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click
from click.core import ParameterSource

from cloakonnx.cli._files import JSON_OUTPUT, PATH, Output
from cloakonnx.cli._gates import Gates
from cloakonnx.cli._output import say
from cloakonnx.cli._verb import argument, option, verb

_FORMATS = ("in-toto", "cyclonedx")


@dataclass(frozen=True, kw_only=True)
class _Gates(Gates):
    """Gates, whose verdict is the statement's: it is written whatever that is."""

    allow_inconclusive: bool = False
    junit: Path | None = None


@dataclass(frozen=True, kw_only=True)
class _File(Output):
    """The file that is written."""

    output: Path | None = option(
        "-o", "--output", type=JSON_OUTPUT, help="Output file.  [evidence.intoto.json or evidence.cdx.json]"
    )


Format = Annotated[
    str,
    option(
        "--format",
        type=click.Choice(_FORMATS),
        default=_FORMATS[0],
        show_default=True,
        help="in-toto: a statement of which gates pass. cyclonedx: an ML-BOM with accuracy as metrics.",
    ),
]


@verb("evidence")
def command(*, evaluation: Annotated[Path, argument(type=PATH)], format: Format, require: _Gates, file: _File) -> None:
    """Write EVALUATION as evidence for reviewers: what was measured, and what was and was not tried, with ids.

    \b
    cloakonnx evidence evaluation.json --require 'robust>=40%@2/255' -o evidence.intoto.json
    cloakonnx evidence evaluation.json --format cyclonedx -o model.cdx.json

    An in-toto statement needs gates, and is PASSED, WARNED (a gate is inconclusive) or FAILED by them. Ids are those of
    MITRE ATLAS, NIST AI 100-2 and OWASP AISVS.
    """
    from cloakonnx.evaluation.evaluation import load_evaluation
    from cloakonnx.evaluation.gates import check_gates
    from cloakonnx.files import write_text
    from cloakonnx.reporting.cyclonedx import ml_bom
    from cloakonnx.reporting.intoto import test_result
    from cloakonnx.urls import name_of

    gates = require.gates
    if format == "in-toto" and not gates:
        raise click.UsageError("an in-toto test result needs gates: --require 'robust>=60%', say")
    source = click.get_current_context().get_parameter_source("require")
    if format == "cyclonedx" and source is ParameterSource.COMMANDLINE:
        raise click.UsageError("a CycloneDX BOM holds numbers, not gates: leave --require out")
    output = file.output or Path("evidence.intoto.json" if format == "in-toto" else "evidence.cdx.json")
    found = load_evaluation(evaluation)
    file.claim(output, inputs=[evaluation])
    if format == "cyclonedx":
        write_text(output, ml_bom(found))
    else:
        decisions = check_gates(found, gates)
        digest = hashlib.sha256(evaluation.read_bytes()).hexdigest()
        write_text(output, test_result(found, decisions, name=name_of(evaluation), sha256=digest))
    say(f"wrote {output}")
