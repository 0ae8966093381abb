"""``cloakonnx demo``: hardens a bundled classifier, and shows what that brings."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloakonnx.cli._files import FOLDER_OUTPUT, Json, Output
from cloakonnx.cli._output import going_on, print_json, progress, say, tell
from cloakonnx.cli._verb import option, verb

if TYPE_CHECKING:
    from cloakonnx.demo.demo import Act
    from cloakonnx.evaluation.evaluation import Evaluation
    from cloakonnx.pipeline.harden import Hardened
    from cloakonnx.statistics import Accuracy

_WIDTH = 78


@dataclass(frozen=True, kw_only=True)
class _Folder(Output):
    output: Path = option(
        "-o",
        "--output",
        type=FOLDER_OUTPUT,
        default=Path("cloakonnx-demo"),
        help="Folder for all files.  [cloakonnx-demo]",
    )


@verb("demo")
def command(*, folder: _Folder, as_json: Json) -> None:
    """Harden a bundled classifier of handwritten digits, and show accuracy before and after. Takes about 30 s.

    \b
    cloakonnx demo

    Needs no file and no network. Writes the model, its data and all results to a folder, so that the commands of the
    documentation can be tried there. It hardens twice: with learned masks, and with DeepCloak's mask of features. Both
    results are attacked anew, by an attacker who knows the masks.
    """
    from cloakonnx.demo.demo import ACTS, write_sample

    output = folder.output
    write_sample(output, force=folder.force)
    say(f"wrote model.onnx, train.npz, val.npz, test.npz and clean.npz to {output}")
    shown = []
    for number, act in enumerate(ACTS, 1):
        say(f"[{number}/{len(ACTS)}] {act.command}")
        with going_on(f"'cloakonnx demo -o {output} --force' goes on where this stopped"):
            done = act.task(output, progress=progress).run(force=folder.force)
        shown.append((act, done))
    if as_json:
        print_json({act.method: _numbers(done) for act, done in shown})
        return
    _tell(shown, output)


def _tell(shown: list[tuple[Act, Hardened]], output: Path) -> None:
    from cloakonnx.demo.demo import EPS_TEXT

    (learned, first), (scored, second) = shown
    tell("")
    _wrapped(
        f"A classifier of 8x8 images of digits, {first.evaluation.data.count} test images. An attacker may change "
        f"every pixel by {EPS_TEXT} (two of sixteen levels), and knows the model, weights and masks. 95% intervals."
    )
    _table(learned.title, first.evaluation)
    at = first.evaluation.results[0]
    static, baseline, pairs = at.compared()
    _wrapped(
        f"Replayed inputs were made on the original model. They would have promised {static.value:.1%}; an "
        f"attacker of the hardened model itself leaves {at.hardened.robust.value:.1%}. That is its robust accuracy."
    )
    _table(scored.title, second.evaluation)
    static, baseline, pairs = second.evaluation.results[0].compared()
    removed = ", ".join(f"{mask.removed} of {mask.features} features" for mask in second.evaluation.masks)
    _wrapped(
        f"{removed} removed. Against replayed inputs it seems to gain "
        f"{(static.value - baseline.robust.value) * 100:+.1f} points; attacked anew, "
        f"{pairs.difference * 100:+.1f}. That is why cloakonnx learns its masks, and why it attacks the result."
    )
    tell("")
    tell(f"Report, for your browser:  {first.files['report']}")
    tell("Next, in the same shell:")
    tell(f"  cd {output}")
    tell('  cloakonnx gate model-hardened/evaluation.json --require "robust-gain>=20%@2/16"')
    tell("Then with a model of your own:")
    tell("  cloakonnx harden YOUR.onnx --data YOUR.npz --eps 2/255 --preset quick")


def _table(title: str, found: Evaluation) -> None:
    """Print accuracy before and after, in lines of at most 80 columns."""
    from cloakonnx.demo.demo import EPS_TEXT
    from cloakonnx.statistics import difference_cells, share_cell

    at = found.results[0]
    static, baseline, pairs = at.compared()
    clean = found.clean_baseline or found.clean_hardened
    rows = (
        ("", "original", "hardened", "points"),
        ("clean", share_cell(clean), share_cell(found.clean_hardened), found.clean or ""),
        (f"robust at {EPS_TEXT}", share_cell(baseline.robust), share_cell(at.hardened.robust), pairs),
        ("replayed inputs", "", share_cell(static), ""),
    )
    tell("")
    tell(title)
    for name, before, after, change in rows:
        points = change if isinstance(change, str) else difference_cells(change)[0]
        tell(f"  {name:<16} {before:>19} {after:>19}  {points:>19}".rstrip())


def _wrapped(text: str) -> None:
    for line in textwrap.wrap(text, _WIDTH):
        tell(line)


def _numbers(done: Hardened) -> dict[str, Any]:
    found, at = done.evaluation, done.evaluation.results[0]
    static, baseline, _ = at.compared()
    return {
        "verdict": done.verdict.kind,
        "eps": at.eps,
        "clean": {
            "original": _share(found.clean_baseline or found.clean_hardened),
            "hardened": _share(found.clean_hardened),
        },
        "robust": {"original": _share(baseline.robust), "hardened": _share(at.hardened.robust)},
        "replayed": _share(static),
        "files": {what: str(path) for what, path in done.files.items()},
    }


def _share(found: Accuracy) -> dict[str, Any]:
    return {"correct": found.correct, "count": found.count, "share": found.value, "interval": list(found.ends)}
