"""Lists the tensors that could carry a mask, and finds the one that DeepCloak would take by default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx

from cloakonnx.errors import TapError, nearest
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.blocked import NCHWC
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.outputs import score_output
from cloakonnx.graph.index.traits import Trait, has
from cloakonnx.graph.masks._axes import contracted_axis, feature_axis, moved_axis
from cloakonnx.graph.masks._layers import factors, scores_of_classical
from cloakonnx.graph.masks.metadata import masks_of, nothing_left

FLOAT_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
}


@dataclass(frozen=True)
class Tap:
    """A computed tensor that can carry a mask.

    Attributes:
        name: The tensor.
        elem_type: ONNX element type: one of :data:`FLOAT_TYPES`.
        shape: Its dimensions: an int, a symbol's name, or None for one that is not known.
        feature_axis: The axis that counts its features.
        features: How many there are; None where the dimension is symbolic, so that the mask's length decides.
        node: Index of the node that makes it in the main graph.
        producer: That node's op type.
        consumers: Op types of the nodes that read it, in order.
        is_default: Whether this is the tap that verbs take when none is named.

    Examples:
        >>> import cloakonnx as ck
        >>> next(tap.features for tap in ck.taps("samples/digits_cnn.onnx") if tap.is_default)
        64
    """

    name: str
    elem_type: int
    shape: tuple[int | str | None, ...]
    feature_axis: int
    features: int | None
    node: int
    producer: str
    consumers: tuple[str, ...]
    is_default: bool = False

    @property
    def dtype(self) -> str:
        """Name of the element type."""
        return FLOAT_TYPES[self.elem_type]

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """The shape, with -1 for the features, that broadcasts a mask along the feature axis."""
        return (-1, *(1 for _ in range(len(self.shape) - 1 - self.feature_axis)))


def list_taps(model: Model) -> list[Tap]:
    """Return every tap of the main graph in the order of its nodes, the default one marked.

    A tap is a computed floating-point tensor of known rank, 2 or more, that depends on the input and carries no mask.
    """
    graph = model.structure
    default = default_tap(graph)
    masked = _masked_names(model)
    taps = []
    traced: dict[str, int | None] = {}
    for name in graph.producers:
        if _refusal(graph, name) is None and name not in masked:
            taps.append(_tap(graph, name, None, default, traced))
    return taps


def find_tap(model: Model, name: str | None = None, *, axis: int | None = None) -> Tap:
    """Return the named tap, or the default one.

    Args:
        model: The model.
        name: A tensor of the main graph.
        axis: Overrules the feature axis; negative counts from the end.

    Raises:
        TapError: no such tensor, or one that can't carry a mask; the message says why.
    """
    graph = model.structure
    default = default_tap(graph)
    if name is None:
        if default is None:
            raise TapError(
                f"{model.name} has no Gemm, MatMul or Conv with constant weights and a computed input of several "
                f"features before its output, so there is no default tap; {instead(model)}"
            )
        name = default.name
    refusal = _refusal(graph, name)
    if refusal is None and name in _masked_names(model):
        refusal = "is already masked; strip the model first, or choose another tap"
    if refusal is not None:
        raise TapError(f"{model.name}: tensor {name!r} {refusal}")
    return _tap(graph, name, axis, default)


@dataclass(frozen=True)
class _Place:
    """A tensor and its feature axis."""

    name: str
    axis: int

    def features(self, graph: Index) -> int | None:
        """Return how many features there are; None where that is open."""
        shape = graph.shape(self.name)
        size = None if shape is None else shape[self.axis]
        return size if isinstance(size, int) else None


def default_tap(graph: Index) -> _Place | None:
    """Return the default tap, None where there is none.

    The data input of the last Gemm, MatMul or Conv before the first output, along the axis that its weights contract;
    walked back through shape-only ops while the number of features falls, never through pooling, and never to one
    feature. From a tensor of one feature it is walked back to one that has more.
    """
    best = last = _last_weighted_input(graph)
    while last is not None and best is not None:
        last = _behind(graph, last)
        if last is None:
            break
        here, there = best.features(graph), last.features(graph)
        if here is None or there is None:
            continue
        if here == 1 < there:
            best = last
        elif there > here:
            break
        elif 1 < there < here:
            best = last
    return None if best is None or best.features(graph) == 1 else best


def _behind(graph: Index, place: _Place) -> _Place | None:
    """Return tensor and feature axis before the shape-only node that makes a tensor; None where there is none."""
    node = graph.producer(place.name)
    if node is None or not has(node.op_type, Trait.MOVES) or node.domain not in {"", "ai.onnx"} or not node.input:
        return None
    source = node.input[0]
    if _refusal(graph, source) is not None:
        return None
    axis = moved_axis(graph, node, place.axis) or feature_axis(graph, source)
    return None if axis is None else _Place(source, axis)


def _last_weighted_input(graph: Index) -> _Place | None:
    """Return the data input of the last node with constant weights that the class scores depend on."""
    if not graph.graph.output:
        return None
    before = ancestors(graph, score_output(graph))
    for index in [each for each in reversed(graph.order) if each in before]:
        node = graph.graph.node[index]
        computed = [name for name in factors(node) if name not in graph.constants]
        if len(computed) == 1:
            axis = contracted_axis(graph, node, computed[0])
            real = _real(graph, computed[0])
            if real is None or _refusal(graph, real) is not None:
                return None
            axis = axis or feature_axis(graph, real)
            return None if axis is None else _Place(real, axis)
    return None


def _real(graph: Index, name: str) -> str | None:
    """Return a tensor of integers as the floating-point one that it was made of; None where there is none."""
    if graph.is_float(name):
        return name
    node = graph.producer(name)
    return node.input[0] if node is not None and has(node.op_type, Trait.QUANTISES) else None


def ancestors(graph: Index, tensor: str) -> set[int]:
    """Return the indices of the nodes that a tensor depends on."""
    readers: dict[int, list[str]] = {}
    for name, indices in graph.consumers.items():
        for index in indices:
            readers.setdefault(index, []).append(name)
    seen: set[int] = set()
    waiting = [tensor]
    while waiting:
        found = graph.producers.get(waiting.pop())
        if found is not None and found[0] not in seen:
            seen.add(found[0])
            waiting += readers.get(found[0], [])
    return seen


def _refusal(graph: Index, name: str) -> str | None:  # noqa: PLR0911 - one return a reason
    """Return why a tensor can't carry a mask, or None where it can."""
    if name not in graph.producers:
        return _not_computed(graph, name)
    if name in graph.constants:
        return "is constant: it is computed from weights only, so it has no features to score"
    info = graph.infos.get(name)
    if name in graph.kinds:
        return f"is a value of kind {graph.kinds[name]}, not a tensor; a mask needs a floating-point tensor"
    if info is None:
        return "has an unknown type: shape inference can't tell it (is it the output of a custom op?)"
    if info.elem_type == 0:
        return "has an unknown element type: shape inference can't tell it (is it the output of a custom op?)"
    if info.elem_type not in FLOAT_TYPES:
        known = info.elem_type in onnx.TensorProto.DataType.values()
        kind = onnx.TensorProto.DataType.Name(info.elem_type).lower() if known else f"number {info.elem_type}"
        return f"has element type {kind}; a mask needs float16, bfloat16, float32 or float64"
    if info.shape is None:
        return "has an unknown rank: shape inference can't tell it, so the feature axis is not known"
    if len(info.shape) < 2:
        return f"has rank {len(info.shape)}; a tap needs a batch axis and a feature axis (rank 2 or more)"
    if name in graph.blocked:
        return f"is in ONNX Runtime's blocked layout ({NCHWC}); only tensors behind a ReorderOutput can be taps"
    return None


def _not_computed(graph: Index, name: str) -> str:
    if name in graph.constants:
        return "is an initializer (a weight), not computed; 'cloakonnx inspect' lists the taps"
    if name in {i.name for i in graph.graph.input}:
        return "is an input of the model, not computed by it; 'cloakonnx inspect' lists the taps"
    if name in graph.inner:
        holder = graph.graph.node[graph.inner[name]]
        instead = "take one in front of that node or behind it ('cloakonnx inspect' lists them)"
        if holder.op_type == "If":
            instead += "; an If whose condition is constant is taken out by onnxslim or onnxsim"
        return (
            f"is inside the body of {holder.op_type} node {holder.name!r}; only tensors of the main graph can be taps: "
            f"{instead}"
        )
    if name in graph.functions:
        return (
            f"is inside the local function {graph.functions[name]!r}; only tensors of the main graph can be taps: "
            "onnx.inliner.inline_local_functions(model) gives a model with functions written out, whose taps "
            "'cloakonnx inspect' lists"
        )
    return f"does not exist{nearest(name, graph.producers)}"


def _tap(
    graph: Index, name: str, axis: int | None, default: _Place | None, traced: dict[str, int | None] | None = None
) -> Tap:
    info = graph.infos[name]
    shape = info.shape or ()
    is_default = default is not None and default.name == name
    chosen = default.axis if default is not None and is_default else feature_axis(graph, name, traced)
    if axis is not None:
        chosen = _checked_axis(name, axis, len(shape))
    if chosen is None:
        raise TapError(f"tensor {name!r} has no feature axis")
    size = shape[chosen]
    index = graph.producers[name][0]
    return Tap(
        name=name,
        elem_type=info.elem_type,
        shape=shape,
        feature_axis=chosen,
        features=size if isinstance(size, int) else None,
        node=index,
        producer=graph.graph.node[index].op_type,
        consumers=tuple(graph.graph.node[i].op_type for i in graph.consumers.get(name, [])),
        is_default=is_default,
    )


def _checked_axis(name: str, axis: int, rank: int) -> int:
    resolved = axis + rank if axis < 0 else axis
    if not 1 <= resolved < rank:
        raise TapError(f"feature axis {axis} does not fit {name!r}, which has rank {rank} (axis 0 is the batch)")
    return resolved


def _masked_names(model: Model) -> set[str]:
    """Names before and after the masks that are in the model already."""
    return {name for mask in masks_of(model.proto) for name in (mask.source, mask.result)}


def activation_taps(model: Model) -> list[Tap]:
    """Return the taps after every activation that feeds a Conv, Gemm or MatMul with constant weights, in graph order.

    From the data input of each such layer the graph is followed back through shapes, pools, sums, concatenations,
    constant factors and quantisation to the nearest activation or LayerNormalization. A product or quotient of two
    computed tensors counts as an activation, for gates and exporters' spelled-out SiLU, GELU and HardSwish end in one.
    """
    graph = model.structure
    if not graph.graph.output:
        return []
    reached: set[str] = set()
    for index in ancestors(graph, score_output(graph)):
        node = graph.graph.node[index]
        computed = [name for name in factors(node) if name not in graph.constants]
        if len(computed) == 1:
            reached |= set(_activations(graph, computed[0]))
    return [tap for tap in list_taps(model) if tap.name in reached]


def _activations(graph: Index, tensor: str) -> Iterator[str]:
    seen: set[str] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        node = graph.producer(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        computed = _computed(graph, node)
        is_product = node.op_type in {"Mul", "Div"} and len(computed) > 1
        if has(node.op_type, Trait.ACTIVATION) or is_product:
            yield name
        elif has(node.op_type, Trait.QUANTISES) and _is_cut_off(graph, node.input[0]):
            yield node.input[0]
        elif has(node.op_type, Trait.CARRIES | Trait.QUANTISES) or node.op_type == "Div":
            waiting += computed


def _is_cut_off(graph: Index, tensor: str) -> bool:
    """Whether quantisation is all the activation that a layer's output or a sum has: its range includes the Relu."""
    node = graph.producer(tensor)
    if node is None or not graph.is_float(tensor) or not has(node.op_type, Trait.WEIGHTED | Trait.SUM):
        return False
    axis, shape = feature_axis(graph, tensor), graph.shape(tensor)
    return axis is not None and shape is not None and isinstance(shape[axis], int)


def _computed(graph: Index, node: onnx.NodeProto) -> list[str]:
    return [name for name in node.input if name and name not in graph.constants]


def places(model: Model, *, names: Sequence[str] = (), patterns: Sequence[str] = ()) -> list[Tap]:
    """Return the taps to learn masks at, in graph order.

    Args:
        model: The model.
        names: Tensors.
        patterns: Globs (``*``, ``?``, ``[...]``) over the names of all taps. Without names and patterns the taps are
            those of :func:`~cloakonnx.graph.activation_taps`.

    Raises:
        TapError: no such tensor, one that can't carry a mask, a pattern that finds nothing, or no activation at all.
    """
    if not names and not patterns:
        found = activation_taps(model)
        if not found:
            if masks_of(model.proto):
                raise TapError(nothing_left(model.name, model.proto, "activation"))
            raise TapError(
                f"{model.name} has no activation that feeds a Conv, Gemm or MatMul with constant weights; "
                f"{instead(model)}"
            )
        return found
    chosen = {name: find_tap(model, name) for name in names}
    taps = {tap.name: tap for tap in list_taps(model)} if patterns else {}
    for pattern in patterns:
        matching = {name: tap for name, tap in taps.items() if fnmatchcase(name, pattern)}
        if not matching:
            raise TapError(
                f"{{tap_patterns}} {pattern} finds no tap of {model.name}{nearest(pattern, taps)}",
                parameter="tap_patterns",
            )
        chosen |= matching
    return sorted(chosen.values(), key=lambda tap: tap.node)


def instead(model: Model) -> str:
    """Return what the user can do where there is no default tap."""
    scores = {output.name for output in model.proto.graph.output} | scores_of_classical(model.structure)
    if any(tap.name not in scores and tap.features != 1 for tap in list_taps(model)):
        return "name one with --tap ('cloakonnx inspect' lists them)"
    return (
        "no other tensor of it can carry a mask either (trees, linear models and branches of If hold none), so it can "
        "be attacked (cloakonnx attack), but not hardened"
    )
