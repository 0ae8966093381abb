"""Runs without a cluster: each shard of a run on its own, then the whole of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from cloakonnx.engine.shards.merged import Merged
from cloakonnx.engine.shards.part import Part, PartDone, Slice
from cloakonnx.errors import DataError, OptionError
from cloakonnx.files import check_output
from cloakonnx.remote import local

P = ParamSpec("P")
T = TypeVar("T")

SHARDED = ("attack", "analyze", "evaluate", "sweep")
"""What runs in shards."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run, which need nothing of each other: :func:`merge` makes the whole of all.

    Attributes:
        number: Of the shard, from 1.
        of: How many shards there are.
        output: The shard's file. Until that is written, finished batches lie in folders beside it.
        resume: Whether to go on with what an interrupted run of this shard has left.

    Raises:
        OptionError: there is no such shard.

    Examples:
        >>> import tempfile
        >>> import cloakonnx as ck
        >>> folder = tempfile.mkdtemp()
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=128)
        >>> attack = ck.attacks.FGSM(eps=1 / 16)
        >>> parts = [ck.engines.Shard(number, 2, f"{folder}/{number}.shard") for number in (1, 2)]
        >>> paths = [part.run(ck.attack, "samples/digits_cnn.onnx", data, attack) for part in parts]
        >>> ck.engines.merge(paths, ck.attack, "samples/digits_cnn.onnx", data, attack).x.shape
        (128, 1, 8, 8)
    """

    number: int
    of: int
    output: str | PathLike[str]
    resume: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        Slice(self.number, self.of)

    def run(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Path:
        """Call a function for the batches of this shard, and return the shard's file.

        Args:
            function: ``ck.attack``, ``ck.analyze``, ``ck.evaluate`` or ``ck.sweep``.
            args: Its arguments.
            kwargs: The same, without ``output`` and ``resume``: these go with the merge, and with the shard.

        Raises:
            OptionError: another function, or an output.
            CloakError: as the function does.
        """
        options: dict[str, Any] = dict(kwargs)
        verb = _verb(function)
        if options.get("output") is not None or options.get("resume"):
            raise OptionError(
                f"{verb} writes no {{output}} of its own in a shard: give {{output}} and {{resume}} to the shard, and "
                "the result's name to the merge",
                parameter=("output", "resume"),
            )
        output = local(self.output, writes=True)
        check_output(output, force=True)
        part = Part(Slice(self.number, self.of), output, self.resume, options.pop("engine", None))
        try:
            cast(Any, function)(*args, **options, engine=part)
        except PartDone:
            part.write(verb)
        return output


def merge(shards: Iterable[str | PathLike[str]], function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function returns and writes for all samples, from the files of all shards: the same bytes.

    Args:
        shards: The files, in any order.
        function: What the shards have run.
        args: Its arguments, as for the shards.
        kwargs: The same; ``engine`` is not needed, for no batch is handled again.

    Raises:
        OptionError: another function, or other settings than those of the shards.
        DataError: a file is damaged, missing or there twice, the shards are not of one run, or of other samples.
        CloakError: as the function does.

    Examples:
        >>> import tempfile
        >>> import cloakonnx as ck
        >>> one = ck.engines.Shard(1, 1, f"{tempfile.mkdtemp()}/1.shard")
        >>> asked = "samples/digits_cnn.onnx", ck.Samples("samples/digits_test_fgsm.npz", limit=20)
        >>> path = one.run(ck.analyze, *asked, attack="fgsm", eps=1 / 16)
        >>> ck.engines.merge([path], ck.analyze, *asked, attack="fgsm", eps=1 / 16).samples.count
        20
    """
    verb = _verb(function)
    merged = Merged.of(shards)
    if merged.head.verb != verb:
        raise DataError(f"{merged.shards[0].path} is a shard of {merged.head.verb}, not of {verb}")
    options: dict[str, Any] = {**kwargs, "engine": merged}
    return cast(T, cast(Any, function)(*args, **options))


def _verb(function: Callable[..., object]) -> str:
    name = str(getattr(function, "__name__", function))
    if name not in SHARDED:
        raise OptionError(f"{name} does not run in shards; {', '.join(SHARDED)} do")
    return name
