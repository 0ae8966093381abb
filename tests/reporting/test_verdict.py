"""The verdict of an evaluation and its caveats, from counts made up for each kind."""

from __future__ import annotations

import pytest

from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.verdict import verdict
from cloakonnx.reporting.page import report_html

from . import samples


@pytest.mark.parametrize(
    ("found", "kind", "said"),
    [
        (
            samples.evaluation(),
            "gain",
            "the masks raise robust accuracy at 1/255 from 55.0% to 75.0%, that is by 20.0 points",
        ),
        (samples.evaluation(fired=("large-eps",)), "doubt", "raise robust accuracy"),
        (samples.evaluation(seen=5), "doubt", "raise robust accuracy"),
        (
            samples.evaluation(samples.at(0.07, 101, 100)),
            "none",
            "No difference in robust accuracy is shown at 0.07: it is +0.5",
        ),
        (
            samples.evaluation(samples.at(0.07, 60, 100)),
            "loss",
            "the masks cost 20.0 points of robust accuracy at",
        ),
        (
            samples.evaluation(samples.at(0.07, 60, 100), samples.at(0.03, 150, 100)),
            "loss",
            "They gain at 0.03",
        ),
        (
            samples.evaluation(samples.at(0.07, 101, 100), samples.at(0.03, 150, 100)),
            "gain",
            "No gain is shown at 0.07.",
        ),
    ],
)
def test_verdicts(found: Evaluation, kind: str, said: str) -> None:
    judged = verdict(found)
    assert judged.kind == kind
    assert said in judged.sentence
    assert f'class="verdict {kind}"' in report_html(found)


def test_caveats() -> None:
    said = " ".join(verdict(samples.evaluation(fired=("single-step", "large-eps"), seen=5)).caveats)
    assert "seen 5 of the 200 samples" in said
    assert "2 sanity flags fired: single-step, large-eps." in said


def test_clean_accuracy_as_it_was() -> None:
    same = samples.Paired(190, 0, 0, 10)
    found = Evaluation(**{**vars(samples.evaluation()), "clean_hardened": samples.Accuracy(190, 200), "clean": same})
    assert "leave clean accuracy as it is [" in verdict(found).sentence
