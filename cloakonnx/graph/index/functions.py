"""Local functions: counted before they are written out at every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import onnx
import onnx.inliner

from cloakonnx.errors import ModelError
from cloakonnx.graph.index.index import nodes_within
from cloakonnx.graph.index.limits import DEPTH, NODES, WRITTEN_BYTES, counted, megabytes, quoted
from cloakonnx.graph.index.normal import plain_domain

_Key: TypeAlias = tuple[str, str, str]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its local functions written out, or the model itself where it has none.

    Raises:
        ModelError: that takes more than the limits allow, or cannot be done.
    """
    if not model.functions:
        return model
    check_functions(model)
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises bare RuntimeErrors and the checker's own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"its local functions cannot be written out ({reason}); export it again") from None


def check_functions(model: onnx.ModelProto) -> None:
    """Check the size of local functions when they are inlined, without inlining them.

    Raises:
        ModelError: a name is there twice, functions call each other in a circle, or the whole is above the limits.
    """
    if not model.functions:
        return
    functions = {_key(f): f for f in model.functions}
    if len(functions) < len(model.functions):
        names = [_key(f) for f in model.functions]
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"it has two local functions {quoted('.'.join(filter(None, twice)))}; export it again")
    calls = {key: [k for k in map(_called, nodes_within(f.node)) if k in functions] for key, f in functions.items()}
    order = _callees_first(calls)
    nodes = _written_out(order, calls, lambda key: sum(1 for _ in nodes_within(functions[key].node)))
    size = _written_out(order, calls, lambda key: functions[key].ByteSize())
    depths: dict[_Key, int] = {}
    for key in order:
        depths[key] = 1 + max((depths[k] for k in calls[key]), default=0)
        if depths[key] > DEPTH:
            raise ModelError(f"local functions call each other more than {DEPTH} deep, which is the limit")
    own = [k for k in map(_called, nodes_within(model.graph.node)) if k in functions]
    count = sum(1 for _ in nodes_within(model.graph.node)) + sum(nodes[k] for k in own)
    worst = max(own, key=lambda k: nodes[k], default=None)
    if worst is not None and count > NODES:
        raise ModelError(
            f"its local functions would be {counted(count)} nodes when written out, mostly those of "
            f"{quoted(functions[worst].name)}; the limit is {NODES:,}"
        )
    total = sum(size[k] for k in own)
    if total > WRITTEN_BYTES:
        raise ModelError(
            f"its local functions would take {megabytes(total)} when written out; the limit is "
            f"{megabytes(WRITTEN_BYTES)}"
        )


def _key(function: onnx.FunctionProto) -> _Key:
    return plain_domain(function.domain), function.name, getattr(function, "overload", "")


def _called(node: onnx.NodeProto) -> _Key:
    return plain_domain(node.domain), node.op_type, getattr(node, "overload", "")


def _callees_first(calls: dict[_Key, list[_Key]]) -> list[_Key]:
    """Return the functions so that each comes after those that it calls."""
    waiting = {key: len(set(called)) for key, called in calls.items()}
    callers: dict[_Key, set[_Key]] = {key: set() for key in calls}
    for key, called in calls.items():
        for each in called:
            callers[each].add(key)
    order = [key for key, count in waiting.items() if not count]
    for key in order:
        for caller in callers[key]:
            waiting[caller] -= 1
            if not waiting[caller]:
                order.append(caller)
    if len(order) < len(calls):
        stuck = next(key for key in calls if key not in set(order))
        raise ModelError(f"its local function {quoted(stuck[1])} calls itself, by way of others or directly")
    return order


def _written_out(order: list[_Key], calls: dict[_Key, list[_Key]], own: Callable[[_Key], int]) -> dict[_Key, int]:
    """Return the nodes and bytes of each function with all calls in it inlined."""
    found: dict[_Key, int] = {}
    for key in order:
        found[key] = own(key) + sum(found[k] for k in calls[key])
    return found
