"""``cloakonnx verify``: is a hardened model its source and the masks, and nothing else?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Unpack

import click

from cloakonnx.cli import options
from cloakonnx.cli.output import print_json, say

_SIGNS = {"passed": "ok  ", "failed": "FAIL", "not checked": "-   "}


@click.command("verify")
@options.model_argument
@click.option("--source", type=options.PATH, help="The model it was hardened from: the trusted reference.")
@options.data_option(required=False)
@options.data_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random inputs.")
@options.input_option
@options.provider_options
@options.json_option
def command(
    *,
    model: Path,
    source: Path | None,
    data: Path | None,
    data_script: str | None,
    seed: int,
    input_name: str | None,
    provider: str | None,
    device_id: int,
    as_json: bool,
    **data_options: Unpack[options.DataOptions],
) -> None:
    """Check that the hardened MODEL is its source and the masks: structure, hashes, and numbers in ONNX Runtime.

    \b
    cloakonnx verify model.hardened.onnx --source model.onnx
    cloakonnx verify model.hardened.onnx --source model.onnx --data test.npz

    A folded model needs --source: its masks are folded into that again, and the files compared.

    Without --source it can only check that the model agrees with its own metadata, and says so. Exit code 1 when a
    check fails.
    """
    from cloakonnx.evaluation import verify
    from cloakonnx.graph import load

    loaded = load(model)
    reference = None if source is None else load(source)
    opened = options.open_data(data, data_script, data_options, option="data")
    samples = None if opened is None else options.dataset(loaded, opened, data_options, input_name)
    result = verify(
        loaded,
        source=reference,
        provider=options.choose(provider, device_id),
        samples=samples,
        seed=seed,
        input_name=input_name,
    )
    if as_json:
        print_json({**asdict(result), "passed": result.passed})
    else:
        for check in result.checks:
            click.echo(f"{_SIGNS[check.status]} {check.name}: {check.detail}")
    if not result.passed:
        say(f"cloakonnx: {loaded.name} failed verification")
        raise click.exceptions.Exit(1)
    say(
        f"{loaded.name} is consistent with itself"
        if source is None
        else f"{loaded.name} is {source.name} with its masks"
    )
