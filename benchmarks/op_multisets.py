"""Which nodes gradient graphs have, to compare two states of the code: ops, attributes and constants, not names.

    python benchmarks/op_multisets.py --write FILE
    python benchmarks/op_multisets.py --compare FILE

The graphs are those of every rule's test case (float32 and float64, for cpu and cuda), of random windows of Conv,
ConvTranspose and the pooling ops, of small classifiers with every loss, with masks, preprocessing and straight-through
gradients, of the nine light models of the onnx wheel, and of the real models where they are at hand. Two things are
compared. The multiset holds each node's domain, op, attributes, and the type, shape and bytes of its constant inputs.
The results hold a digest of the expression behind each output, in which only the operands of Add, Mul and the like may
change places: where they agree, the graphs are the same but for names and order. ``--compare`` exits with 1 where a
multiset or an expression differs, or a graph is only in one of the two.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import assets, progress
from onnx import helper, numpy_helper

from cloakonnx.errors import CloakError
from cloakonnx.gradient.differentiate import INPUT, GradientGraph, differentiate
from cloakonnx.preprocessing import Preprocessing

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.gradient import test_differentiate, test_losses, test_rules, test_straight_through
from tests.gradient.classifiers import classifier
from tests.gradient.harness import Case, fixed, graph_of, one
from tests.gradient.test_light_models import LIGHT
from tests.support.double import to_double

Graphs = Iterator[tuple[str, Callable[[], GradientGraph]]]

COMMUTATIVE = {"Add", "Mul", "And", "Or", "Equal", "Max", "Min"}
LOSSES = ("ce", "ce-softmax", "log-odds", "margin", "dlr", "difference", "cotangent")


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    todo = parser.add_mutually_exclusive_group(required=True)
    todo.add_argument("--write", type=Path, metavar="FILE")
    todo.add_argument("--compare", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = {}
    for name, build in graphs():
        progress(name)
        found[name] = described(build)
    if options.write:
        options.write.write_text(json.dumps(found, indent=0, sort_keys=True))
        print(f"{len(found)} graphs, {sum(sum(each['nodes'].values()) for each in found.values())} nodes")
        return 0
    return compare(json.loads(options.compare.read_text()), found)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Print what differs and return the exit code."""
    bad = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    for name in bad[:20]:
        print(name)
        old, new = (each.get(name, {"nodes": {}, "results": {"graph": "missing"}}) for each in (before, after))
        gone, more = (Counter(a["nodes"]) - Counter(b["nodes"]) for a, b in ((old, new), (new, old)))
        for sign, nodes in (("-", gone), ("+", more)):
            for node, count in list(nodes.items())[:12]:
                print(f"  {sign} {count} x {node}")
        for key in sorted({*old["results"], *new["results"]}):
            if old["results"].get(key) != new["results"].get(key):
                print(f"  {key}: {old['results'].get(key)} -> {new['results'].get(key)}")
    nodes = sum(sum(each["nodes"].values()) for each in after.values())
    print(f"{len(after)} graphs, {nodes} nodes: {len(bad)} graphs differ")
    return 1 if bad else 0


def described(build: Callable[[], GradientGraph]) -> dict[str, Any]:
    """Return the multiset of a graph's nodes and the digests of its outputs; an error's text where it is refused."""
    try:
        graph = build()
    except CloakError as error:
        return {"nodes": {}, "results": {"refused": str(error)}}
    proto = graph.proto
    constants = {t.name: _digest(t) for t in proto.graph.initializer}
    known = dict(constants)
    for value in proto.graph.input:
        known[value.name] = f"input {value.name} {_sha(value.type.SerializeToString(deterministic=True))}"
    nodes: Counter[str] = Counter()
    for node in proto.graph.node:
        attributes = [_attribute(a) for a in sorted(node.attribute, key=lambda a: a.name)]
        op = f"{node.domain}.{node.op_type}({', '.join(attributes)})"
        fixed_inputs = sorted(constants[name] for name in node.input if name in constants)
        nodes[f"{op} of {len(node.input)} {' '.join(fixed_inputs)}".strip()] += 1
        inputs = [known.get(name, name) for name in node.input]
        if node.op_type in COMMUTATIVE and len(inputs) == 2:
            inputs.sort()
        whole = _sha("\n".join([op, *inputs]).encode())
        known.update({name: f"{whole}:{i}" for i, name in enumerate(node.output) if name})
    outputs = [graph.logits, graph.loss, *graph.gradients.values(), *graph.mask_gradients.values()]
    results = {f"output {i}": known[name] for i, name in enumerate(outputs) if name is not None}
    facts = (graph.classes, graph.stripped, graph.blocked, graph.bridged, graph.image, graph.labels, graph.targets)
    results["facts"] = repr((*facts, graph.cotangent, dict(graph.masks), list(graph.gradients), proto.ir_version))
    results["opsets"] = repr(sorted((o.domain, o.version) for o in proto.opset_import))
    outer = [(o.type.tensor_type.elem_type, [str(d) for d in o.type.tensor_type.shape.dim]) for o in proto.graph.output]
    results["declared"] = repr(outer)
    return {"nodes": dict(nodes), "results": results}


def _digest(tensor: onnx.TensorProto) -> str:
    data = numpy_helper.to_array(tensor)
    return f"{data.dtype}{list(data.shape)}{_sha(data.tobytes())}"


def _attribute(attribute: onnx.AttributeProto) -> str:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return f"{attribute.name}={_digest(value)}"
    if isinstance(value, onnx.GraphProto):
        return f"{attribute.name}={_sha(value.SerializeToString(deterministic=True))}"
    return f"{attribute.name}={list(value) if isinstance(value, (list, tuple)) else value!r}"


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def graphs() -> Graphs:
    """Yield every graph by name, as a function that builds it."""
    yield from of_cases()
    yield from of_windows()
    yield from of_losses()
    yield from of_classifiers()
    for path in LIGHT:
        yield f"light {path.stem}", lambda path=path: differentiate(onnx.load(path))
    yield from of_real_models()


def of_cases() -> Graphs:
    """Every rule's test case."""
    scale, bias = fixed(test_rules.above(2)), fixed(test_rules.away(2))
    cases = dict(test_rules.CASES)
    cases["GroupNormalization 18"] = one("GroupNormalization", test_rules.away(2, 4, 3), scale, bias, num_groups=2)
    scale = fixed(test_rules.above(4))
    cases["RMSNormalization"] = one("RMSNormalization", test_rules.away(2, 3, 4), scale, opset=23)
    for name, case in cases.items():
        yield from of_case(f"case {name}", case)


def of_case(name: str, case: Case) -> Graphs:
    """Yield the graphs of one case: in both types, for both providers."""
    for double in (False, True):
        for provider in ("cpu", "cuda"):
            yield (
                f"{name}, {'double' if double else 'float'}, {provider}",
                lambda d=double, p=provider: graph_of(case, double=d, provider=p),
            )


def of_windows() -> Graphs:
    """Random windows, drawn from a fixed seed."""
    rng = np.random.default_rng(0)
    for number in range(60):
        rank = int(rng.choice([1, 2, 2, 2, 3]))
        kernel, dilations = rng.integers(1, 4, rank), rng.integers(1, 3, rank)
        strides = rng.integers(1, 4, rank) if rng.random() < 0.4 else np.full(rank, rng.integers(1, 4))
        if rng.random() < 0.6:
            dilations = np.ones(rank, int)
        pads = np.minimum(rng.integers(0, 3, 2 * rank), np.tile(kernel, 2) - 1)
        size = (kernel - 1) * dilations + 1 + rng.integers(0, 5, rank)
        group, inner, outer = int(rng.choice([1, 1, 2, 3])), *(int(n) for n in rng.integers(1, 3, 2))
        axes = (0, *range(2, 2 + rank)) if rng.random() < 0.5 else (0,)
        how: dict[str, Any] = {"strides": strides.tolist(), "pads": pads.tolist()}
        x, weight = rng.normal(size=(2, group * inner, *size)), rng.normal(size=(group * outer, inner, *kernel))
        wide: dict[str, Any] = {"open_axes": axes, "dilations": dilations.tolist()} | how
        yield from of_case(f"Conv {number}", one("Conv", x, fixed(weight), group=group, **wide))
        if rank != 2:
            continue
        turned = rng.normal(size=(group * inner, outer, *kernel))
        extra = [int(rng.integers(0, s)) for s in strides]
        how_back = {"strides": how["strides"], "dilations": dilations.tolist(), "output_padding": extra, "group": group}
        yield from of_case(f"ConvTranspose {number}", one("ConvTranspose", x, fixed(turned), **how_back))
        pool: dict[str, Any] = {"kernel_shape": kernel.tolist()} | how
        yield from of_case(f"MaxPool {number}", one("MaxPool", x, open_axes=axes, **pool))
        for include in (0, 1):
            case = one("AveragePool", x, open_axes=axes, count_include_pad=include, **pool)
            yield from of_case(f"AveragePool {number} {include}", case)
    x, weight = rng.normal(size=(1, 2, 5, 6)), rng.normal(size=(3, 2, 4, 3))
    for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for stride in (1, 2):
            case = one("Conv", x, fixed(weight), auto_pad=auto_pad, strides=[stride, stride])
            yield from of_case(f"Conv {auto_pad} {stride}", case)
    plain = rng.normal(size=(2, 3, 4, 6))
    yield from of_case("AveragePool beside", one("AveragePool", plain, kernel_shape=[2, 3], strides=[2, 3]))
    yield from of_case("AveragePool all", one("AveragePool", plain, kernel_shape=[4, 6], open_axes=(0,)))
    case = one("AveragePool", plain, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)
    yield from of_case("AveragePool up", case)


def of_losses() -> Graphs:
    """Every loss over few and many classes, logits and activations at the end, float32 and float64."""
    for classes in (1, 2, 3, 5, 11):
        for tail in ((), ("Softmax",), ("Sigmoid",), ("HardSigmoid",), ("LogSoftmax",)):
            for loss in LOSSES:
                for targeted in (False, True):
                    for double in (False, True):
                        model = test_losses.identity(classes, *tail)
                        yield (
                            f"loss {loss} {classes} {tail} {targeted} {double}",
                            lambda m=model, n=loss, t=targeted, d=double: differentiate(
                                to_double(m) if d else m, loss=n, targeted=t
                            ),
                        )


def of_classifiers() -> Graphs:
    """Small classifiers: masks, preprocessing, narrow types, old opsets, rounding, fused normalisation."""
    how = Preprocessing(scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "forward": {"loss": None},
        "cuda": {"provider": "cuda"},
        "taps": {"wrt": [INPUT, "features", "f"]},
        "channel masks": {"masks": {"features": 1, "f": -1}, "mask_gradients": True},
        "element masks": {"masks": {"features": None}, "mask_gradients": True, "wrt": [INPUT, "features"]},
        "pixels": {"preprocessing": how},
        "all at once": {"preprocessing": how, "masks": {"features": 1}, "mask_gradients": True, "loss": "dlr"},
        "sized": {"input_shape": (3, None, None, None), "straight_through": True},
    }
    for dtype in (np.float32, np.float64, np.float16):
        for name, options in ways.items():
            yield (
                f"classifier {np.dtype(dtype)} {name}",
                lambda d=dtype, o=options: differentiate(classifier(dtype=d), **o),
            )
    for opset in (9, 11, 13, 17, 21):
        yield f"classifier opset {opset}", lambda n=opset: differentiate(classifier(opset=n))
    for bias in (False, True):
        for wrt in ([INPUT], [INPUT, "conv"]):
            yield (
                f"fused {bias} {wrt}",
                lambda b=bias, w=wrt: differentiate(test_differentiate.normalised(b), wrt=w),
            )
    steps = test_straight_through.with_steps
    rounding = {
        "round": steps("u = Mul features ten", "r = Round u", "more = Div r ten"),
        "sign": steps("u = Mul features ten", "s = Sub u shift", "more = Sign s"),
        "cast": steps("u = Mul features ten", "i = Cast u 6", "g = Cast i 1", "more = Div g ten"),
        "part": steps("r = Round features", "a = ArgMax r", "g = Cast a 1", "more = Add r g"),
        **{
            f"quantised {ends}": steps(f"q = QuantizeLinear features {ends}", f"more = DequantizeLinear q {ends}")
            for ends in ("scale zero", "scale", "scales zeros")
        },
    }
    for name, model in rounding.items():
        for through in (False, True):
            yield (
                f"rounding {name} {through}",
                lambda m=model, t=through: differentiate(m, straight_through=t, wrt=[INPUT, "features"]),
            )


def of_real_models() -> Graphs:
    """Each real model with the losses of attacks, straight through, and with masks."""
    for path in sorted((assets() / "models").glob("*.onnx")):
        model = onnx.load(path)
        given = {"input_name": "input"} if path.stem == "vad_silero_16k" else {}
        for loss in LOSSES:
            for targeted in (False, True):
                yield (
                    f"{path.stem} {loss} {targeted}",
                    lambda m=model, n=loss, t=targeted, g=given: differentiate(m, loss=n, targeted=t, **g),
                )
        relus = [node.output[0] for node in model.graph.node if node.op_type == "Relu"][:3]
        axes = dict.fromkeys(relus, 1)
        ways: dict[str, dict[str, Any]] = {
            "straight through": {"straight_through": True},
            "cuda": {"provider": "cuda"},
            "forward": {"loss": None},
            "masks": {"masks": axes, "mask_gradients": True, "wrt": [INPUT, *relus]},
            "element masks": {"masks": dict.fromkeys(relus), "mask_gradients": True},
            "pixels": {"preprocessing": Preprocessing(scale=1 / 255)},
        }
        for name, options in ways.items():
            yield f"{path.stem} {name}", lambda m=model, o=options, g=given: differentiate(m, **o, **g)


if __name__ == "__main__":
    sys.exit(main())
