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
    "activation": {
        "Clip": 13,
        "Elu": 22,
        "Gelu": 20,
        "HardSigmoid": 22,
        "HardSwish": 22,
        "LeakyRelu": 16,
        "LogSoftmax": 13,
        "PRelu": 16,
        "Relu": 14,
        "Sigmoid": 13,
        "Softmax": 13,
        "Softplus": 22,
        "Tanh": 13,
    },
    "convolution": {"Conv": 22, "ConvTranspose": 22},
    "elementwise": {
        "Abs": 13,
        "Add": 14,
        "Cast": 25,
        "Div": 14,
        "Dropout": 22,
        "Erf": 13,
        "Exp": 13,
        "Identity": 25,
        "Log": 13,
        "Max": 13,
        "Min": 13,
        "Mul": 14,
        "Neg": 13,
        "Pow": 15,
        "Reciprocal": 13,
        "Sqrt": 13,
        "Sub": 14,
        "Sum": 13,
        "Where": 16,
    },
    "linear": {"Gemm": 13, "MatMul": 13},
    "normalization": {"BatchNormalization": 15, "InstanceNormalization": 22, "LayerNormalization": 17},
    "pooling": {"AveragePool": 22, "GlobalAveragePool": 22, "GlobalMaxPool": 22, "MaxPool": 22},
    "reduction": {"ReduceL2": 18, "ReduceMax": 20, "ReduceMean": 18, "ReduceSum": 13},
    "selection": {"Gather": 13, "Pad": 25, "Slice": 13},
    "shaping": {
        "Concat": 13,
        "Expand": 13,
        "Flatten": 25,
        "Reshape": 25,
        "Split": 18,
        "Squeeze": 25,
        "Transpose": 25,
        "Unsqueeze": 25,
    },
}
"""Modules of rules to the ops of ordinary networks in them, and until which version each is known.

They are listed here so that looking one up imports no module; any other op imports all modules of rules.
"""

_HOME = {op: (family, until) for family, ops in HOMES.items() for op, until in ops.items()}
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
        if not key[0] and op in _HOME:
            return _ordinary(op)
        _load("")
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


@cache
def _ordinary(op: str) -> Entry:
    """Return the entry of an op whose module is imported when its rule is called."""
    family, until = _HOME[op]

    def rule(s: GradientSite) -> Grads:
        _load(family)
        found = _ENTRIES["", op].rule
        assert found is not None
        return found(s)

    return Entry(op, "", 1, until, Kind.RULE, rule, family, "")
