"""``cloakonnx gate``: judges an evaluation that was made before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cloakonnx.cli._files import PATH, Json
from cloakonnx.cli._gates import SomeGates
from cloakonnx.cli._output import print_json, tell
from cloakonnx.cli._verb import argument, verb


@verb("gate")
def command(*, evaluation: Annotated[Path, argument(type=PATH)], require: SomeGates, as_json: Json) -> None:
    """Judge EVALUATION, written by 'cloakonnx evaluate -o': one line per gate, exit code 1 if one does not pass.

    \b
    cloakonnx gate evaluation.json --require 'clean-drop<=1%' --require 'robust-gain>=5%@2/255'

    Gates are clean>=, clean-drop<=, robust>=, robust-gain>= (the last two with @EPS), and flags==0. latency-ratio<=
    needs 'cloakonnx evaluate --require', which measures it.
    """
    from cloakonnx.evaluation.evaluation import load_evaluation
    from cloakonnx.evaluation.gates import check_gates

    gates = require.gates
    found = load_evaluation(evaluation)
    decisions = check_gates(found, gates)
    if as_json:
        print_json([decision.as_dict() for decision in decisions])
    else:
        for decision in decisions:
            tell(str(decision))
    require.conclude(decisions, name=found.model.name)
