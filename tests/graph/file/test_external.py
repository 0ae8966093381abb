"""External data stays where it is, or is copied; large weights are never loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, checker

from cloakonnx.errors import OutputError
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file, hardened, strip_file
from cloakonnx.graph.masks.mask import Mask
from tests.fixtures.models import TAP, mlp, random_feed, write_external
from tests.graph.helpers import assert_masked, round_trip, tap_values, weights, whole_proto, write

FILES = ["external.data", "weights/w2.bin"]
SIZE = 64 << 20


def files(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def test_beside_the_source(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    mask = Mask(TAP, weights(6))
    model = round_trip(path, [mask], tmp_path)
    assert files(tmp_path) == {path.name, "out.hardened.onnx", "out.stripped.onnx", *FILES}
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    assert model.path is not None
    checker.check_model(model.path, full_check=True)
    feed = random_feed(whole_proto(path))
    assert_masked(tap_values(path, TAP, feed), tap_values(model.path, TAP, feed), mask, 1)


def test_copied_into_another_folder(tmp_path: Path) -> None:
    path = write_external(tmp_path / "a")
    (tmp_path / "b").mkdir()
    output = tmp_path / "b" / "out.onnx"
    mask = Mask(TAP, weights(6))
    harden_file(load(path), [mask], output)
    assert files(output.parent) == {"out.onnx", *FILES}
    for name in FILES:
        assert (output.parent / name).read_bytes() == (path.parent / name).read_bytes()
    feed = random_feed(whole_proto(path))
    assert_masked(tap_values(path, TAP, feed), tap_values(output, TAP, feed), mask, 1)
    assert len(diff(load(path), load(output))) == 8  # the digests as well
    (tmp_path / "c").mkdir()
    strip_file(load(output), tmp_path / "c" / "back.onnx")
    assert (tmp_path / "c" / "back.onnx").read_bytes() == path.read_bytes()
    assert files(tmp_path / "c") == {"back.onnx", *FILES}
    harden_file(load(path), [mask], tmp_path / "b" / "again.onnx")  # the data is there already


def test_other_data_of_the_same_name_is_kept(tmp_path: Path) -> None:
    path = write_external(tmp_path / "a")
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "external.data"
    other.write_bytes(b"of another model")
    output = tmp_path / "b" / "out.onnx"
    with pytest.raises(OutputError, match=r"external\.data exists already with other content"):
        harden_file(load(path), [Mask(TAP, weights(6))], output)
    assert files(tmp_path / "b") == {"external.data"}
    assert other.read_bytes() == b"of another model"
    harden_file(load(path), [Mask(TAP, weights(6))], output, force=True)
    assert other.read_bytes() == (path.parent / "external.data").read_bytes()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("folder", ["a", "b"])
def test_an_output_over_the_data_is_always_refused(folder: str, force: bool, tmp_path: Path) -> None:
    path = write_external(tmp_path / "a")
    (tmp_path / "b" / "weights").mkdir(parents=True)
    before = {name: (path.parent / name).read_bytes() for name in FILES}
    for name in FILES:
        output = tmp_path / folder / "weights" / ".." / name
        if folder == "b" and "/" in name:
            continue  # in b/weights the data would go to b/weights/weights
        with pytest.raises(OutputError, match=r"is a data file of external\.onnx"):
            harden_file(load(path), [Mask(TAP, weights(6))], output, force=force)
    assert {name: (path.parent / name).read_bytes() for name in FILES} == before
    assert files(tmp_path / "b") == set()


def test_links_as_caches_have_them(tmp_path: Path) -> None:
    """snapshots/model.onnx is a link to blobs/<hash>; no data beside it."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots").mkdir()
    large = TensorProto(name="large", data_type=1, dims=[5000], raw_data=bytes(20_000))
    blob = write(tmp_path / "blobs", mlp(initializers=[large]), "0123abcd")
    link = tmp_path / "snapshots" / "model.onnx"
    link.symlink_to("../blobs/0123abcd")
    before = blob.read_bytes()
    model = round_trip(link, [Mask(TAP, weights(6))], tmp_path / "snapshots")
    assert link.is_symlink()
    assert blob.read_bytes() == before
    assert files(tmp_path / "blobs") == {"0123abcd"}
    assert model.name == "out.hardened.onnx"
    with pytest.raises(OutputError, match="is the input"):
        harden_file(load(link), [Mask(TAP, weights(6))], blob)


def test_a_link_with_data_beside_it(tmp_path: Path) -> None:
    """The references are relative to the link's folder, not to the file's."""
    path = write_external(tmp_path / "snapshots")
    (tmp_path / "blobs").mkdir()
    path.rename(tmp_path / "blobs" / "0123abcd")
    path.symlink_to("../blobs/0123abcd")
    source = load(path)
    assert source.folder == path.parent
    round_trip(path, [Mask(TAP, weights(6))], path.parent)


def test_a_folder_behind_a_link(tmp_path: Path) -> None:
    path = write_external(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    source = load(tmp_path / "link" / path.name)
    output = tmp_path / "real" / "out.onnx"
    harden_file(source, [Mask(TAP, weights(6))], output, hash_external=False)
    assert not diff(hardened(load(path), [Mask(TAP, weights(6))]), load(output))
    assert files(tmp_path / "real") == {path.name, "out.onnx", *FILES}


def test_large_weights_are_the_same_bytes(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).bytes(5 << 20)
    large = [TensorProto(name=f"large{i}", data_type=2, dims=[len(raw)], raw_data=raw[i:] + raw[:i]) for i in range(2)]
    path = write(tmp_path, mlp(initializers=large))
    model = round_trip(path, [Mask(TAP, weights(6))], tmp_path)
    assert model.proto.ByteSize() < 20_000
    for tensor in large:
        (found,) = (each for each in model.proto.graph.initializer if each.name == tensor.name)
        span = model.own_data(found)
        assert span is not None
        assert model.buf[slice(*span)] == tensor.raw_data


MEASURED = """
import json, resource, sys
from pathlib import Path
import numpy as np
from cloakonnx import Mask, load
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.masks.harden import harden_file, strip_file
from cloakonnx.graph.masks.taps import find_tap

path, output, back = map(Path, sys.argv[1:])
status = Path("/proc/self/status").read_text()
used = 1024 * int(status.partition("VmData:")[2].split()[0])
limit = used + (24 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    bytearray(64 << 20)
except MemoryError:
    pass
else:
    sys.exit("the limit does not hold")
source = load(path)
harden_file(source, [Mask(find_tap(source).name, np.ones(6, np.float32))], output)
strip_file(load(output), back)
print(json.dumps(len(diff(source, load(output)))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
@pytest.mark.parametrize("where", ["external", "inline"])
@pytest.mark.parametrize("folder", ["", "other"])
def test_memory(where: str, folder: str, tmp_path: Path) -> None:
    """A process that may take 24 MB more can harden, strip and compare a model with 64 MB of weights."""
    large = TensorProto(name="large", data_type=1, dims=[SIZE // 4])
    if where == "external":
        large.data_location = TensorProto.EXTERNAL
        large.external_data.add(key="location", value="large.bin")
        with (tmp_path / "large.bin").open("wb") as stream:
            stream.truncate(SIZE)
    else:
        large.raw_data = bytes(SIZE)
    path = write(tmp_path, mlp(initializers=[large]))
    (tmp_path / folder).mkdir(exist_ok=True)
    paths = [path, tmp_path / folder / "out.onnx", tmp_path / folder / "back.onnx"]
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURED), *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == (8 if where == "external" else 7)
    assert paths[2].stat().st_size == path.stat().st_size
    assert (tmp_path / folder / "large.bin").exists() == (where == "external")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
def test_a_file_whose_name_is_no_utf8(tmp_path: Path) -> None:
    large = TensorProto(name="large", data_type=1, dims=[1 << 18], raw_data=bytes(1 << 20))
    path = write(tmp_path, mlp(initializers=[large]))
    odd = path.rename(tmp_path / "model\udcff.onnx")
    model = load(odd)
    harden_file(model, [Mask(TAP, weights(6))], tmp_path / "out\udcff.onnx")
    strip_file(load(tmp_path / "out\udcff.onnx"), tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == odd.read_bytes()
