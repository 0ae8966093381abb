"""``cloakonnx strip``: gives back the model that was hardened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloakonnx.cli._external import watched
from cloakonnx.cli._files import MODEL_OUTPUT, Json, ModelFile, Output
from cloakonnx.cli._output import print_json, say
from cloakonnx.cli._verb import option, verb


@dataclass(frozen=True, kw_only=True)
class _Stripped(Output):
    output: Path | None = option(
        "-o", "--output", type=MODEL_OUTPUT, help="Output file for the model without masks.  [MODEL.stripped.onnx]"
    )

    def of(self, model: Path) -> Path:
        """Return the output's path."""
        name = model.name.removesuffix(".onnx").removesuffix(".hardened")
        return self.output or model.with_name(f"{name}.stripped.onnx")


@verb("strip")
def command(*, model: ModelFile, output: _Stripped, as_json: Json) -> None:
    """Remove the masks of the hardened MODEL and restore the original file, byte for byte.

    \b
    cloakonnx strip model.hardened.onnx -o model.onnx

    A folded model is refused, because its masks are part of its weights.
    """
    from cloakonnx.graph.file.model import load
    from cloakonnx.graph.masks.harden import check_target, strip_file

    loaded, target = load(model), output.of(model)
    check_target(loaded, target, force=output.force)
    output.claim(target, inputs=[model])
    with watched(loaded) as watch:
        strip_file(loaded, target, force=output.force, watch=watch)
    if as_json:
        print_json({"output": str(target), "sha256": load(target).sha256})
    say(f"wrote {target}")
