"""How scales move through each op: kept, tied together, absorbed by weights, or stuck.

Everything that is not named here lets no scale through: Sigmoid, Softmax, Gelu, HardSwish, Clip
with an upper bound, bodies of If and Loop, ops of other domains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnx

from cloakonnx.graph.fold._forest import Ids
from cloakonnx.graph.fold._scales import MOST_CHANNELS
from cloakonnx.graph.fold._site import ScaleSite, StuckError, reshaped
from cloakonnx.graph.index.constants import sliced
from cloakonnx.graph.index.traits import TRAITS, Scales
from cloakonnx.graph.masks.taps import FLOAT_TYPES

Rule: TypeAlias = Callable[[ScaleSite], Ids]
"""Returns the channels of the first output; raises StuckError where no scale moves through."""

_MOST_FREE = 1 << 16
"""Elements of the largest constant factor that absorbs scales; a scale moves past a larger one."""


def _kept(site: ScaleSite) -> Ids:
    """Positive scales commute: Relu, LeakyRelu, Identity."""
    return site.data()


def _prelu(site: ScaleSite) -> Ids:
    if not site.is_constant(1):
        raise StuckError("its slope is computed")
    return site.data()


def _dropout(site: ScaleSite) -> Ids:
    training = site.value(2)
    if site.has(2) and (training is None or training.any()):
        raise StuckError("it may be in training mode")
    return site.data()


def _cast(site: ScaleSite) -> Ids:
    info = site.index.infos.get(site.node.input[0])
    if info is None or info.elem_type not in FLOAT_TYPES or site.attributes["to"] not in FLOAT_TYPES:
        raise StuckError("it does not cast from float to float")
    return site.data()


def _clip(site: ScaleSite) -> Ids:
    low, high = site.attr("min"), site.attr("max")
    low = site.value(1) if site.has(1) else low
    if high is not None or site.has(2) or low is None or np.any(low):
        raise StuckError("it clips to bounds other than 0 and infinity")
    return site.data()


def _pool(site: ScaleSite) -> Ids:
    return site.only(site.data(), [1])


def _reduce(site: ScaleSite) -> Ids:
    ids = site.data()
    given = site.attr("axes") if not site.has(1) else site.value(1)
    if given is None:
        raise StuckError("it reduces over all axes, or over axes that are not known")
    axes = [int(axis) % ids.ndim for axis in given]
    left = site.only(ids, [axis for axis in range(ids.ndim) if axis not in axes])
    return left if site.attr("keepdims", 1) else left.squeeze(tuple(axes))


def _resize(site: ScaleSite) -> Ids:
    before, after = site.shape(0)[:2], site.output_shape()[:2]
    if before[1:] != after[1:] or not isinstance(after[1], int):
        raise StuckError("it may resize the channels")
    if site.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise StuckError("it extrapolates with a constant")
    return site.only(site.data(), [1])


def _reshape(site: ScaleSite) -> Ids:
    if site.node.op_type == "Flatten":
        same_batch = site.attr("axis", 1) == 1
    else:
        wanted = site.value(1)
        same_batch = wanted is not None and wanted.size > 0 and int(wanted.reshape(-1)[0]) == 0
        same_batch = same_batch and not site.attr("allowzero", 0)
    found = reshaped(site.data(), site.shape(0), site.output_shape(), same_batch=same_batch)
    if found is None:
        raise StuckError("it is not known where it moves the channels")
    return found


def _transpose(site: ScaleSite) -> Ids:
    return np.transpose(site.data(), site.attr("perm"))


def _expand(site: ScaleSite) -> Ids:
    ids = site.data()
    return ids.reshape((1,) * (len(site.output_shape()) - ids.ndim) + ids.shape)


def _concat(site: ScaleSite) -> Ids:
    positions = range(len(site.node.input))
    rank = len(site.output_shape())
    axis = site.attributes["axis"] % rank
    parts = [_part(site, position, rank) for position in positions]
    sizes = [site.shape(position)[axis] for position in positions]
    if not all(isinstance(size, int) for size in sizes):
        return site.joined(list(positions)) if all(part.shape[axis] == 1 for part in parts) else _unknown(axis)
    if all(part.shape[axis] == 1 for part in parts) and axis != 1:
        for part in parts[1:]:
            site.system.equal(parts[0], part, site.label)
        return np.broadcast_arrays(*parts)[0]
    others = np.broadcast_shapes(*((*part.shape[:axis], 1, *part.shape[axis + 1 :]) for part in parts))
    if np.prod(others, dtype=np.float64) * sum(size for size in sizes if isinstance(size, int)) > MOST_CHANNELS:
        raise StuckError("it has too many channels")
    wide = [
        np.broadcast_to(part, (*others[:axis], size, *others[axis + 1 :]))
        for part, size in zip(parts, sizes, strict=True)
        if isinstance(size, int)
    ]
    return np.concatenate(wide, axis=axis)


def _unknown(axis: int) -> Ids:
    raise StuckError(f"the sizes along axis {axis} are not known")


def _part(site: ScaleSite, position: int, rank: int) -> Ids:
    """The channels of an input that may be constant: zeros take any scale."""
    name = site.node.input[position]
    if not site.is_constant(position):
        return site.ids(position)
    if site.weights.is_zero(name):
        sizes = site.shape(position)
        return site.system.fresh(*(size if isinstance(size, int) else 1 for size in sizes))
    return site.system.fixed(rank, f"{site.label} reads the constant {name!r}")


def _slice(site: ScaleSite) -> Ids:
    ids = site.data()
    if max(ids.shape, default=1) == 1:
        return ids
    given = [site.value(position) for position in (1, 2, 3, 4)]
    if not site.has(1):
        named = [site.attr(key) for key in ("starts", "ends", "axes")]
        given = [*(None if each is None else np.asarray(each) for each in named), None]
    axes = given[2] if given[2] is not None or site.has(3) else None
    if site.has(3) and axes is None:
        raise StuckError("its axes are not known")
    touched = range(ids.ndim) if axes is None else [int(axis) % ids.ndim for axis in axes]
    if all(ids.shape[axis] == 1 for axis in touched):
        return ids
    try:
        index = sliced(ids.ndim, given[0], given[1], axes, given[3])
    except TypeError:
        raise StuckError("its bounds are not known") from None
    return ids[tuple(part if size > 1 else slice(None) for part, size in zip(index, ids.shape, strict=True))]


def split(site: ScaleSite) -> list[Ids]:
    """Return the channels of all outputs of a Split."""
    ids = site.data()
    axis = site.attr("axis", 0) % ids.ndim
    if ids.shape[axis] == 1:
        return [ids] * len(site.node.output)
    sizes = [site.index.shape(name) for name in site.node.output]
    widths = [None if shape is None or len(shape) <= axis else shape[axis] for shape in sizes]
    if not all(isinstance(width, int) for width in widths):
        raise StuckError("the sizes of its outputs are not known")
    ends = np.cumsum([width for width in widths if isinstance(width, int)])
    return list(np.split(ids, ends[:-1], axis))


def _pad(site: ScaleSite) -> Ids:
    ids = site.data()
    mode = site.attr("mode", "constant")
    fill = site.value(2) if site.has(2) else np.asarray(site.attr("value", 0.0))
    if mode == "constant" and (fill is None or fill.any()):
        raise StuckError("it pads with a value other than 0")
    pads = site.value(1) if site.has(1) else site.attr("pads")
    if pads is None or site.has(3):
        raise StuckError("it is not known where it pads")
    before, after = np.asarray(pads).reshape(2, -1).tolist()
    for axis in range(ids.ndim):
        size = site.shape(0)[axis]
        if not (before[axis] or after[axis]) or (axis != 1 and ids.shape[axis] == 1):
            continue
        if mode != "constant" or not isinstance(size, int) or min(before[axis], after[axis]) < 0:
            raise StuckError("it pads the channels")
        if ids.size // ids.shape[axis] * (size + before[axis] + after[axis]) > MOST_CHANNELS:
            raise StuckError("it has too many channels")
        wide = np.broadcast_to(ids, (*ids.shape[:axis], size, *ids.shape[axis + 1 :]))
        around = [(*ids.shape[:axis], count, *ids.shape[axis + 1 :]) for count in (before[axis], after[axis])]
        ids = np.concatenate([site.system.fresh(*around[0]), wide, site.system.fresh(*around[1])], axis)
    return ids


def _add(site: ScaleSite) -> Ids:
    """Both inputs of a sum have the same scale; a constant takes that of the other."""
    positions = [position for position in range(len(site.node.input)) if not site.is_constant(position)]
    if not positions:
        raise StuckError("it adds constants")
    ids = site.joined(positions)
    constants = [position for position in range(len(site.node.input)) if position not in positions]
    for position in constants:
        weight = site.changeable(position)
        if weight is not None:
            site.absorb(weight, (site.narrowed(ids, weight.shape), 1))
    return _raised(site, ids)


def _extreme(site: ScaleSite) -> Ids:
    """Max, Min and Mean: positive scales commute where all inputs have the same one."""
    constants = [position for position in range(len(site.node.input)) if site.is_constant(position)]
    if any(not site.weights.is_zero(site.node.input[position]) for position in constants):
        raise StuckError("it reads a constant that is not 0")
    return _raised(site, site.joined([p for p in range(len(site.node.input)) if p not in constants]))


def _raised(site: ScaleSite, ids: Ids) -> Ids:
    """Give channels the rank of the output, where a constant of more axes was read."""
    return ids.reshape((1,) * (len(site.output_shape()) - ids.ndim) + ids.shape)


def _times(site: ScaleSite) -> Ids:
    """Mul and Div: a constant factor absorbs scales or lets them pass; of two tensors one is left alone."""
    constant = [site.is_constant(position) for position in (0, 1)]
    divides = site.node.op_type == "Div"
    if any(constant):
        if divides and constant[0]:
            raise StuckError("it divides by a tensor")
        return _scaled(site, constant.index(False), divides=divides)
    first, second = site.ids(0), site.ids(1)
    if divides or site.system.is_fixed(second):
        gate = 1
    else:  # a gate that is free or small: fixing it costs least
        gate = 0 if site.system.is_fixed(first) or first.size < second.size else 1
    site.system.fix(site.ids(gate), f"{site.label} multiplies by {site.node.input[gate]!r}")
    wide = np.broadcast_arrays(first, second)[1 - gate]
    return _raised(site, wide)


def _scaled(site: ScaleSite, data: int, *, divides: bool) -> Ids:
    ids = _raised(site, site.ids(data))
    found = site.weights.find([site.position], site.node.input[1 - data])
    if isinstance(found, str) or np.prod(found.shape) > _MOST_FREE or np.prod(found.shape) == 1:
        return ids
    shape = (1,) * (ids.ndim - len(found.shape)) + found.shape
    if shape[0] != 1 or any(mine > 1 and its == 1 for mine, its in zip(ids.shape, shape, strict=True)):
        return ids
    made = site.system.fresh(*shape)
    power = -1 if divides else 1
    site.absorb(found, (site.narrowed(made, found.shape), power), (site.narrowed(ids, found.shape), -power))
    return made


def _batch_normalization(site: ScaleSite) -> Ids:
    if site.attr("training_mode", 0) or any(site.node.output[1:]) or not site.attr("spatial", 1):
        raise StuckError("it is in training mode, or not over channels")
    scale, bias, mean = site.weight(1, 1), site.changeable(2), site.changeable(3)
    count = scale.shape[0]
    ids = site.data()
    taken = site.vector(ids, 1, count)
    made = site.system.fresh(count)
    site.absorb(scale, (made, 1), (taken, -1))
    site.absorb(bias, (made, 1))
    site.absorb(mean, (taken, 1))
    return made.reshape(1, count, *[1] * (ids.ndim - 2))


def _normalisation(site: ScaleSite) -> Ids:
    """LayerNormalization and InstanceNormalization: nothing goes in, but what they multiply by can scale the output."""
    weight = site.weight(1)
    bias = site.changeable(2) if site.has(2) else None
    ids = site.data()
    if len(site.node.output) > 1 and any(site.node.output[1:]):
        raise StuckError("its statistics are read")
    if bias is not None and bias.shape != weight.shape:
        raise StuckError("its scale and its bias differ in shape")
    site.system.fix(ids, f"{site.label} does away with scales")
    made = site.system.fresh(*weight.shape)
    site.absorb(weight, (made, 1))
    site.absorb(bias, (made, 1))
    if site.node.op_type == "InstanceNormalization":
        return made.reshape(1, -1, *[1] * (ids.ndim - 2))
    return made.reshape(*[1] * (ids.ndim - made.ndim), *made.shape)


def _conv(site: ScaleSite) -> Ids:
    weight = site.weight(1)
    transposed = site.node.op_type == "ConvTranspose"
    bias = site.changeable(2) if site.has(2) else None
    group = site.attr("group", 1)
    rows, columns, *kernel = weight.shape
    if group < 1 or rows % group:
        raise StuckError(f"its weight {weight.name!r} does not divide into {group} groups")
    inputs, outputs = (rows, columns * group) if transposed else (columns * group, rows)
    ids = site.data()
    if ids.ndim != len(weight.shape):
        raise StuckError("the ranks of its data and its weight differ")
    taken, made = site.vector(ids, 1, inputs), site.system.fresh(outputs)
    ones = [1] * len(kernel)
    if transposed:  # (inputs, outputs / group, ...): row i is of group i // (inputs / group)
        by_group = np.repeat(made.reshape(group, columns), rows // group, axis=0)
        site.absorb(weight, (by_group.reshape(rows, columns, *ones), 1), (taken.reshape(rows, 1, *ones), -1))
    else:  # (outputs, inputs / group, ...): row o reads group o // (outputs / group)
        by_group = np.repeat(taken.reshape(group, columns), rows // group, axis=0)
        site.absorb(weight, (made.reshape(rows, 1, *ones), 1), (by_group.reshape(rows, columns, *ones), -1))
    site.absorb(bias, (made, 1))
    return made.reshape(1, outputs, *ones)


def _gemm(site: ScaleSite) -> Ids:
    if site.attr("transA", 0):
        raise StuckError("it transposes its data")
    weight = site.weight(1, 2)
    turned = bool(site.attr("transB", 0))
    inputs, outputs = weight.shape[::-1] if turned else weight.shape
    bias = None
    if site.has(2):
        if not site.is_constant(2):
            raise StuckError("what it adds is computed")
        bias = site.changeable(2)
        if bias is not None and (not bias.shape or bias.shape[-1] != outputs):
            raise StuckError(f"its bias {bias.name!r} is one number for all outputs")
    taken, made = site.vector(site.data(), 1, inputs), site.system.fresh(outputs)
    matrix = [(made.reshape(1, -1), 1), (taken.reshape(-1, 1), -1)]
    site.absorb(weight, *((ids.T, power) if turned else (ids, power) for ids, power in matrix))
    site.absorb(bias, (made, 1))
    return made.reshape(1, outputs)


def _matmul(site: ScaleSite) -> Ids:
    if site.is_constant(0):
        raise StuckError("its weight is on the left")
    if not site.is_constant(1):
        raise StuckError("it multiplies two tensors")
    ids = site.data()
    if len(site.shape(1)) != 2:
        raise StuckError("its weight is no matrix")
    if ids.ndim >= 2 and ids.shape[-1] == 1 and max(ids.shape) > 1:
        return ids  # the scale runs along another axis, which the product leaves alone
    weight = site.weight(1, 2)
    inputs, outputs = weight.shape
    taken, made = site.vector(ids, ids.ndim - 1, inputs), site.system.fresh(outputs)
    site.absorb(weight, (made.reshape(1, -1), 1), (taken.reshape(-1, 1), -1))
    return made.reshape(*[1] * (ids.ndim - 1), outputs)


RULES: dict[Scales, Rule] = {
    Scales.KEPT: _kept,
    Scales.SLOPED: _prelu,
    Scales.DROPPED: _dropout,
    Scales.CAST: _cast,
    Scales.CLIPPED: _clip,
    Scales.POOLED: _pool,
    Scales.REDUCED: _reduce,
    Scales.RESIZED: _resize,
    Scales.RESHAPED: _reshape,
    Scales.TRANSPOSED: _transpose,
    Scales.EXPANDED: _expand,
    Scales.JOINED: _concat,
    Scales.SLICED: _slice,
    Scales.PADDED: _pad,
    Scales.SUMMED: _add,
    Scales.COMPARED: _extreme,
    Scales.MULTIPLIED: _times,
    Scales.CONVOLVED: _conv,
    Scales.GEMM: _gemm,
    Scales.MATMUL: _matmul,
    Scales.NORMALISED: _batch_normalization,
    Scales.STANDARDISED: _normalisation,
}


def rule_of(node: onnx.NodeProto) -> Rule | None:
    """Return how scales move through a node of the default domain, None where they do not."""
    traits = TRAITS.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
    return None if traits is None or traits.scales is None else RULES[traits.scales]
