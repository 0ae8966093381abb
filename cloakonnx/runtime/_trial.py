"""Runs a graph once in a process of its own, with limits: for graphs whose time and memory only a run can tell.

Native code heeds neither Ctrl-C nor a limit, and a process cannot take back a limit on its memory. The child imports
ONNX Runtime and numpy only; its own limits end it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from cloakonnx.errors import ResourceError

CPU_SECONDS = 5
"""Seconds of the CPU's time that the child may take."""

WALL_SECONDS = 30
"""Seconds after which the child is ended, where the CPU does other things as well."""

BYTES = 2_000_000_000
"""Bytes of memory that the child may ask for beside what its libraries and the model take."""

_OUT_OF_MEMORY = 77

_OUT_OF_TIME = {getattr(signal, name, 0) for name in ("SIGXCPU", "SIGKILL")}

_CRASHES = "MatmulTransposeFusion"
"""ONNX Runtime 1.31 crashes where this has been at work in the body of a Scan whose weights are cast from float16."""

_CHILD = """
import sys
import numpy as np
import onnxruntime as ort

path, folder, seconds, memory = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
without = sys.argv[5:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with open("/proc/self/statm") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
except (ImportError, OSError, ValueError):
    pass
options = ort.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
if folder:
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
types = {"tensor(double)": "f8", "tensor(float16)": "f2", "tensor(int64)": "i8", "tensor(int32)": "i4",
         "tensor(uint8)": "u1", "tensor(int8)": "i1", "tensor(bool)": "?"}
try:
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=without)
    feed = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in value.shape]
        feed[value.name] = np.zeros(shape, types.get(value.type, "f4"))
    session.run(None, feed)
except MemoryError:
    sys.exit(77)
except Exception as error:
    if "alloc" in str(error).lower():
        sys.exit(77)
"""


def unsafe_optimizers(graph: onnx.ModelProto) -> list[str]:
    """Return the optimisers of ONNX Runtime that a graph with bodies is better off without."""
    tensors = (*graph.graph.initializer, *(value.type.tensor_type for value in graph.graph.input))
    kinds = {getattr(each, "data_type", 0) or getattr(each, "elem_type", 0) for each in tensors}
    has_bodies = any(node.op_type in {"Loop", "Scan"} for node in graph.graph.node)
    return [_CRASHES] if has_bodies and onnx.TensorProto.FLOAT16 in kinds else []


def try_once(graph: onnx.ModelProto, folder: Path | None) -> None:
    """Load a graph and run it on one sample of zeros, in a child; what else goes wrong there the caller finds itself.

    Raises:
        ResourceError: it takes more time or memory than the limits allow.
    """
    with tempfile.TemporaryDirectory(prefix="cloakonnx-") as place:
        path = Path(place) / "graph.onnx"
        path.write_bytes(graph.SerializeToString())
        arguments = [str(path), str(folder or ""), str(CPU_SECONDS), str(BYTES + path.stat().st_size)]
        arguments += unsafe_optimizers(graph)
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            code = child.wait(WALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise _too_long() from None
        finally:
            child.kill()
            child.wait()
    if code == _OUT_OF_MEMORY:
        raise ResourceError(
            f"the model asks for over {BYTES // 10**9} GB of memory for one sample, in a loop or for constants; it was "
            "stopped. Export it without that loop"
        )
    if -code in _OUT_OF_TIME:
        raise _too_long()
    if code < 0:
        raise ResourceError(
            f"ONNX Runtime crashed on one sample of zeros ({signal.Signals(-code).name}): the model cannot be run here"
        )


def _too_long() -> ResourceError:
    return ResourceError(
        f"the model has loops or constants of unknown size, and one sample took over {CPU_SECONDS} s of the CPU's "
        "time; it was stopped. Export it without them"
    )
