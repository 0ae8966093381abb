"""``cloakonnx strip``: gives back the model that was hardened."""

from __future__ import annotations

from pathlib import Path

import click

from cloakonnx.cli import options
from cloakonnx.cli._external import watched
from cloakonnx.cli._output import print_json, say


@click.command("strip")
@options.model_argument
@click.option("-o", "--output", type=options.PATH, help="The model without masks.  [MODEL.stripped.onnx]")
@options.force_option
@options.json_option
def command(*, model: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Write the hardened MODEL without its masks: the file that it was made from, to the byte.

    \b
    cloakonnx strip model.hardened.onnx -o model.onnx

    A folded model is refused: its masks are part of its weights.
    """
    from cloakonnx.graph.file.model import load
    from cloakonnx.graph.masks.harden import check_target, strip_file

    loaded = load(model)
    target = output or model.with_name(model.name.removesuffix(".onnx").removesuffix(".hardened") + ".stripped.onnx")
    check_target(loaded, target, force=force)
    options.claim(target, inputs=[model], force=force)
    with watched(loaded) as watch:
        strip_file(loaded, target, force=force, watch=watch)
    if as_json:
        print_json({"output": str(target), "sha256": load(target).sha256})
    say(f"wrote {target}")
