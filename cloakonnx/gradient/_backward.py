"""Reverse mode: walks the nodes backwards and lets each one's rule emit its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloakonnx.gradient import registry
from cloakonnx.gradient._channels import ChannelMasks, by_channels, later_values
from cloakonnx.gradient._path import Path, check_rules
from cloakonnx.gradient._site import GradientSite
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.index import reads


def backpropagate(
    build: Builder,
    path: Path,
    seeds: Mapping[str, Tensor],
    variables: Sequence[str],
    *,
    channels: Mapping[str, ChannelMasks] | None = None,
) -> dict[str, Tensor]:
    """Emit the backward graph.

    Args:
        build: Where to emit.
        path: From :func:`find_path`.
        seeds: Gradient of each seed tensor.
        variables: Tensors whose gradients are asked for.
        channels: Weights that nothing is differentiated by but the masks on their channels.

    Returns:
        The gradient of each variable that the loss depends on.

    Raises:
        DifferentiationError: A rule refuses its node.
    """
    check_rules(path, build.opset)
    parts: dict[str, list[Tensor]] = {name: [grad] for name, grad in seeds.items()}
    later = later_values(path.nodes, build.index) if channels else {}
    for node in reversed(path.nodes):
        grads = tuple(_gathered(parts, name) for name in node.output)
        names = reads(node)
        wanted = tuple(i for i, name in enumerate(names) if path.differentiates(node, name, build.index))
        entry = registry.find(node.domain, node.op_type)
        if not any(grads) or not wanted or entry is None or entry.rule is None:
            continue
        masked = None if channels is None or 1 not in wanted else channels.get(names[1])
        if masked is not None:
            wanted = tuple(dict.fromkeys((*masked.needs(node), *(i for i in wanted if i != 1))))
        site = GradientSite(node, build.index, build, grads, wanted)
        found = dict(entry.rule(site))
        for position, grad in found.items():
            parts.setdefault(names[position], []).append(grad)
        if masked is not None:
            parts.update((name, [grad]) for name, grad in by_channels(site, masked, found.get(0), later))
    asked = {name: _gathered(parts, name) for name in variables}
    return {name: grad for name, grad in asked.items() if grad is not None}


def _gathered(parts: dict[str, list[Tensor]], name: str) -> Tensor | None:
    """Sum what the consumers of a tensor gave, once."""
    grads = parts.get(name)
    if not grads:
        return None
    if len(grads) > 1:
        first, *others = grads
        parts[name] = [first.op("Add" if len(grads) == 2 else "Sum", *others)]
    return parts[name][0]
