"""Names of the files of one attack at several eps."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from cloakonnx.remote import local


def outputs_by_eps(output: str | PathLike[str], texts: Sequence[str]) -> list[Path]:
    """Return the output for each eps: the text of an eps goes into the name where there are several.

    >>> [path.name for path in outputs_by_eps("adversarial.npz", ["1/255", "2/255"])]
    ['adversarial.eps1_255.npz', 'adversarial.eps2_255.npz']

    Args:
        output: The file for one eps.
        texts: Each eps as it was written.
    """
    path = local(output, writes=True)
    if len(texts) == 1:
        return [path]
    return [path.with_name(f"{path.stem}.eps{text.replace('/', '_')}{path.suffix}") for text in texts]
