"""``cloakonnx doctor``: what this installation can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloakonnx.cli._files import Json
from cloakonnx.cli._output import print_json, tell
from cloakonnx.cli._verb import verb

if TYPE_CHECKING:
    from cloakonnx.doctor import Diagnosis


@verb("doctor")
def command(*, as_json: Json) -> None:
    """Check the installation: packages, ONNX Runtime, providers that load, a test gradient, what to install next.

    \b
    cloakonnx doctor

    Exit code 0 where models can be evaluated and hardened, 1 where not.
    """
    from dataclasses import asdict

    from cloakonnx.doctor import examine

    found = examine()
    if as_json:
        print_json({"usable": found.usable, **asdict(found)})
    else:
        _tell(found)
    raise click.exceptions.Exit(0 if found.usable else 1)


def _tell(found: Diagnosis) -> None:
    memory = "memory unknown" if found.memory is None else f"{found.memory / 2**30:.1f} GiB of memory"
    runtimes = ", ".join(f"{name} {version}" for name, version in found.runtimes.items())
    states = (f"{each.name} {'loads' if each.loads else 'does not load'}" for each in found.providers)
    gradient = "not tried" if found.gradient is None else found.gradient.detail
    rows = (
        ("Python", f"{found.python}, {found.executable}"),
        ("system", f"{found.system}, {found.cores} core{'s' * (found.cores != 1)}, {memory}"),
        ("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in found.packages.items())),
        ("ONNX Runtime", runtimes or "MISSING"),
        ("providers", ", ".join(states) or "none"),
        ("default", found.provider or "none"),
        ("test gradient", gradient),
        ("Ray", found.ray or "not installed: --engine ray needs it"),
        ("extras", ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found.extras.items())),
    )
    for name, text in rows:
        tell(f"{name:<14} {text}")
    for line in found.warnings:
        tell(f"warning        {line}")
    for line in found.problems:
        tell(f"PROBLEM        {line}")
    for line in found.install:
        tell(f"to install     {line}")
    tell("usable" if found.usable else "not usable")
