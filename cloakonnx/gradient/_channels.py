"""Gradients by masks on the channels of a convolution's weight, without the gradient by the weight.

With y = conv(x, W mo mi) + b, and dy and dx the gradients that come in and go on: the gradient by mo is the sum of
dy (y - b) over the batch and space, divided by mo; that by mi the sum of dx x divided by mi, both summed over groups
where groups share a channel's mask. That is a product and a sum of activations, where the weight's gradient would be a
convolution of the size of the layer's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from cloakonnx.gradient._site import GradientSite
from cloakonnx.graph.build import Tensor
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.masks.weights import WeightMask

LEAST = 1e-6
"""Smallest absolute value of a mask in gradient graphs: gradients are divided by it."""

_OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1}


@dataclass(frozen=True)
class ChannelMasks:
    """The masks on the channels of one weight.

    Attributes:
        masks: By the axis of the weight that each runs along, the tensor that the weight was multiplied by.
        variables: The initializer of each, which is differentiated by.
        shapes: The shape of each.
    """

    masks: dict[int, str]
    variables: dict[int, str]
    shapes: dict[int, tuple[int, ...]]

    def add(self, axis: int, mask: Tensor, variable: str, shape: tuple[int, ...]) -> None:
        """Add a mask along an axis."""
        self.masks[axis], self.variables[axis], self.shapes[axis] = mask.name, variable, shape

    def needs(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """Return the inputs of the convolution whose gradient the masks' takes: the data, for those on its channels."""
        return (0,) if set(self.masks) - {_OUTPUT_AXIS[node.op_type]} else ()


def channel_axes(index: Index, masks: Sequence[WeightMask]) -> list[int]:
    """Return the axis of channels that each mask on a weight runs along.

    None of them where one runs along others, or where more than one convolution reads the weight, as its weight.
    """
    name = masks[0].weight
    readers, weight = index.consumers.get(name, []), index.static(name)
    if len(readers) != 1 or weight is None or len(masks) > 2 or not index.is_float(name):
        return []
    node = index.graph.node[readers[0]]
    if node.op_type not in _OUTPUT_AXIS or node.domain or list(node.input).count(name) != 1 or node.input[1] != name:
        return []
    fitting = [[axis for axis in (0, 1) if _is_along(axis, mask.shape, weight)] for mask in masks]
    orders = [[axis] for axis in fitting[0]] if len(masks) == 1 else [[0, 1], [1, 0]]
    return next((each for each in orders if all(a in b for a, b in zip(each, fitting, strict=True))), [])


def _is_along(axis: int, shape: Sequence[int], weight: Sequence[int]) -> bool:
    """Whether a mask has a number for each channel along an axis and is 1 along the others."""
    return all(size == (weight[each] if each == axis else 1) for each, size in enumerate(shape))


def floored(mask: Tensor) -> Tensor:
    """Return a mask that has no 0."""
    return mask.op("Max", mask.builder.constant(LEAST, mask.dtype))


def by_channels(
    site: GradientSite, channels: ChannelMasks, dx: Tensor | None, later: Mapping[str, tuple[str, str | None]]
) -> Iterator[tuple[str, Tensor]]:
    """Yield each mask's variable and its gradient.

    Args:
        site: The convolution.
        channels: The masks on its weight.
        dx: The gradient that it passes back to its data input.
        later: Of a tensor that only a Relu reads, or an Add whose result only a Relu reads: the Relu's output, and the
            Add's other operand.
    """
    output = _OUTPUT_AXIS[site.node.op_type]
    for axis, mask in channels.masks.items():
        if axis == output:
            value, other = _value(site, later)
            total = _dot(site.dy, value, like=site.y)
            if other is not None:
                total = total - _dot(site.dy, other, like=site.y)
            if len(site.node.input) > 2 and site.node.input[2]:
                total = total - _over_space(site.dy, like=site.y) * site.input(2)
        else:
            assert dx is not None  # asked for
            total = _dot(dx, site.x, like=site.x)
        size = channels.shapes[axis][axis]
        shared = total.reshape(-1, size).sum(0, keepdims=False) if site.attr("group", 1) > 1 else total
        yield channels.variables[axis], shared.reshape(*channels.shapes[axis]) / site.build.tensor(mask)


def _value(site: GradientSite, later: Mapping[str, tuple[str, str | None]]) -> tuple[Tensor, Tensor | None]:
    """Return the output where its gradient is not 0: a tensor, less another one; of a fused node where there is one."""
    found = later.get(site.node.output[0])
    if found is None:
        return site.y, None
    result, other = found
    return site.build.tensor(result), None if other is None else site.build.tensor(other)


def _dot(first: Tensor, second: Tensor, *, like: Tensor) -> Tensor:
    """Return the sum of products over everything but axis 1, both being of the shape of another tensor."""
    return _over_space(first * second, like=like)


def _over_space(values: Tensor, *, like: Tensor) -> Tensor:
    """Return the sum over everything but axis 1 of values that have the shape of another tensor.

    Over space by pooling, where the size is known: ONNX Runtime does that, and products, in the blocked layout that
    convolutions have, and no activation is reordered.
    """
    sizes = (like.dims or ())[2:]
    known = [size for size in sizes if isinstance(size, int)]
    axes = [0, *range(2, 2 + len(sizes))]
    if not sizes or len(known) < len(sizes):
        return values.sum(axes, keepdims=False)
    return values.op("GlobalAveragePool").sum(axes, keepdims=False) * float(math.prod(known))


def later_values(nodes: Sequence[onnx.NodeProto], index: Index) -> dict[str, tuple[str, str | None]]:
    """Return where a tensor's values can be had from a Relu behind it, alone or behind an Add, see :func:`by_channels`.

    ONNX Runtime fuses these into the convolution, unless something else reads the convolution's output.
    """
    given = {value.name for value in index.graph.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def only_reader(name: str) -> onnx.NodeProto | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and name not in given and not found[0].domain else None

    found: dict[str, tuple[str, str | None]] = {}
    for node in nodes:
        if node.op_type not in _OUTPUT_AXIS:
            continue
        name = node.output[0]
        reader, other = only_reader(name), None
        if reader is not None and reader.op_type == "Add" and index.shape(name) == index.shape(reader.output[0]):
            other = next((each for each in reader.input if each != name), None)
            if other is None or index.shape(other) != index.shape(name):
                continue
            reader = only_reader(reader.output[0])
        if reader is not None and reader.op_type == "Relu":
            found[name] = reader.output[0], other
    return found
