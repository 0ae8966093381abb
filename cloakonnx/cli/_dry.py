"""What a run would take, as --dry-run prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cloakonnx.cli._output import print_json, tell
from cloakonnx.text import spoken

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier


class Estimated(Protocol):
    """An estimate of a run."""

    @property
    def samples(self) -> int | None:
        """How many samples there are; None where only the end will tell."""

    @property
    def workers(self) -> int:
        """How many workers there are."""

    @property
    def asked(self) -> str:
        """What is done, in words."""

    @property
    def cut(self) -> str:
        """How the work is cut, in words."""

    @property
    def most_workers(self) -> int:
        """How many workers find something to do."""

    @property
    def advice(self) -> str:
        """What more workers find, and what gives them something to do."""

    @property
    def tried(self) -> object | None:
        """What was tried on the first samples, in words; None where nothing was."""

    def at_most(self, workers: int) -> float:
        """Return the seconds on a number of workers, at most."""

    def expected(self, workers: int) -> float:
        """Return the seconds on a number of workers, as what was tried leads to expect."""

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON."""


_OTHER_WORKERS = (1, 8, 64, 512, 4096)


def tell_estimate(found: Estimated, classifier: Classifier, *, as_json: bool) -> None:
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
    tell(found.asked if found.samples is None else f"{found.asked}; {found.cut}")
    if found.samples is None:
        tell(str(found))
        return
    for name in ("expected", "at most"):
        if name == "at most" or found.tried is not None:
            tell(f"{name:<9} {_line(found, name, others, on_gpu=on_gpu)}")
    if found.tried is not None:
        tell(str(found.tried))
    if found.workers >= found.most_workers > 1:
        tell(f"more than {found.most_workers} workers find {found.advice}")


def _others(found: Estimated) -> list[int]:
    """Return numbers of workers worth a figure: up to what there is work for."""
    return sorted({found.workers, *(each for each in _OTHER_WORKERS if each < 2 * found.most_workers)})


def _line(found: Estimated, name: str, others: list[int], *, on_gpu: bool) -> str:
    seconds = found.expected if name == "expected" else found.at_most
    kind = "GPU" if on_gpu else "worker"
    total = spoken(seconds(1))
    work = f"{total} of one {kind}"
    at = ", ".join(f"{spoken(seconds(each))} on {each}" for each in others if each > 1)
    return f"{work}: {at}" if at else work


def _on(found: Estimated, workers: int) -> dict[str, Any]:
    return {
        "workers": workers,
        "expected_seconds": None if found.tried is None else found.expected(workers),
        "at_most_seconds": found.at_most(workers),
    }
