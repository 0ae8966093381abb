"""What is put into a forward graph before it is differentiated: masks at taps and on weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from cloakonnx.errors import TapError
from cloakonnx.gradient._channels import ChannelMasks, channel_axes, floored
from cloakonnx.gradient._opset import OPSET
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.index import Index, rename_reads, sorted_order
from cloakonnx.graph.masks.weights import WeightMask


def insert_weight_masks(
    graph: onnx.GraphProto, masks: Mapping[str, WeightMask], *, differentiated: bool = False
) -> tuple[dict[str, str], dict[str, ChannelMasks]]:
    """Multiply masks into weights, and have all that reads a weight read the product.

    The masks, all 1, are initializers and no inputs: as inputs they would make the weights variable, and convolutions
    would lose the runtime's blocked layout. Callers replace their values and create a new session.

    Args:
        graph: The graph, which is changed.
        masks: The masks by keys of the caller's.
        differentiated: Whether there will be gradients by the masks.

    Returns:
        Each mask's initializer, and of products whose gradient is not needed, because their masks run along channels,
        these masks.
    """
    index = Index(graph)
    count = len(graph.node)
    build = Builder(graph, index, opset=OPSET, prefix="weights/")
    names: dict[str, str] = {}
    products: dict[str, Tensor] = {}
    channels: dict[str, ChannelMasks] = {}
    for weight, same in _by_weight(masks).items():
        if weight not in index.initializers and weight not in index.infos:
            raise TapError(
                f"the weight {weight!r} is not in the graph that is differentiated: choose other {{layers}}",
                parameter="layers",
            )
        elem_type = index.elem_type(weight)
        wide = elem_type if elem_type == TensorProto.DOUBLE else TensorProto.FLOAT
        axes = channel_axes(index, list(same.values())) if differentiated and wide == elem_type else []
        product, on_axes = Tensor(build, weight, elem_type), ChannelMasks({}, {}, {})
        for number, (key, (_, shape)) in enumerate(same.items()):
            ones = np.ones(shape, onnx.helper.tensor_dtype_to_np_dtype(wide))
            tensor = numpy_helper.from_array(ones, build.fresh(f"{weight}_mask"))
            graph.initializer.append(tensor)
            index.add_initializer(tensor)
            names[key] = tensor.name
            mask = Tensor(build, tensor.name, wide)
            if axes:
                mask = floored(mask)
                on_axes.add(axes[number], mask, tensor.name, shape)
            product = product * (mask if wide == elem_type else mask.cast(elem_type))
        products[weight] = product
        if axes:
            channels[product.name] = on_axes
    made, others = list(graph.node)[count:], list(graph.node)[:count]
    renamed = {weight: product.name for weight, product in products.items()}
    for node in others:
        rename_reads(node, renamed)
    nodes = [*made, *others]
    _set_nodes(graph, [nodes[place] for place in sorted_order(nodes) or range(len(nodes))])
    return {key: names[key] for key in masks}, channels


def _by_weight(masks: Mapping[str, WeightMask]) -> dict[str, dict[str, WeightMask]]:
    found: dict[str, dict[str, WeightMask]] = {}
    for key, mask in masks.items():
        found.setdefault(mask.weight, {})[key] = mask
    return found


def insert_mask(graph: onnx.GraphProto, tap: str, axis: int | None) -> str:
    """Multiply a mask input in at a tap: rename what makes it, so that every consumer follows."""
    index = Index(graph)
    producer, shape = index.producer(tap), index.shape(tap)
    if producer is None or tap in index.fixed:
        raise TapError(f"tensor {tap!r} does not depend on the data: choose another tap")
    if shape is None or not index.is_float(tap):
        raise TapError(f"tensor {tap!r} cannot be masked: its rank is unknown or it is not floating point")
    if axis is not None and not -len(shape) <= axis < len(shape):
        raise TapError(f"feature axis {axis} is not an axis of {tap!r}, which has {len(shape)}")
    elem_type = index.elem_type(tap)
    wide = elem_type if elem_type == TensorProto.DOUBLE else TensorProto.FLOAT
    place, count = index.producers[tap][0] + 1, len(graph.node)
    build = Builder(graph, index, opset=OPSET, prefix=f"{tap}_")
    raw = Tensor(build, build.fresh(f"{tap}_unmasked"), elem_type)
    producer.output[list(producer.output).index(tap)] = raw.name
    dims = [d if isinstance(d, int) else None for d in (shape[1:] if axis is None else [shape[axis]])]
    mask = build.input(build.fresh(f"{tap}_mask"), wide, dims)
    weights = mask if wide == elem_type else mask.cast(elem_type)
    if axis is not None:
        weights = weights.reshape(-1, *(1,) * (len(shape) - 1 - axis % len(shape)))
    build.op("Mul", raw, weights, name=tap)
    nodes = list(graph.node)
    _set_nodes(graph, [*nodes[:place], *nodes[count:], *nodes[place:count]])
    return mask.name


def _set_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)
