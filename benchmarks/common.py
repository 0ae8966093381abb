"""What the benchmarks share: alternating timing, ratios, tables, the machine in words, the real models and data."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def assets() -> Path:
    """Return $CLOAKONNX_ASSETS, or ../shared/assets beside the checkout; exit where there is neither."""
    named = os.environ.get("CLOAKONNX_ASSETS")
    folder = Path(named) if named else _ROOT.parent / "shared" / "assets"
    if not folder.is_dir():
        sys.exit("no real models and data: set CLOAKONNX_ASSETS")
    return folder


def machine(*packages: str) -> str:
    """Describe what the numbers were measured on: cores, load before the run, versions."""
    versions = [f"{name} {found}" for name in packages if (found := _version(name))]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{os.cpu_count()}-core {platform.machine()} CPU (load average before the run: {load}), "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def alternate(
    jobs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time each job once a round, in an order that turns with every round; the first ``warm`` rounds don't count.

    Load on the machine then hits all jobs alike, so that the ratios within a round hold where absolute times don't.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for index in range(warm + rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            start = clock()
            jobs[name]()
            elapsed = clock() - start
            if index >= warm:
                seconds[name].append(elapsed)
        progress(f"round {index + 1} of {warm + rounds}")
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratio within each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median and, in brackets, the quartiles."""
    shown = [statistics.median(values)]
    if len(values) >= 3:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        shown += [low, high]
    median, *rest = (f"{v:.{digits}f}" if v >= 0.1 else f"{v:.1g}" for v in shown)
    return f"{median} [{', '.join(rest)}]" if rest else median


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first is numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def progress(text: str) -> None:
    """Tell whoever waits, on stderr, so that stdout is the table only."""
    if sys.stderr.isatty():
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)
