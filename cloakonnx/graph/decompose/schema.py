"""Ops that the ONNX operator list itself defines as functions: their decomposition comes from onnx."""

from __future__ import annotations

import onnx
import onnx.inliner

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.registry import Node, decomposition
from cloakonnx.graph.index.index import rename_reads

_IR_VERSION = 10


def _function(s: Node) -> list[Tensor | None]:
    """Decompose the node by the function that onnx has for it."""
    names = [name for name in s.node.input if name]
    inputs = [
        onnx.helper.make_tensor_value_info(n, s.index.elem_type(n), s.index.shape(n)) for n in dict.fromkeys(names)
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in s.node.output if name]
    graph = onnx.helper.make_graph([s.node], "op", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", s.build.opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    model = onnx.shape_inference.infer_shapes(model)
    try:
        model = onnx.inliner.inline_selected_functions(model, [("", s.node.op_type)], inline_schema_functions=True)
    except Exception as error:  # the inliner raises bare RuntimeErrors
        raise s.error(f"onnx does not write it out ({' '.join(str(error).split())[:120]})") from None
    if any(node.op_type == s.node.op_type for node in model.graph.node):
        raise s.error("onnx has no function for it with these inputs")
    renamed = {name: name for name in names}
    for node in model.graph.node:
        rename_reads(node, renamed)
        for place, name in enumerate(node.output):
            if name:
                renamed[name] = s.build.fresh(f"{s.node.output[0]}/{name}")
                node.output[place] = renamed[name]
        s.build.graph.node.append(node)
    return [s.build.tensor(renamed[name]) if name else None for name in s.node.output]


for _op, _until in {
    "Attention": 25,
    "CenterCropPad": 18,
    "RotaryEmbedding": 23,
}.items():
    decomposition(_op, until=_until)(_function)
