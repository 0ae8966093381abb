"""Constants that change from run to run, in a graph that was optimised as if they never changed.

ONNX Runtime lays out the weights of convolutions when it makes a session. As inputs they would cost its blocked layout,
and making the session anew for each set of them costs as much as half a run. So the graph is optimised once, with
numbers in the weights' places that tell which is which; where the optimised graph only has them in another order, they
become its inputs, and are put in that order before each run. It computes what a session made anew does, to the bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cloakonnx.graph.file.external import is_external
from cloakonnx.graph.index.index import reads
from cloakonnx.runtime._trial import unsafe_optimizers
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import MOST_OPTIMISED, Session, to_numpy

_FOLDED = {"Cast", "Concat", "Flatten", "Gather", "Identity", "Max", "Mul", "Pad", "Reshape", "Slice", "Squeeze"}
_FOLDED |= {"Transpose", "Unsqueeze"}
"""What is computed of the constants before the graph runs, by the same kernels."""

_EXACT = {np.dtype(np.float32): 2**24, np.dtype(np.float64): 2**53}
"""The largest whole number that each dtype represents exactly."""

_FIRST = 2**20
"""The first number: constants of models are smaller, and mostly broken."""

Arrays = dict[str, NDArray[Any]]
Places = NDArray[np.int64]
"""Which number each entry of a tensor has."""


@dataclass(frozen=True)
class _Cut:
    """A graph in two parts.

    Attributes:
        before: What is computed of the exchanged constants and others; the exchanged ones are its inputs.
        frontier: Its outputs, which the rest reads.
        rest: The rest, which lacks the frontier.
    """

    before: onnx.ModelProto
    frontier: tuple[str, ...]
    rest: onnx.ModelProto


class Exchange:
    """A session whose constants are exchanged without making it anew.

    Attributes:
        session: The session; it takes :attr:`inputs` beside those of the graph.
        inputs: What it is fed in place of the constants that were set.
    """

    def __init__(
        self,
        session: Session,
        before: ort.InferenceSession,
        frontier: Sequence[str],
        places: Mapping[str, NDArray[Any]],
    ) -> None:
        self.session = session
        self.inputs: Arrays = {}
        self._before, self._frontier, self._places = before, list(frontier), places

    @classmethod
    def of(cls, graph: onnx.ModelProto, names: Collection[str], provider: Provider, before: Session) -> Exchange | None:
        """Make one; None where the graph does not lend itself to it, and a session has to be made anew each time.

        Args:
            graph: The graph.
            names: The initializers that change.
            provider: Where it runs.
            before: A session of the graph as it is.
        """
        initializers = graph.graph.initializer
        if provider.device != "cpu" or before.is_open or len(graph.graph.node) > MOST_OPTIMISED:
            return None
        if any(map(is_external, initializers)):
            return None
        values = {each.name: numpy_helper.to_array(each) for each in initializers if each.name in names}
        cut = _cut(graph, values)
        try:
            found = None if cut is None else _made(cls, cut, values, provider, before)
        except Exception:  # ONNX Runtime's own exception types are private; what it can't do is done anew each time
            return None
        return found

    def set(self, values: Arrays) -> None:
        """Take values for the constants."""
        found = self._before.run(self._frontier, values)
        flat = _flat(found)
        self.inputs = {name: flat[places] for name, places in self._places.items()}


def _made(cls: type[Exchange], cut: _Cut, values: Arrays, provider: Provider, before: Session) -> Exchange | None:
    first = ort.InferenceSession(cut.before.SerializeToString(), _options(provider), providers=["CPUExecutionProvider"])
    held = dict(zip(cut.frontier, first.run(list(cut.frontier), values), strict=True))
    numbered = _numbered(held)
    if numbered is None:
        return None
    graph = _optimised(_filled(cut.rest, numbered), provider)
    places = _places(graph, sum(value.size for value in held.values()), next(iter(held.values())).dtype)
    kept = [tensor for tensor in graph.graph.initializer if tensor.name not in places]
    types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    graph.graph.input.extend(helper.make_tensor_value_info(name, types[name], at.shape) for name, at in places.items())
    session = Session(graph, provider, batch=before.fixed_batch, before=before, is_optimised=True)
    found = cls(session, first, cut.frontier, places)
    found.set(values)
    return found if _agree(found, before, cut.rest) else None


def _agree(found: Exchange, before: Session, graph: onnx.ModelProto) -> bool:
    """Whether both give the same bits on a random batch: numbers that are held as such would show."""
    feed = _random_feed(graph)
    if feed is None:
        return False
    results = [found.session.run({**feed, **found.inputs}, before.outputs), before.run(feed, before.outputs)]
    mine, others = ([to_numpy(value) for value in values] for values in results)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(mine, others, strict=True))


def _random_feed(graph: onnx.ModelProto) -> Arrays | None:
    """Return a value for each input, with two samples where the batch is open; None where more is open."""
    rng, feed = np.random.default_rng(0), {}
    for value in graph.graph.input:
        tensor = value.type.tensor_type
        shape = [dim.dim_value or None for dim in tensor.shape.dim]
        if None in shape[1:]:
            return None
        sizes = [size or 2 for size in shape]
        kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feed[value.name] = (rng.random(sizes) if kind.kind == "f" else np.zeros(sizes)).astype(kind)
    return feed


def _cut(model: onnx.ModelProto, changing: Collection[str]) -> _Cut | None:
    """Cut a graph behind what is computed of the changing constants; None where an output is among that."""
    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer}.difference(changing)
    moved, early, late = set(changing), list[onnx.NodeProto](), list[onnx.NodeProto]()
    still: list[onnx.NodeProto] = []
    for node in graph.node:
        names = {name for name in reads(node) if name}
        is_folded = (node.op_type in _FOLDED and not node.domain) or node.op_type == "Constant"
        if is_folded and names <= constant:
            constant.update(node.output)
            still.append(node)
        elif is_folded and names <= moved | constant:
            moved.update(node.output)
            early.append(node)
            continue
        late.append(node)
    read = {name for node in late for name in reads(node)}
    frontier = tuple(name for name in dict.fromkeys([*changing, *(n for e in early for n in e.output)]) if name in read)
    if moved & {value.name for value in graph.output} or not frontier:
        return None
    return _Cut(_before(model, [*still, *early], changing, frontier), frontier, _rest(model, late, changing))


def _before(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], changing: Collection[str], frontier: Sequence[str]
) -> onnx.ModelProto:
    needed, kept = set(frontier), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = [
        helper.make_tensor_value_info(name, tensors[name].data_type, list(tensors[name].dims))
        for name in sorted(changing)
    ]
    held = [tensor for name, tensor in tensors.items() if name in needed.difference(changing)]
    outputs = [onnx.ValueInfoProto(name=name) for name in frontier]
    made = helper.make_graph(kept[::-1], "constants", inputs, outputs, held)
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=model.ir_version)


def _rest(model: onnx.ModelProto, late: Sequence[onnx.NodeProto], changing: Collection[str]) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.ClearField("node")
    made.graph.node.extend(late)
    made.graph.ClearField("initializer")
    made.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in changing)
    return made


def _numbered(values: Arrays) -> Arrays | None:
    """Return arrays of the same shapes that number all entries; None where the dtype can't."""
    kinds = {value.dtype for value in values.values()}
    if len(kinds) != 1 or _FIRST + sum(value.size for value in values.values()) >= _EXACT.get(next(iter(kinds)), 0):
        return None
    found, start = {}, _FIRST
    for name, value in values.items():
        found[name] = np.arange(start, start + value.size, dtype=value.dtype).reshape(value.shape)
        start += value.size
    return found


def _flat(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return all entries in their order, behind the 0 that layouts are filled up with."""
    return np.concatenate([np.zeros(1, values[0].dtype), *(value.reshape(-1) for value in values)])


def _filled(rest: onnx.ModelProto, values: Arrays) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(rest)
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    return made


def _optimised(graph: onnx.ModelProto, provider: Provider) -> onnx.ModelProto:
    """Return a graph as ONNX Runtime runs it."""
    with TemporaryDirectory(prefix="cloakonnx-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = _options(provider)
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(
            graph.SerializeToString(),
            options,
            providers=provider.session_arguments,
            disabled_optimizers=unsafe_optimizers(graph),
        )
        return onnx.load(path)


def _options(provider: Provider) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if provider.threads is not None:
        options.intra_op_num_threads = provider.threads
    return options


def _places(graph: onnx.ModelProto, count: int, dtype: np.dtype[Any]) -> dict[str, Places]:
    """Return, of each initializer that holds numbers, where in :func:`_flat` its entries are."""
    found: dict[str, Places] = {}
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != dtype or not values.any():
            continue
        numbers = values[values != 0]
        if (numbers >= _FIRST).all() and (numbers < _FIRST + count).all() and (numbers == np.floor(numbers)).all():
            found[tensor.name] = np.where(values == 0, 0, values - (_FIRST - 1)).astype(np.int64)
    return found
