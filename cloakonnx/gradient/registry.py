"""The registry of rules: which op has a gradient here, in which versions, and which ops end the flow.

A module of rules is imported when one of its ops is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cloakonnx.graph.index.traits import Kind

if TYPE_CHECKING:
    from cloakonnx.gradient._site import GradientSite
    from cloakonnx.graph.build import Tensor

Grads: TypeAlias = "Iterator[tuple[int, Tensor]]"
"""Pairs of input index and that input's gradient."""

Rule: TypeAlias = "Callable[[GradientSite], Grads]"
UnaryRule: TypeAlias = "Callable[[GradientSite], Tensor]"


class Entry(NamedTuple):
    """A registered op.

    Attributes:
        op: Op type.
        domain: Operator set; empty for the default one.
        since: First opset whose version of the op can be read (older models are converted upwards).
        until: Latest version of the op that the rule was written for.
        kind: Whether the op has a rule, a zero gradient, or ends the flow.
        rule: The function, for ops that have one; of an op of zero gradient what a straight-through gradient takes
            instead.
        family: Module that the op is registered in.
        note: Limits, in a few words.
        integers: Positions of integer inputs by which a straight-through gradient goes on.
    """

    op: str
    domain: str
    since: int
    until: int
    kind: Kind
    rule: Rule | None
    family: str
    note: str
    integers: tuple[int, ...] = ()


HOMES = {
    "activation": "Clip Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax PRelu Relu Sigmoid Softmax Softplus Tanh",
    "convolution": "Conv ConvTranspose",
    "elementwise": "Abs Add Cast Div Dropout Erf Exp Identity Log Max Min Mul Neg Pow Reciprocal Sqrt Sub Sum Where",
    "linear": "Gemm MatMul",
    "normalization": "BatchNormalization InstanceNormalization LayerNormalization",
    "pooling": "AveragePool GlobalAveragePool GlobalMaxPool MaxPool",
    "reduction": "ReduceL2 ReduceMax ReduceMean ReduceSum",
    "selection": "Gather Pad Slice",
    "shaping": "Concat Expand Flatten Reshape Split Squeeze Transpose Unsqueeze",
}
"""Where the rules of the ops of ordinary networks are; any other op has all modules imported, which takes longer."""

_HOME = {op: name for name, ops in HOMES.items() for op in ops.split()}
_RULES = "cloakonnx.gradient.rules"
_ENTRIES: dict[tuple[str, str], Entry] = {}


def add(entry: Entry) -> None:
    """Add an entry; raises ValueError where the op has one."""
    key = (entry.domain, entry.op)
    if key in _ENTRIES:
        raise ValueError(f"{entry.op} is registered twice")
    _ENTRIES[key] = entry


def rule(op: str, *, since: int = 1, until: int, domain: str = "", note: str = "") -> Callable[[Rule], Rule]:
    """Register a rule that yields (input index, gradient) for each wanted input of ``op``, versions since..until."""

    def register(function: Rule) -> Rule:
        family = function.__module__.rpartition(".")[2]
        add(Entry(op, domain, since, until, Kind.RULE, function, family, note))
        return function

    return register


def unary(op: str, *, since: int = 1, until: int, domain: str = "", note: str = "") -> Callable[[UnaryRule], UnaryRule]:
    """Register a rule that returns the gradient of the first input, the only one that may be differentiated."""

    def register(function: UnaryRule) -> UnaryRule:
        def wrapped(s: GradientSite) -> Grads:
            s.only(0)
            yield 0, function(s)

        wrapped.__module__ = function.__module__
        rule(op, since=since, until=until, domain=domain, note=note)(wrapped)
        return function

    return register


def straight_through(op: str, *, since: int = 1, until: int, note: str = "") -> Callable[[UnaryRule], UnaryRule]:
    """Register an op of zero gradient, with what stands in for the gradient of its first input where that is asked for.

    Bengio et al. 2013 (arXiv 1308.3432), section 4; in attacks, BPDA: Athalye et al. 2018 (arXiv 1802.00420).
    """

    def register(function: UnaryRule) -> UnaryRule:
        def wrapped(s: GradientSite) -> Grads:
            s.only(0)
            yield 0, function(s)

        family = function.__module__.rpartition(".")[2]
        add(Entry(op, "", since, until, Kind.ZERO, wrapped, family, note))
        return function

    return register


def ends(op: str, kind: Kind, *, until: int, family: str) -> None:
    """Register an op through which no gradient flows, up to the latest version known."""
    add(Entry(op, "", 1, until, kind, None, family, ""))


def find(domain: str, op: str) -> Entry | None:
    """Return the entry of an op, or None."""
    key = ("" if domain == "ai.onnx" else domain, op)
    _load("flat")
    if key not in _ENTRIES:
        _load("" if key[0] else _HOME.get(op, ""))
    return _ENTRIES.get(key)


def entries() -> list[Entry]:
    """Return every entry, sorted by domain and op."""
    _load("")
    return [_ENTRIES[key] for key in sorted(_ENTRIES)]


@cache
def _load(family: str) -> None:
    """Import a module of rules; all of them where none is named."""
    if family:
        import_module(f"{_RULES}.{family}")
        return
    from pkgutil import iter_modules  # noqa: PLC0415 - few models need it

    for each in iter_modules(import_module(_RULES).__path__):
        import_module(f"{_RULES}.{each.name}")
