"""What the tests of the graph package share: masks with telling values, and the round trip itself."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto

from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.edit import edit_bytes, joined
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.masks.harden import harden_file, hardened, strip_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import MaskEntry, masks_of
from cloakonnx.graph.masks.strip import removal, stripped, stripped_sha256
from cloakonnx.graph.masks.taps import Tap
from tests.fixtures.models import Feed

TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2}
"""Of the largest activation: where a fusion around the mask rounds once more than the source did."""


def stripped_bytes(model: Model) -> bytes:
    """Return the file without its masks, in memory."""
    content = model.content
    return joined(content, edit_bytes(content, removal(model)))


def weights(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Return a mask's weights: 0 and 1, values between, above and below, in seeded order."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 1, count)
    kind = rng.permutation(count) % 5
    values[kind == 0], values[kind == 1] = 0, 1
    values[kind == 2] *= 4
    values[kind == 3] *= -1
    return values.astype(np.float32)


def mask_for(tap: Tap, features: int | None = None, seed: int = 0) -> Mask:
    """Return a mask for a tap; ``features`` are needed where the model does not tell how many it has."""
    count = tap.features or features
    assert count is not None
    return Mask(tap.name, weights(count, seed), tap.feature_axis)


def write(folder: Path, proto: ModelProto, name: str = "model.onnx") -> Path:
    """Write a model file."""
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def whole_proto(path: Path) -> ModelProto:
    """Read a model with plain protobuf, external data left alone."""
    return ModelProto.FromString(path.read_bytes())


def round_trip(path: Path, masks: Sequence[Mask], folder: Path) -> Model:
    """Harden a file and strip it again, hold every promise that needs no run, and return the hardened model."""
    before = path.read_bytes()
    source = load(path)
    output, back = folder / "out.hardened.onnx", folder / "out.stripped.onnx"
    harden_file(source, masks, output, hash_external=False)  # as it is in memory
    model = load(output)
    assert masks_of(model.proto)[-len(masks) :] == [_entry_as_written(model, mask) for mask in masks]
    assert listed(diff(source, model)) == expected_differences(source, model)
    assert not diff(model, load(output))
    undone = undone_by_hand(whole_proto(output), masks_of(model.proto))
    assert undone.SerializeToString() == whole_proto(path).SerializeToString()
    strip_file(model, back)
    assert back.read_bytes() == before
    assert path.read_bytes() == before
    assert whole_proto(output).SerializeToString() == output.read_bytes()
    versions = [(each.ir_version, [str(o) for o in each.opset_import]) for each in (source.proto, model.proto)]
    assert versions[0] == versions[1]
    in_memory = hardened(source, masks)
    assert not diff(in_memory, model), "what is run is what is shipped"
    assert (in_memory.sha256, stripped_sha256(in_memory)) == (model.sha256, stripped_sha256(model))
    assert bytes(in_memory.content) == bytes(model.buf)
    assert stripped(in_memory).sha256 == stripped(model).sha256 == stripped_sha256(model)
    assert rank(output) >= rank(path), "the checker's status is worse"
    return model


def _entry_as_written(model: Model, mask: Mask) -> MaskEntry:
    return next(entry for entry in masks_of(model.proto) if entry.tap == mask.tap)


def expected_differences(source: Model, model: Model) -> Counter[str]:
    """What must differ, in the words of graph.diff: renamed producers, new nodes, initializers and metadata."""
    found = []
    renamed: dict[int, list[str]] = {}
    for entry in masks_of(model.proto):
        index, producer = next((i, n) for i, n in enumerate(source.proto.graph.node) if entry.tap in n.output)
        renamed.setdefault(index, []).append(f"{entry.tap!r} is now {entry.unmasked!r}")
        found.append(f"Mul node {entry.node!r} added")
        if source.proto.ir_version < 4:
            found.append(f"Constant node {entry.node + '_constant'!r} added")
        else:
            found.append(f"initializer {entry.initializer!r} added")
    for index, names in renamed.items():
        producer = source.proto.graph.node[index]
        label = f"{producer.op_type} node "
        label += repr(producer.name) if producer.name else f"of {list(producer.output)}"
        ordered = sorted(names, key=lambda text: [repr(o) for o in producer.output].index(text.partition(" is now")[0]))
        found.append(f"{label} changed (output {', '.join(ordered)})")
    found += [
        f"metadata {'cloakonnx.' + key!r} added" for key in ("masks", "source_sha256", "stripped_sha256", "version")
    ]
    return Counter(found)


def listed(differences: Sequence[object]) -> Counter[str]:
    """Return differences as text, without regard to their order."""
    return Counter(map(str, differences))


def undone_by_hand(proto: ModelProto, entries: Sequence[MaskEntry]) -> ModelProto:
    """Take masks out with nothing but protobuf, as a user could who has only the metadata."""
    graph = proto.graph
    for entry in entries:
        for node in list(graph.node):
            if entry.initializer in node.output or entry.tap in node.output:
                graph.node.remove(node)
        for tensor in list(graph.initializer):
            if tensor.name == entry.initializer:
                graph.initializer.remove(tensor)
        for node in graph.node:
            node.output[:] = [entry.tap if name == entry.unmasked else name for name in node.output]
    for each in list(proto.metadata_props):
        if each.key.startswith("cloakonnx."):
            proto.metadata_props.remove(each)
    return proto


def rank(path: Path) -> int:
    """Return what the checker says, as a number: 0 refused, 1 passed, 2 passed with strict shape inference."""
    for level, full in ((0, False), (1, True)):
        try:
            onnx.checker.check_model(path, full_check=full)
        except Exception:  # inference errors are plain RuntimeErrors
            return level
    return 2


def tap_values(path: Path, tap: str, feed: Feed) -> NDArray[Any]:
    """Run a model file in ONNX Runtime on the CPU and return one tensor of its main graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    proto = whole_proto(path)
    if tap not in {output.name for output in proto.graph.output}:
        proto.graph.output.add(name=tap)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (value,) = session.run([tap], feed)
    assert isinstance(value, np.ndarray)
    return value


def assert_masked(source: NDArray[Any], masked: NDArray[Any], mask: Mask, axis: int) -> None:
    """Check that ``masked`` is mask * source, exactly or within the tolerance of the dtype."""
    assert (masked.shape, masked.dtype) == (source.shape, source.dtype)
    shape = [1] * source.ndim
    shape[axis] = -1
    wanted = source * mask.weights.reshape(shape).astype(source.dtype)
    assert wanted.dtype == source.dtype
    if not np.array_equal(masked, wanted):
        largest = float(np.abs(wanted).max())
        np.testing.assert_allclose(masked, wanted, rtol=0, atol=TOLERANCE[str(source.dtype)] * largest)


def seed_of(name: str) -> int:
    """Return a seed that depends on a name."""
    return zlib.crc32(name.encode())
