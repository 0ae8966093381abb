"""Shapes and types behind ops that onnx does not infer: those of com.microsoft, ai.onnx.ml and a few more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import onnx
from onnx import TensorProto

from cloakonnx.graph.index.blocked import LARGEST, NCHWC
from cloakonnx.graph.index.index import Dim, Index
from cloakonnx.graph.index.node import NodeView
from cloakonnx.graph.index.traits import Trait, has

Shape: TypeAlias = "tuple[Dim, ...] | None"
Known: TypeAlias = "Sequence[tuple[int, Shape]]"
"""Element type and shape of each output, as far as they are known."""

_MS, _ML = "com.microsoft", "ai.onnx.ml"
CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
MAX_POOL = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
"""The attributes that Conv, AveragePool and MaxPool share with what stands for them."""


class _View(NodeView):
    """A node with what is known of its inputs."""

    def shape(self, position: int) -> Shape:
        return self.index.shape(self.node.input[position]) if self.has(position) else None

    def kind(self, position: int) -> int:
        return self.index.elem_type(self.node.input[position]) if self.has(position) else 0

    def last(self, position: int) -> Dim:
        return (self.shape(position) or (None,))[-1]

    def as_op(self, op: str, positions: Sequence[int], names: Sequence[str] = (), **fixed: Any) -> Shape:
        """Return the shape that a standard op gives for some of the inputs; ``channels_last`` is heeded."""
        taken = [f"x{i}" for i, position in enumerate(positions) if self.has(position)]
        shapes = [self.shape(position) for position in positions if self.has(position)]
        is_last = bool(self.attr("channels_last", 0))
        if is_last and shapes[0]:
            first, *sizes, channels = shapes[0]
            shapes[0] = (first, channels, *sizes)
        inputs = [
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(taken, shapes, strict=True)
        ]
        chosen = {name: self.attr(name) for name in names if self.attr(name) is not None}
        node = onnx.helper.make_node(op, taken, ["y"], **chosen, **fixed)
        graph = onnx.helper.make_graph([node], "op", inputs, [onnx.ValueInfoProto(name="y")])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
        try:
            found = onnx.shape_inference.infer_shapes(model)
        except Exception:  # shapes that do not fit: the runtime says so
            return None
        shape = Index(found.graph).shape("y")
        return (shape[0], *shape[2:], shape[1]) if is_last and shape else shape


def _same(view: _View) -> Known:
    """As the first input."""
    return [(view.kind(0), view.shape(0))]


def _summed(view: _View) -> Known:
    """As the first input, and the sum as the fourth output."""
    same = (view.kind(0), view.shape(0))
    return [same, (0, None), (0, None), same]


def _float(view: _View) -> Known:
    return [(TensorProto.FLOAT, view.shape(0))]


def _typed(position: int, data: int = 0) -> Callable[[_View], Known]:
    """The shape of an input, the type of another."""
    return lambda view: [(view.kind(position) or TensorProto.UINT8, view.shape(data))]


def _like(
    op: str, positions: Sequence[int], names: Sequence[str] = (), *, kind: int = 0, **fixed: Any
) -> Callable[[_View], Known]:
    """The shape that a standard op gives, the type of an input."""
    return lambda view: [(view.kind(kind) or TensorProto.FLOAT, view.as_op(op, positions, names, **fixed))]


def _matmul(view: _View) -> Known:
    dims = []
    for position, letter in enumerate("AB"):
        shape = view.shape(position)
        if shape is None:
            return [(view.kind(0), None)]
        if view.attr(f"transBatch{letter}", 0):
            shape = (*shape[1:-1], shape[0], shape[-1])
        dims.append((*shape[:-2], shape[-1], shape[-2]) if view.attr(f"trans{letter}", 0) else shape)
    left, right = dims
    if len(left) < 2 or len(right) < 2:
        return [(view.kind(0), None)]
    lead = left[:-2] if len(left) >= len(right) else right[:-2]
    return [(view.kind(0), (*lead, left[-2], right[-1]))]


def _attention(view: _View) -> Known:
    shape, sizes, width = view.shape(0), view.attr("qkv_hidden_sizes"), view.last(1)
    value = sizes[2] if sizes else width // 3 if isinstance(width, int) else None
    return [(view.kind(0), None if shape is None else (*shape[:2], value))]


def _multi_head_attention(view: _View) -> Known:
    shape, value = view.shape(0), view.shape(2)
    if shape is None:
        return [(view.kind(0), None)]
    if len(shape) == 5:
        heads, size = shape[2], shape[4]
        width = heads * size if isinstance(heads, int) and isinstance(size, int) else None
        return [(view.kind(0), (*shape[:2], width))]
    found: Dim = shape[-1]
    if value is not None:
        last = value[-1]
        found = last if len(value) == 3 else view.attr("num_heads") * last if isinstance(last, int) else None
    return [(view.kind(0), (*shape[:2], found))]


def _group_query_attention(view: _View) -> Known:
    shape = view.shape(0)
    if shape is None or view.has(1):
        return [(view.kind(0), shape)]
    heads, groups, width = view.attr("num_heads"), view.attr("kv_num_heads"), shape[-1]
    size = width // (heads + 2 * groups) * heads if isinstance(width, int) else None
    return [(view.kind(0), (*shape[:-1], size))]


def _embedding(view: _View) -> Known:
    shape = view.shape(0)
    made = None if shape is None else (*shape, view.last(2))
    return [(view.kind(2), made), (TensorProto.INT32, None), (view.kind(2), made)]


def _lstm(view: _View) -> Known:
    shape, size = view.shape(0), view.attr("hidden_size")
    if shape is None or len(shape) != 3:
        return []
    ways = 2 if view.attr("direction", "forward") == "bidirectional" else 1
    state = (ways, shape[1], size)
    return [(TensorProto.FLOAT, (shape[0], *state[:2], size)), (TensorProto.FLOAT, state), (TensorProto.FLOAT, state)]


def _concat(view: _View) -> Known:
    positions = list(range(2, len(view.node.input), 3))
    return [(view.kind(1), view.as_op("Concat", positions, ("axis",)))]


def _columns(view: _View, count: Dim) -> Shape:
    shape = view.shape(0)
    return None if shape is None else ((*shape[:-1], count) if len(shape) > 1 else (1, count))


def _rows(view: _View) -> Dim:
    shape = view.shape(0)
    return None if shape is None else shape[0] if len(shape) > 1 else 1


def _classifier(view: _View) -> Known:
    """The label, and a score for each class; pairs of classes where a support vector machine votes."""
    texts = view.attr("classlabels_strings")
    count = len(texts or view.attr("classlabels_ints") or view.attr("classlabels_int64s") or ())
    if (
        view.node.op_type == "SVMClassifier"
        and count > 2
        and view.attr("vectors_per_class")
        and not view.attr("prob_a")
    ):
        count = count * (count - 1) // 2
    label = TensorProto.STRING if texts else TensorProto.INT64
    return [(label, (_rows(view),)), (TensorProto.FLOAT, (_rows(view), count))]


def _targets(name: str) -> Callable[[_View], Known]:
    return lambda view: [(TensorProto.FLOAT, (_rows(view), view.attr(name, 1)))]


def _vectorizer(view: _View) -> Known:
    sizes = [view.last(i) for i in range(len(view.node.input))]
    known = [each for each in sizes if isinstance(each, int)]
    return [(TensorProto.FLOAT, (_rows(view), sum(known) if len(known) == len(sizes) else None))]


def _extractor(view: _View) -> Known:
    chosen = view.shape(1)
    count = 1 if chosen == () else None if chosen is None else chosen[-1]
    return [(view.kind(0), _columns(view, count))]


def _nbits(view: _View) -> Known:
    shape = view.shape(0)
    return [(view.kind(0), None if shape is None else (*shape[:-1], view.attr("N")))]


def _nhwc(view: _View) -> Known:
    shape = view.shape(0)
    return [
        (view.kind(0), None if shape is None else (shape[0], *(None for _ in shape[2:]), (view.shape(1) or (None,))[0]))
    ]


def _into_blocks(view: _View) -> Known:
    shape = view.shape(0)
    if shape is None or len(shape) != 4:
        return [(view.kind(0), None)]
    first, *others = shape
    channels = others.pop(-1 if view.attr("channels_last", 0) else 0)
    is_whole = isinstance(channels, int) and channels % LARGEST == 0
    return [(view.kind(0), (first, channels if is_whole else None, *others))]


def _out_of_blocks(view: _View) -> Known:
    shape = view.shape(0)
    if shape is None or len(shape) != 4:
        return [(view.kind(0), (None,) * 4)]
    sizes = [shape[0], *shape[2:]]
    sizes.insert(3 if view.attr("channels_last", 0) else 1, view.attr("channels"))
    return [(view.kind(0), tuple(sizes))]


def _upsampled(view: _View) -> Known:
    shape, scales = view.shape(0), view.attr("scales")
    if shape is None or not scales or len(scales) != len(shape):
        return [(view.kind(0), None)]
    return [
        (view.kind(0), tuple([d * by if isinstance(d, int) else None for d, by in zip(shape, scales, strict=True)]))
    ]


_SHAPES: dict[tuple[str, str], Callable[[_View], Known]] = {
    **{(_MS, op): _same for op in ("BiasAdd", "BiasDropout", "BiasGelu", "FastGelu", "Gelu", "QuickGelu", "GroupNorm")},
    **{(_MS, op): _same for op in ("BiasSoftmax", "RotaryEmbedding", "Trilu")},
    **{(_MS, op): _summed for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")},
    (_MS, "QuantizeLinear"): _typed(2),
    (_MS, "DequantizeLinear"): _typed(1),
    **{(_MS, op): _typed(0) for op in ("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax")},
    **{(_MS, f"QLinear{op}"): _like(op, (0, 3)) for op in ("Add", "Mul")},
    (_MS, "QLinearWhere"): _like("Add", (1, 4), kind=1),
    (_MS, "QLinearConcat"): _concat,
    (_MS, "QLinearConv"): _like("Conv", (0, 3), CONV),
    (_MS, "QLinearAveragePool"): _like("AveragePool", (0,), POOL),
    (_MS, "QLinearGlobalAveragePool"): _like("GlobalAveragePool", (0,)),
    (_MS, "QLinearReduceMean"): _like("ReduceMean", (0,), ("keepdims",)),
    (_MS, "QGemm"): lambda view: [
        (view.kind(8) or TensorProto.FLOAT, view.as_op("Gemm", (0, 3), ("transA", "transB")))
    ],
    (_MS, "DynamicQuantizeMatMul"): _like("MatMul", (0, 1)),
    (_MS, "MatMulIntegerToFloat"): _like("MatMul", (0, 1), kind=2),
    (_MS, "MatMulNBits"): _nbits,
    (_MS, "DynamicQuantizeLSTM"): _lstm,
    (_MS, "FusedConv"): _like("Conv", (0, 1, 2), CONV),
    **{(_MS, op): _nhwc for op in ("NhwcConv", "NhwcFusedConv")},
    (NCHWC, "Conv"): _like("Conv", (0, 1), CONV),
    (NCHWC, "ReorderInput"): _into_blocks,
    (NCHWC, "ReorderOutput"): _out_of_blocks,
    (NCHWC, "Upsample"): _upsampled,
    (NCHWC, "MaxPool"): _like("MaxPool", (0,), MAX_POOL),
    (NCHWC, "AveragePool"): _like("AveragePool", (0,), POOL),
    **{(NCHWC, op): _like(op, (0,)) for op in ("GlobalAveragePool", "GlobalMaxPool")},
    (_MS, "FusedGemm"): _like("Gemm", (0, 1), ("transA", "transB")),
    (_MS, "GemmFastGelu"): _like("MatMul", (0, 1)),
    **{(_MS, op): _matmul for op in ("FusedMatMul", "TransposeMatMul", "FusedMatMulActivation")},
    (_MS, "Attention"): _attention,
    (_MS, "MultiHeadAttention"): _multi_head_attention,
    (_MS, "GroupQueryAttention"): _group_query_attention,
    (_MS, "EmbedLayerNormalization"): _embedding,
    ("", "SimplifiedLayerNormalization"): _same,
    **{(_ML, op): _float for op in ("Scaler", "Normalizer")},
    **{(_ML, op): _same for op in ("Binarizer", "Imputer")},
    **{(_ML, op): _classifier for op in ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")},
    (_ML, "LinearRegressor"): _targets("targets"),
    **{(_ML, op): _targets("n_targets") for op in ("SVMRegressor", "TreeEnsembleRegressor", "TreeEnsemble")},
    (_ML, "FeatureVectorizer"): _vectorizer,
    (_ML, "ArrayFeatureExtractor"): _extractor,
}


def custom_shapes(graph: onnx.GraphProto, opsets: Sequence[onnx.OperatorSetIdProto]) -> list[onnx.ValueInfoProto]:
    """Return the types and shapes that follow behind ops that onnx does not know, for tensors without one."""
    if all(_rule(node) is None for node in graph.node):
        return []
    index = Index(graph)
    found = []
    for node in graph.node:
        if node.domain != _ML and all(index.shape(name) is not None for name in node.output if name):
            continue
        rule = _rule(node)
        known = _standard(node, index, opsets) if rule is None else rule(_View(node, index))
        for name, (elem_type, shape) in zip(node.output, known, strict=False):
            if name and elem_type and shape is not None and _says_more(shape, index.shape(name)):
                found.append(onnx.helper.make_tensor_value_info(name, elem_type, shape))
                index.learn(name, elem_type, shape)
    return found


def _says_more(shape: Sequence[Dim], known: Shape) -> bool:
    """Whether a shape has sizes that are not known yet: of ai.onnx.ml onnx tells ranks."""
    if known is None or len(known) != len(shape):
        return known is None
    return any(isinstance(new, int) and not isinstance(old, int) for new, old in zip(shape, known, strict=True))


def _standard(node: onnx.NodeProto, index: Index, opsets: Sequence[onnx.OperatorSetIdProto]) -> Known:
    """Infer one node, so that shapes behind it are known in the same pass."""
    version = next((each.version for each in opsets if each.domain in {"", "ai.onnx"}), 0)
    names = dict.fromkeys(name for name in node.input if name)
    if node.domain not in {"", "ai.onnx"} or not version or any(index.shape(name) is None for name in names):
        return []
    try:
        types = {n: onnx.helper.make_tensor_type_proto(index.elem_type(n), index.shape(n)) for n in names}
        data = {n: index.initializers[n] for n in names if n in index.initializers}
        schema = onnx.defs.get_schema(node.op_type, version, "")
        made = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=list(opsets))
    except Exception:  # an op that it does not know, or shapes that do not fit: the runtime says so
        return []
    values = [made.get(name) for name in node.output]
    return [(0, None) if each is None else _read(each) for each in values]


def _read(found: onnx.TypeProto) -> tuple[int, Shape]:
    value = onnx.ValueInfoProto(name="y", type=found)
    index = Index(onnx.GraphProto(value_info=[value]))
    return index.elem_type("y"), index.shape("y")


def _rule(node: onnx.NodeProto) -> Callable[[_View], Known] | None:
    if node.domain in {"", "ai.onnx"} and has(node.op_type, Trait.KEEPS_SHAPE):
        return _same
    return _SHAPES.get((node.domain, node.op_type))
