"""The interpreter itself: what GitHub documents of expressions and of the files that steps append to."""

from __future__ import annotations

from pathlib import Path

import pytest

from .runner import Contexts, Runner, named_values, truth

STEPS = """
name: t
description: t
outputs:
  last: {value: "${{ steps.last.outputs.seen }}"}
runs:
  using: composite
  steps:
    - {id: first, shell: bash, run: 'echo "KEPT=a b" >> "$GITHUB_ENV"; echo "$PWD" >> "$GITHUB_PATH"; exit 3'}
    - {id: left-out, shell: bash, run: "exit 4"}
    - {id: only-after-failure, if: failure(), shell: bash, run: "echo one >> $GITHUB_STEP_SUMMARY"}
    - {id: last, if: "${{ always() }}", shell: bash, run: 'echo "seen=$KEPT ${PATH%%:*}" >> "$GITHUB_OUTPUT"'}
    - {id: strict, if: always(), shell: bash, run: "false | true; echo not reached"}
"""


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("inputs.a", "Text"),
        ("inputs.a == 'tEXT'", True),
        ("inputs.empty == ''", True),
        ("inputs.empty || steps.s.outputs.o", "out"),
        ("inputs.a && inputs.empty", ""),
        ("steps.s.outputs.none", ""),
        ("!inputs.empty && (failure() || always())", True),
        ("success() && inputs.a != 'it''s'", True),
        ("'it''s'", "it's"),
    ],
)
def test_expressions(expression: str, value: str | bool) -> None:
    contexts = Contexts({"a": "Text", "empty": ""}, {})
    contexts.outputs["s"] = {"o": "out"}
    assert contexts.evaluate(expression) == value


@pytest.mark.parametrize(
    "expression", ["inputs.typo", "steps.later.outputs.x", "secrets.x", "toJSON(inputs.a)", "inputs.a +", "inputs.a a"]
)
def test_what_is_not_understood_is_an_error(expression: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        Contexts({"a": "x"}, {}).evaluate(expression)


def test_truth() -> None:
    assert [truth(value) for value in ("", "false", "0", True, False)] == [False, True, True, True, False]


def test_named_values() -> None:
    assert named_values("a=1=2\nb<<END\nx\n\na=3\nEND\na=4\n") == {"a": "4", "b": "x\n\na=3"}
    for damaged in ("text", "a<<END\nx\n"):
        with pytest.raises(AssertionError):
            named_values(damaged)


def test_steps_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "action.yml").write_text(STEPS)
    runner = Runner(tmp_path, "/usr/bin:/bin")
    ran = runner.run(tmp_path, {}, others={})
    assert [step.conclusion for step in ran.steps] == ["failure", "skipped", "success", "success", "failure"]
    assert [step.code for step in ran.steps] == [3, 0, 0, 0, 1]
    assert not ran.passed
    assert ran.summary == "one\n"
    assert ran.outputs == {"last": f"a b {runner.workspace}"}
