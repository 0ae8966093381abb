"""One ONNX Runtime session over a derived graph: feeds batches of any size, keeps results on the device."""

from __future__ import annotations

import ctypes
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from cloakonnx.errors import InferenceError, OutOfMemoryError, SmallerRuns
from cloakonnx.graph.file.external import external_bytes
from cloakonnx.graph.index.bounds import size_is_open
from cloakonnx.runtime._trial import try_once, unsafe_optimizers
from cloakonnx.runtime.provider import Provider

T = TypeVar("T")

Value: TypeAlias = "ort.OrtValue | NDArray[Any]"
"""A tensor on the device, or a numpy array in host memory."""


class Chunk(NamedTuple):
    """The outputs of one run: the part of a batch that the graph takes at a time.

    Attributes:
        start: Index in the batch of its first sample.
        values: The outputs, samples along axis 0.
    """

    start: int
    values: list[Value]


_SMALLER = (
    "memory does not suffice for a whole batch in ONNX Runtime, so each batch goes through in smaller parts; a smaller "
    "--batch-size saves the failed tries"
)

_LONG = 5_000
"""Nodes from which on ONNX Runtime takes seconds to load a graph."""

_STOPPED = 5.0
"""Seconds that a run gets to end when it is stopped: the process ends badly while ONNX Runtime is at work."""

MOST_OPTIMISED = 6_000
"""Nodes above which it is not asked to optimise a graph: its time grows with the square."""

_NO_MEMORY = re.compile(r"failed to allocate memory|bad.?alloc|out of memory|_ALLOC_FAILED", re.IGNORECASE)
"""What ONNX Runtime's allocators, C++, CUDA, cuDNN and cuBLAS say where there is no memory; no type tells."""

_MUCH = 1 << 30
"""Bytes of weights in files from which on ONNX Runtime makes no copies of them: not packed, nor folded with others."""

_NO_PACKING = "session.disable_prepacking"

_BFLOAT16 = "tensor(bfloat16)"
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


class Session:
    """A graph ready to run on one provider.

    Args:
        graph: The graph; its weights may be references.
        provider: Where it runs.
        folder: What the references are relative to.
        batch: How many samples the graph takes at a time, where its input does not fix that.
        before: A session of the same graph with other constants of the same shapes: sizes are not bounded again.
        is_optimised: Whether the graph is what ONNX Runtime made of one: it runs as it is.

    Attributes:
        is_open: Whether sizes of the graph's tensors depend on the data.

    Raises:
        InferenceError: ONNX Runtime refuses the graph, or takes another provider.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        provider: Provider,
        *,
        folder: Path | None = None,
        batch: int | None = None,
        before: Session | None = None,
        is_optimised: bool = False,
    ) -> None:
        self.is_open: bool = size_is_open(graph) if before is None else before.is_open
        if self.is_open and before is None:
            try_once(graph, folder)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Several sessions take turns on the same cores; one that has ended must not spin while the next one runs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if provider.threads is not None:
            options.intra_op_num_threads = provider.threads
        if folder is not None:
            options.add_session_config_entry(_EXTERNAL_FOLDER, str(folder))
        if is_optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if _is_large(graph):
            options.add_session_config_entry(_NO_PACKING, "1")
        try:
            self._session = _made(graph, options, provider)
        except Exception as error:  # ONNX Runtime's own exception types are private
            raise InferenceError(f"ONNX Runtime {ort.__version__} cannot load the model: {_one_line(error)}") from None
        if self._session.get_providers()[0] != provider.name:
            raise InferenceError(f"ONNX Runtime did not give the session {provider.name}, though it loads")
        self.provider = provider
        self.inputs = [i.name for i in self._session.get_inputs()]
        self.outputs = [o.name for o in self._session.get_outputs()]
        first = self._session.get_inputs()[0].shape[:1]
        self._most: int | None = None  # samples that memory suffices for, once it did not for more
        self.fixed_batch: int | None = first[0] if first and isinstance(first[0], int) and first[0] > 0 else batch

    def run(self, feed: Mapping[str, Value], outputs: Sequence[str] | None = None) -> list[ort.OrtValue]:
        """Run once and leave the results on the device.

        Raises:
            InferenceError: ONNX Runtime fails on these inputs.
            OutOfMemoryError: for want of memory.
        """
        binding = self._session.io_binding()
        device, device_id = self.provider.device, self.provider.device_id
        for name, value in feed.items():
            if isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in outputs or self.outputs:
            binding.bind_output(name, device, device_id)
        try:
            if self.is_open:
                options = ort.RunOptions()
                _waited_for(
                    partial(self._session.run_with_iobinding, binding, options),
                    stop=partial(setattr, options, "terminate", True),
                )
            else:
                self._session.run_with_iobinding(binding)
        except Exception as error:  # as above
            if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
                raise OutOfMemoryError(_lack_of_memory(error, self.provider.device)) from None
            raise InferenceError(f"ONNX Runtime cannot run the model: {_one_line(error)}") from None
        return list(binding.get_outputs())

    def run_samples(
        self,
        feed: Mapping[str, Value],
        outputs: Sequence[str] | None = None,
        *,
        beside: Mapping[str, Value] | None = None,
    ) -> list[Value]:
        """Run on a batch; where memory does not suffice, on half as many samples at a time, as often as it takes.

        The smaller size stays for later batches. What was run in parts comes in host memory.

        Args:
            feed: Inputs with one entry a sample.
            outputs: Outputs with one entry a sample; all where None.
            beside: Inputs that are the same for all samples.

        Raises:
            InferenceError: ONNX Runtime fails on these inputs.
            OutOfMemoryError: memory does not suffice for one sample, or for as many as the graph takes at a time.
        """
        same = beside or {}
        count = value_shape(next(iter(feed.values())))[0]
        while True:
            size = min(count, self._most or count)
            try:
                if size == count:
                    return list(self.run({**feed, **same}, outputs))
                arrays = {name: to_numpy(value) for name, value in feed.items()}
                parts = []
                for start in range(0, count, size):
                    part = {name: values[start : start + size] for name, values in arrays.items()}
                    parts.append([np.atleast_1d(to_numpy(value)) for value in self.run({**part, **same}, outputs)])
                return [np.concatenate(values) for values in zip(*parts, strict=True)]
            except OutOfMemoryError as error:
                if size < 2 or self.fixed_batch is not None:
                    least = (
                        "the tensors of one sample"
                        if size < 2
                        else f"the {size} samples that the model takes at a time"
                    )
                    what = str(error).partition(";")[0]
                    raise OutOfMemoryError(f"{what}; {least} need more than there is; free memory") from None
            self._most = (size + 1) // 2
            warnings.warn(SmallerRuns(_SMALLER), stacklevel=1)  # Python shows a text of one place once

    def chunks(self, batch: NDArray[Any]) -> list[tuple[NDArray[Any], int]]:
        """Cut a batch into what the graph takes at a time, with the number of real samples in each.

        A fixed batch dimension of k takes k at a time; the last chunk is filled up with copies of its last sample.
        """
        if self.fixed_batch is None:
            return [(batch, len(batch))]
        size = self.fixed_batch
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        return [(filled_up(part, size), len(part)) for part in parts]

    def apply(self, batch: NDArray[Any]) -> Iterator[Chunk]:
        """Run a batch of any size through a graph with one input, chunk by chunk as far as the caller goes on.

        Outputs of filled-up chunks are cut back to the real samples.
        """
        start = 0
        for chunk, real in self.chunks(batch):
            values = self.run_samples({self.inputs[0]: chunk})
            if real < len(chunk):
                values = [_first(value, real) for value in values]
            yield Chunk(start, values)
            start += real


def _made(graph: onnx.ModelProto, options: ort.SessionOptions, provider: Provider) -> ort.InferenceSession:
    """Make a session; where that takes long, in a thread of its own, so that Ctrl-C ends the wait."""
    nodes = len(graph.graph.node)
    if nodes > MOST_OPTIMISED:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL

    def make() -> ort.InferenceSession:
        return ort.InferenceSession(
            graph.SerializeToString(),
            options,
            providers=provider.session_arguments,
            disabled_optimizers=[*unsafe_optimizers(graph), *(["ConstantFolding"] if _is_large(graph) else [])],
        )

    return make() if nodes < _LONG else _waited_for(make)


def _is_large(graph: onnx.ModelProto) -> bool:
    """Whether the weights that a graph has in files are so large that copies of them matter."""
    return sum(map(external_bytes, graph.graph.initializer)) >= _MUCH


def _waited_for(work: Callable[[], T], *, stop: Callable[[], None] | None = None) -> T:
    """Do native work in a thread of its own, so that Ctrl-C ends the wait; ``stop`` has the work itself end."""
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        return found.result()
    except KeyboardInterrupt:
        if stop is not None:
            stop()
            thread.join(_STOPPED)
        raise


def filled_up(part: NDArray[Any], size: int) -> NDArray[Any]:
    """Return some samples, filled up to ``size`` with copies of the last one."""
    missing = size - len(part)
    return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part


def value_shape(value: Value) -> tuple[int, ...]:
    """Return a tensor's shape."""
    return tuple(value.shape if isinstance(value, np.ndarray) else value.shape())


def to_numpy(value: Value) -> NDArray[Any]:
    """Return a copy of a tensor in host memory; an OrtValue's own view would die with it.

    numpy has no bfloat16, so that comes as float32, which holds it exactly.
    """
    if isinstance(value, np.ndarray):
        return value
    if value.data_type() == _BFLOAT16:
        return np.asarray((_bits(value).astype(np.uint32) << 16).view(np.float32))
    return np.array(value.numpy())


def _first(value: Value, count: int) -> Value:
    """Return a tensor's first samples in host memory, in its own type."""
    if not isinstance(value, np.ndarray) and value.data_type() == _BFLOAT16:
        bits = np.ascontiguousarray(_bits(value)[:count])
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)
    return np.atleast_1d(to_numpy(value))[:count]


def _bits(value: ort.OrtValue) -> NDArray[np.uint16]:
    """Return a copy of a bfloat16 tensor's bits, which ONNX Runtime does not hand to numpy."""
    if value.device_name().lower() != "cpu":
        raise InferenceError(
            "a bfloat16 tensor can't be read back from the device; use {provider} cpu", parameter="provider"
        )
    shape = tuple(value.shape())
    data = ctypes.string_at(value.data_ptr(), math.prod(shape) * 2)
    return np.frombuffer(data, np.uint16).reshape(shape)


def _lack_of_memory(error: Exception, device: str) -> str:
    """Say what could not be allocated, where ONNX Runtime's message has the number."""
    asked = re.search(r"requested buffer of size (\d+)", str(error))
    size = f"{int(asked[1]) / 1e6:,.0f} MB" if asked else "memory"
    return f"out of memory: ONNX Runtime could not allocate {size} ({device}); a smaller --batch-size needs less"


def _one_line(error: Exception) -> str:
    """ONNX Runtime's messages span lines and begin with codes and source paths; keep what a user can read."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/\S+/onnxruntime/\S+:\d+ \S.*?(?=[A-Z][a-z])", "", text, count=1)
    return text if len(text) <= 300 else text[:297] + "..."
