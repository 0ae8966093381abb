"""External data on the command line: what is copied and said, refused names, digests, and inputs that change."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import Watch, harden_file, strip_file
from cloakonnx.graph.masks.mask import Mask

from .conftest import Run, files

SAFE = [
    "good.bin",
    "sub/good.bin",
    "m.onnx.data",
    "model.layers.0.weight",
    "onnx__MatMul_12",
    "CON",
    "other.onnx",
    "größe",
]
REFUSED = [
    ".hidden", ".git/hooks/pre-commit", "sub/.x/y.bin", "cloakonnx.toml", "Setup.CFG", "conf.d/x.yml", "conftest.py",
    "sitecustomize.PY", "run.sh", "run.sh.", "x.so.1", "Makefile", "Dockerfile.dev", "requirements-dev.txt", "-rf",
    "a\nb.bin", "good\x1b[31m.bin", "x\u202egnp.bin",
]  # fmt: skip


def make(folder: Path, location: str) -> Path:
    """Write a model whose first weight lies in a file of a name."""
    folder.mkdir(parents=True, exist_ok=True)
    weight = ((np.arange(24) % 11 - 5).astype("<f4") / 8).reshape(4, 6)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(weight.tobytes())
    first = TensorProto(name="w1", data_type=1, dims=[4, 6], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "96")):
        first.external_data.add(key=key, value=value)
    second = numpy_helper.from_array((np.arange(18).reshape(6, 3) % 5 - 2).astype(np.float32), "w2")
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "w2"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [first, second])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


@pytest.fixture
def mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    np.save("mask.npy", np.array([0, 1, 1, 1, 1, 1], np.float32))
    return ["--mask", "mask.npy", "--tap", "t"]


@pytest.mark.parametrize("location", SAFE)
def test_what_is_copied_is_said(location: str, mask: list[str], run: Run, tmp_path: Path) -> None:
    make(tmp_path / "in", location)
    Path("out").mkdir()
    dry = run("apply", "in/m.onnx", *mask, "-o", "out/h.onnx", "--dry-run")
    assert f"would copy external data {location} (96 bytes) to {tmp_path / 'out'}" in dry.err
    assert not files(tmp_path / "out")
    made = run("apply", "in/m.onnx", *mask, "-o", "out/h.onnx")
    assert made.code == 0
    assert f"copies external data {location} (96 bytes) to {tmp_path / 'out'}\n" in made.err
    assert (tmp_path / "out" / location).read_bytes() == (tmp_path / "in" / location).read_bytes()


def test_a_hard_link_is_said(mask: list[str], run: Run, tmp_path: Path) -> None:
    make(tmp_path / "in", "w.bin")
    (tmp_path / "secret").hardlink_to(tmp_path / "in" / "w.bin")
    Path("out").mkdir()
    made = run("apply", "in/m.onnx", *mask, "-o", "out/h.onnx")
    assert (made.code, "w.bin (96 bytes, a hard link to a file that has other names as well)" in made.err) == (0, True)


@pytest.mark.parametrize("location", REFUSED)
def test_names_that_nothing_is_written_under(location: str, mask: list[str], run: Run, tmp_path: Path) -> None:
    make(tmp_path / "in", location)
    Path("out").mkdir()
    for more in ([], ["--force"], ["--fold"], ["--dry-run"]):
        refused = run("apply", "in/m.onnx", *mask, "-o", "out/h.onnx", *more)
        assert (refused.code, len(refused.err.splitlines())) == (2, 1)
        assert "so it is not copied to another folder" in refused.err
        assert refused.err.rstrip("\n").isprintable()
        assert not files(tmp_path / "out")
    np.savez("d.npz", x=np.random.default_rng(0).random((60, 4)).astype(np.float32), y=np.arange(60) % 3)
    refused = run("harden", "in/m.onnx", "--data", "d.npz", "--eps", "0.1", "-o", "new")
    assert (refused.code, len(refused.err.splitlines()), Path("new").exists()) == (2, 1, False)
    assert run("apply", "in/m.onnx", *mask, "-o", "in/h.onnx").code == 0  # nothing is written there
    assert run("strip", "in/h.onnx", "-o", "out/m.onnx").code == 2
    assert not files(tmp_path / "out")


def test_no_copy_goes_through_a_link_or_over_something_else(mask: list[str], run: Run, tmp_path: Path) -> None:
    make(tmp_path / "in", "sub/good.bin")
    for name in ("elsewhere", "out", "out2/sub/good.bin"):
        (tmp_path / name).mkdir(parents=True)
    Path("out/sub").symlink_to(tmp_path / "elsewhere")
    for folder in ("out", "out2"):
        refused = run("apply", "in/m.onnx", *mask, "-o", f"{folder}/h.onnx", "--force")
        assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert not files(tmp_path / "elsewhere")


def test_nothing_stays_where_the_output_fails(mask: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "in", "sub/good.bin")
    Path("out").mkdir()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cloakonnx.graph.masks.harden.write_pieces", full)
    with pytest.raises(OSError, match="No space"):
        harden_file(load(path), [Mask("t", np.array([0, 1, 1, 1, 1, 1], np.float32))], tmp_path / "out" / "h.onnx")
    assert not files(tmp_path / "out")


@pytest.mark.parametrize("folder", ["in", "out"])
def test_a_changed_bit_is_found(folder: str, mask: list[str], run: Run, tmp_path: Path) -> None:
    source = make(tmp_path / "in", "w.bin")
    Path("out").mkdir(exist_ok=True)
    hardened = f"{folder}/h.onnx"
    assert run("apply", "in/m.onnx", *mask, "-o", hardened).code == 0
    recorded = {p.key: p.value for p in onnx.load(hardened, load_external_data=False).metadata_props}
    digest = hashlib.sha256((tmp_path / "in" / "w.bin").read_bytes()).hexdigest()
    assert json.loads(recorded["cloakonnx.external_sha256"]) == {"w.bin": {"sha256": digest, "size": 96}}
    verified = run("verify", hardened, "--source", source)
    assert verified.code == 0
    assert "not checked" not in verified.err
    data = bytearray((tmp_path / folder / "w.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / folder / "w.bin").write_bytes(data)
    for reference in ([], ["--source", source]):
        failed = run("verify", hardened, *reference)
        assert failed.code == 1
        assert "FAIL external data: 'w.bin' is not as the metadata records it" in failed.out
    unread = run("verify", hardened, "--source", source, "--no-hash-external")
    assert unread.code == 0
    assert "external data: it was left unread" in unread.out
    assert unread.err.endswith("is m.onnx with its masks; its external data was not checked\n")
    again = run("apply", hardened, *mask[:2], "--tap", "h", "-o", f"{folder}/twice.onnx")
    assert (again.code, "is not as the metadata records it" in again.err) == (1, True)
    Path("back").mkdir()
    back = run("strip", hardened, "-o", "back/m.onnx")
    assert (back.code, files(tmp_path / "back")) == (1, {})


def test_without_digests_it_says_so(mask: list[str], run: Run, tmp_path: Path) -> None:
    source = make(tmp_path / "in", "w.bin")
    assert run("apply", "in/m.onnx", *mask, "-o", "in/h.onnx", "--no-hash-external").code == 0
    assert b"external_sha256" not in (tmp_path / "in" / "h.onnx").read_bytes()
    verified = run("verify", "in/h.onnx", "--source", source)
    assert verified.code == 0
    assert (
        "-    external data: both models refer to the same files, and the metadata records no digests" in verified.out
    )
    assert verified.err.endswith("its external data was not checked\n")
    assert run("apply", "in/m.onnx", *mask, "-o", "in/h2.onnx", "--hash-external").code == 0


@pytest.mark.parametrize("changed", ["m.onnx", "w.bin"])
@pytest.mark.parametrize("how", ["replaced", "cut", "written to"])
@pytest.mark.parametrize("verb", ["apply", "strip"])
def test_an_input_that_changes_meanwhile(changed: str, how: str, verb: str, mask: list[str], tmp_path: Path) -> None:
    path = make(tmp_path / "in", "w.bin")
    weights = [Mask("t", np.array([0, 1, 1, 1, 1, 1], np.float32))]
    if verb == "strip":
        harden_file(load(path), weights, tmp_path / "in" / "h.onnx")
        path, changed = tmp_path / "in" / "h.onnx", changed.replace("m.onnx", "h.onnx")
    Path("out").mkdir()
    model = load(path)

    def change(_: object) -> None:
        target = path.with_name(changed)
        if how == "replaced":
            made = path.with_name("new")
            made.write_bytes(target.read_bytes())
            made.replace(target)
        else:
            with target.open("r+b") as stream:
                stream.truncate(50) if how == "cut" else stream.write(stream.read(1))

    output = tmp_path / "out" / "made.onnx"
    with pytest.raises(ModelError, match=r"was replaced or changed while it was read; nothing was written"):
        if verb == "strip":
            strip_file(model, output, watch=Watch(copies=change))
        else:
            harden_file(model, weights, output, watch=Watch(copies=change))
    assert not files(tmp_path / "out")


CUT = """
import sys
from pathlib import Path
import numpy as np
from cloakonnx import Mask, load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.taps import find_tap

path = Path(sys.argv[1])
source = load(path)
mask = Mask(find_tap(source).name, np.ones(6, np.float32))
with path.open("r+b") as stream:
    stream.truncate(4096)
try:
    harden_file(source, [mask], path.with_name("out.onnx"))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_large_model_that_is_cut_is_no_bus_error(tmp_path: Path) -> None:
    path = make(tmp_path, "w.bin")
    proto = onnx.load(path)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(2_000_000, np.float32), "large"))
    onnx.save(proto, path)
    ended = subprocess.run([sys.executable, "-c", CUT, path], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("ModelError")
    assert "was cut while it was read" in ended.stdout
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("text", ["1_0", "\u0661", "+1", " 1", "1e3", "0x1"])
def test_offsets_are_ascii_digits(text: str, tmp_path: Path, run: Run) -> None:
    path = make(tmp_path, "w.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[1].value = text
    path.write_bytes(proto.SerializeToString())
    refused = run("inspect", path)
    assert (refused.code, "offset or length that is not a number" in refused.err) == (2, True)


@pytest.mark.parametrize(
    "line",
    [
        "attack m.onnx --attack fgsm --eps 0.1 -o o.npz",
        "analyze m.onnx --attack fgsm --eps 0.1 -o o.json",
        "evaluate h.onnx --eps 0.1 --attack fgsm --no-sanity -o o.json",
    ],
)
def test_a_model_that_changes_during_a_run(line: str, mask: list[str], run: Run, tmp_path: Path) -> None:
    make(tmp_path, "w.bin")
    script = "import os\nimport numpy as np\nfrom pathlib import Path\ndef batches():\n"
    script += "    yield np.full((6, 4), 0.5, np.float32), np.arange(6) % 3\n    Path('w.bin').touch()\n"
    Path("s.py").write_text(script)
    assert run("apply", "m.onnx", *mask).code == 0
    Path("m.hardened.onnx").rename("h.onnx")
    before = {*files(tmp_path)}
    ended = run(*line.split(), "--data-script", "s.py:batches")
    assert ended.code == 2
    assert f"{tmp_path / 'w.bin'} was replaced or changed while it was read; nothing was written" in ended.err
    assert {name for name in files(tmp_path) if "__pycache__" not in name} == before
