"""What a run would take, as --dry-run prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloakonnx.cli._output import print_json, tell
from cloakonnx.text import spoken

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.evaluation.estimate import Estimate

_OTHER_WORKERS = (1, 8, 64, 512, 4096)


def tell_estimate(found: Estimate, classifier: Classifier, *, as_json: bool) -> None:
    """Print an estimate: on the workers at hand, and on others of the same kind.

    Args:
        found: The estimate.
        classifier: What is attacked, on its provider.
        as_json: Whether as JSON.
    """
    on_gpu = classifier.provider.name != "CPUExecutionProvider"
    others = [] if found.samples is None else _others(found)
    if as_json:
        print_json(
            {**found.as_dict(), "provider": classifier.provider.name, "on_workers": [_on(found, n) for n in others]}
        )
        return
    batches = "" if found.samples is None else f"; {found.batches} batches of {found.batch_size}"
    tell(f"{found.asked}{batches}")
    if found.samples is None:
        tell(str(found))
        return
    for name in ("expected", "at most"):
        if name == "at most" or found.tried is not None:
            tell(f"{name:<9} {_line(found, name, others, on_gpu=on_gpu)}")
    if found.tried is not None:
        tell(str(found.tried))
    if found.workers >= found.batches > 1:
        tell(f"more than {found.batches} workers find no batch; a smaller --batch-size makes more")


def _others(found: Estimate) -> list[int]:
    """Return numbers of workers worth a figure: up to what there are batches for."""
    return sorted({found.workers, *(each for each in _OTHER_WORKERS if each < 2 * found.batches)})


def _line(found: Estimate, name: str, others: list[int], *, on_gpu: bool) -> str:
    seconds = found.expected if name == "expected" else found.at_most
    kind = "GPU" if on_gpu else "worker"
    total = spoken(seconds(1))
    work = f"{total} of one {kind}"
    at = ", ".join(f"{spoken(seconds(each))} on {each}" for each in others if each > 1)
    return f"{work}: {at}" if at else work


def _on(found: Estimate, workers: int) -> dict[str, Any]:
    return {
        "workers": workers,
        "expected_seconds": None if found.tried is None else found.expected(workers),
        "at_most_seconds": found.at_most(workers),
    }
