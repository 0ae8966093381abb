"""What can't be masked is refused by name, with the reason, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import onnx.inliner
import pytest
from onnx import TensorProto

from cloakonnx.errors import ModelError, TapError
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file, strip_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap, list_taps
from tests.cli.conftest import Run, run
from tests.fixtures.models import BROKEN, REFUSED, TAP, Refused, mlp, write_broken_external, write_external
from tests.graph.helpers import weights, write

__all__ = ["run"]

SAID: dict[str, str] = {
    "opset": r"uses opset \d; a mask needs opset 7 or later|imports the domain .ai.onnx.ml. alone",
    "constant": "is constant: it is computed from weights only",
    "dtype": r"has element type \w+; a mask needs float16|is a value of kind (sequence|optional), not a tensor",
    "rank": r"has rank [01]; a tap needs a batch axis|has an unknown rank",
    "subgraph": r"is inside the body of (If|Loop) node '(if|loop)'; only tensors of the main graph can be taps",
    "function": "is inside the local function 'Twice'; only tensors of the main graph can be taps",
    "input": "is an input of the model, not computed by it",
    "initializer": r"is an initializer \(a weight\), not computed",
    "missing": "does not exist",
}


@pytest.mark.parametrize("refused", [pytest.param(each, id=each.name) for each in REFUSED])
def test_refused(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path, refused.model)
    source = load(path)
    kind = ModelError if refused.reason == "opset" else TapError
    with pytest.raises(kind, match=SAID[refused.reason]) as caught:
        harden_file(source, [Mask(refused.tap, weights(6))], tmp_path / "out.onnx")
    message = str(caught.value)
    assert "\n" not in message
    assert source.name in message
    if refused.reason != "opset":
        assert repr(refused.tap) in message
        assert refused.tap not in {tap.name for tap in list_taps(source)}
        with pytest.raises(TapError):
            find_tap(source, refused.tap)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_functions_written_out(tmp_path: Path, run: Run) -> None:
    """What the refusal advises lists the tensors inside, and they can be masked."""
    made = next(each.model for each in REFUSED if each.reason == "function")
    path = write(tmp_path, made)
    assert "1 more taps once local functions are written out" in run("inspect", path).out
    plain = tmp_path / "plain.onnx"
    onnx.save(onnx.inliner.inline_local_functions(onnx.load(path)), plain)
    source = load(plain)
    inside = {tap.name for tap in list_taps(source)} - {tap.name for tap in list_taps(load(path))}
    assert len(inside) == 1
    harden_file(source, [Mask(inside.pop(), weights(6))], tmp_path / "out.onnx")


def test_nearest_names_are_suggested(tmp_path: Path) -> None:
    source = load(write(tmp_path, mlp()))
    with pytest.raises(TapError, match="'feature' does not exist; did you mean 'features'"):
        find_tap(source, "feature")


@pytest.mark.parametrize("axis", [0, 2, -2, -3])
def test_feature_axis_that_does_not_fit(axis: int, tmp_path: Path) -> None:
    source = load(write(tmp_path, mlp()))
    with pytest.raises(TapError, match=f"feature axis {axis} does not fit 'features', which has rank 2"):
        harden_file(source, [Mask(TAP, weights(6), axis)], tmp_path / "out.onnx")


@pytest.mark.parametrize("how", BROKEN)
def test_external_data_that_is_unsafe(how: str, tmp_path: Path) -> None:
    path = write_broken_external(tmp_path, how)
    said = {
        "parent": "leaves the model's folder",
        "hidden_parent": "leaves the model's folder",
        "absolute": "is not a path relative to the model",
        "symlink": "is a symbolic link",
        "missing": "is missing",
        "folder": "is missing: no file",
        "short": "needs bytes 0 to 96 of 'short.data', which has 95",
    }
    with pytest.raises(ModelError, match=said[how]) as caught:
        load(path)
    assert "'w1'" in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"offset": "-1"}, "needs bytes -1"),
        ({"offset": "one"}, "not a number"),
        ({"length": "1e3"}, "not a number"),
        ({"offset": "9" * 30}, "needs bytes 9999"),
        ({"length": "9" * 5000}, "not a number"),
        ({"location": ""}, "is not a path relative"),
        ({"location": "C:\\data"}, "is not a path relative"),
        ({"location": "\\\\server\\share"}, "is not a path relative"),
        ({"location": "weights\\..\\..\\x"}, "leaves the model's folder"),
        ({"location": "a/b/c"}, "is missing"),
        ({"location": "external.onnx"}, "refers to itself"),
        ({"location": "./external.onnx"}, "refers to itself"),
        ({"location": "null\0byte"}, "is missing|not a path"),
    ],
)
def test_references_that_make_no_sense(entries: dict[str, str], said: str, tmp_path: Path) -> None:
    path = write_external(tmp_path)
    proto = load(path).proto
    target = proto.graph.initializer[0]
    for entry in target.external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=said):
        load(path)


def test_reference_without_a_location(tmp_path: Path) -> None:
    made = mlp()
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="is not a path relative to the model"):
        load(write(tmp_path, made))


def test_a_large_inline_tensor_that_claims_to_be_elsewhere(tmp_path: Path) -> None:
    """Both raw data and a reference: the reference counts, and is checked."""
    made = mlp()
    target = made.graph.initializer[0]
    target.raw_data = bytes(10_000)
    target.data_location = TensorProto.EXTERNAL
    target.external_data.add(key="location", value="../outside")
    with pytest.raises(ModelError, match="leaves the model's folder"):
        load(write(tmp_path, made))


def test_links_to_files_and_folders_outside(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "w2.bin").write_bytes(bytes(72))
    path = write_external(tmp_path / "model")
    (path.parent / "weights" / "w2.bin").unlink()
    (path.parent / "weights").rmdir()
    (path.parent / "weights").symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match="is a symbolic link"):
        load(path)


def test_no_file(tmp_path: Path) -> None:
    write(tmp_path, mlp(), "digits.onnx")
    with pytest.raises(ModelError, match=r"no file .*digit\.onnx; did you mean 'digits\.onnx'"):
        load(tmp_path / "digit.onnx")
    with pytest.raises(ModelError, match="no file"):
        load(tmp_path / "nowhere" / "digits.onnx")


@pytest.mark.parametrize("content", [b"", b"\0", b"PK\x03\x04rest", b"not a model at all", b"\x08\x08", b"\x93NUMPY"])
def test_not_a_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"odd\.onnx is (empty, )?not an ONNX model|odd\.onnx is truncated"):
        load(path)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        load(tmp_path)


def test_strip_of_a_model_without_masks(tmp_path: Path) -> None:
    source = load(write(tmp_path, mlp()))
    with pytest.raises(ModelError, match="carries no cloakonnx masks"):
        strip_file(source, tmp_path / "out.onnx")
