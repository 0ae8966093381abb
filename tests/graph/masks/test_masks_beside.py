"""Large masks on a model with external data are external data, too: applied, run, verified, attested, stripped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from cloakonnx.errors import CheckError, ModelError, OutputError
from cloakonnx.evaluation.verification.attestation import attest
from cloakonnx.evaluation.verification.verify import Verification, verify
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.masks.harden import harden_file, hardened, strip_file
from cloakonnx.graph.masks.mask import INPUT_CHANNEL, OUTPUT_CHANNEL, WEIGHT, Mask
from cloakonnx.graph.masks.strip import read_masks
from tests.support.classifiers import cpu

from .test_weight_masks import random_masks

WIDE = 512
VALUES = {name: np.random.default_rng(i).normal(size=(WIDE, WIDE)) / 32 for i, name in enumerate(("a", "b"))}
X = np.random.default_rng(5).normal(size=(3, WIDE)).astype(np.float32)


def source(folder: Path, *, outside: bool = True, ir: int = 8) -> Model:
    """Two MatMuls of 1 MiB each."""
    folder.mkdir(exist_ok=True)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    values = [helper.make_tensor_value_info(name, 1, ["n", WIDE]) for name in "xy"]
    fed = [] if ir >= 4 else [helper.make_tensor_value_info(name, 1, [WIDE, WIDE]) for name in VALUES]
    weights = [numpy_helper.from_array(each.astype(np.float32), name) for name, each in VALUES.items()]
    graph = helper.make_graph(nodes, "net", [values[0], *fed], values[1:], weights)
    proto = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(proto, folder / "m.onnx", save_as_external_data=outside, location="m.data", size_threshold=1024)
    return load(folder / "m.onnx")


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def products(masks: list[Mask]) -> np.ndarray:
    of = {name: value.astype(np.float32).astype(np.float64) for name, value in VALUES.items()}
    for mask in masks:
        of[mask.tap] = of[mask.tap] * mask.weights
    return X.astype(np.float64) @ of["a"] @ of["b"]


def run(path: Path) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


@pytest.mark.parametrize("where", ["m", "other"])
def test_it_runs_and_comes_back(where: str, tmp_path: Path) -> None:
    model = source(tmp_path / "m")
    folder = tmp_path / where
    folder.mkdir(exist_ok=True)
    masks = random_masks(model, (WEIGHT,))
    harden_file(model, masks, folder / "hard.onnx")
    assert names(folder) == {"hard.onnx", "hard.masks.bin", "m.data"} | ({"m.onnx"} if where == "m" else set())
    assert (folder / "hard.onnx").stat().st_size < 5000
    assert (folder / "hard.masks.bin").stat().st_size == 2 * 4 * WIDE * WIDE
    np.testing.assert_allclose(run(folder / "hard.onnx"), products(masks), atol=1e-4)
    onnx.checker.check_model(folder / "hard.onnx", full_check=True)
    found = load(folder / "hard.onnx")
    for mask, again in zip(masks, read_masks(found), strict=True):
        np.testing.assert_array_equal(mask.weights, again.weights)
    back = tmp_path / "back"
    back.mkdir()
    strip_file(found, back / "m.onnx")
    assert names(back) == {"m.onnx", "m.data"}
    assert (back / "m.onnx").read_bytes() == (tmp_path / "m" / "m.onnx").read_bytes()


def status(found: Verification) -> dict[str, str]:
    return {check.name: check.status for check in found.checks}


@pytest.mark.parametrize("hashed", [True, False])
def test_verify_and_attest_know_the_file(hashed: bool, tmp_path: Path) -> None:
    model = source(tmp_path)
    harden_file(model, random_masks(model, (WEIGHT,)), tmp_path / "hard.onnx", hash_external=hashed)
    found = load(tmp_path / "hard.onnx")
    made = attest(found, model, settings={})
    assert set(made.files) == {"m.data", "hard.masks.bin"}
    assert verify(cpu(found), source=model, attestation=made).passed
    assert verify(cpu(found)).passed
    beside = tmp_path / "hard.masks.bin"
    beside.write_bytes(beside.read_bytes()[:-4] + np.float32(3).tobytes())
    changed = load(tmp_path / "hard.onnx")
    checks = status(verify(cpu(changed), source=model, attestation=made))
    assert checks["mask values"] == checks["attested data"] == "failed"
    assert (checks["external data"] == "failed") == hashed


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    model = source(tmp_path)
    harden_file(model, random_masks(model, (WEIGHT,)), tmp_path / "hard.onnx")
    (tmp_path / "hard.masks.bin").unlink()
    with pytest.raises(ModelError, match=r"external data 'hard\.masks\.bin' .* is missing"):
        load(tmp_path / "hard.onnx")


@pytest.mark.parametrize("case", ["inline", "small", "constants"])
def test_masks_that_stay_inside(case: str, tmp_path: Path) -> None:
    """Without external data, or where they are small; below IR 4 masks are Constant nodes."""
    model = source(tmp_path, outside=case != "inline", ir=3 if case == "constants" else 8)
    masks = random_masks(model, (OUTPUT_CHANNEL, INPUT_CHANNEL) if case == "small" else (WEIGHT,))
    harden_file(model, masks, tmp_path / "hard.onnx")
    assert "hard.masks.bin" not in names(tmp_path)
    np.testing.assert_allclose(run(tmp_path / "hard.onnx"), products(masks), atol=1e-4)


def test_float16_masks_lie_there_in_half_the_bytes(tmp_path: Path) -> None:
    model = source(tmp_path)
    masks = [mask.as_float16() for mask in random_masks(model, (WEIGHT,))]
    harden_file(model, masks, tmp_path / "hard.onnx")
    assert (tmp_path / "hard.masks.bin").stat().st_size == 2 * 2 * WIDE * WIDE
    np.testing.assert_allclose(run(tmp_path / "hard.onnx"), products(masks), atol=1e-4)
    assert verify(cpu(load(tmp_path / "hard.onnx")), source=model).passed


def test_a_second_hardening_takes_another_file(tmp_path: Path) -> None:
    """The first file of masks is the second model's source's; its digest stays recorded."""
    model = source(tmp_path)
    first, second = random_masks(model, (WEIGHT,))
    harden_file(model, [first, Mask("h", np.linspace(0.5, 1, WIDE))], tmp_path / "hard.onnx")
    assert "hard.masks.bin" in names(tmp_path)
    once = load(tmp_path / "hard.onnx")
    (tmp_path / "there").mkdir()
    again = tmp_path / "there" / "hard.onnx"
    harden_file(once, [second], again)
    assert names(again.parent) == {"hard.onnx", "m.data", "hard.masks.bin", "hard.masks2.bin"}
    assert verify(cpu(load(again)), source=model).passed
    strip_file(load(again), tmp_path / "there" / "back.onnx")
    assert (tmp_path / "there" / "back.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()


def test_nothing_is_written_over_unasked(tmp_path: Path) -> None:
    model = source(tmp_path)
    masks = random_masks(model, (WEIGHT,))
    (tmp_path / "hard.masks.bin").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"hard\.masks\.bin exists already, and the masks of hard\.onnx go there"):
        harden_file(model, masks, tmp_path / "hard.onnx")
    assert names(tmp_path) == {"m.onnx", "m.data", "hard.masks.bin"}
    harden_file(model, masks, tmp_path / "hard.onnx", force=True)
    assert verify(cpu(load(tmp_path / "hard.onnx")), source=model).passed


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    model = source(tmp_path)
    (tmp_path / "victim").write_bytes(b"keep")
    (tmp_path / "hard.masks.bin").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="symbolic link"):
        harden_file(model, random_masks(model, (WEIGHT,)), tmp_path / "hard.onnx", force=True)
    assert (tmp_path / "victim").read_bytes() == b"keep"


def test_names_that_programs_look_for(tmp_path: Path) -> None:
    model = source(tmp_path)
    with pytest.raises(OutputError, match="starts as an option does; name another output"):
        harden_file(model, random_masks(model, (WEIGHT,)), tmp_path / "-hard.onnx")


def test_a_failure_leaves_both_files_as_they_were(tmp_path: Path) -> None:
    """The source is changed while it is read: nothing is written, forced or not."""
    model = source(tmp_path)
    harden_file(model, random_masks(model, (WEIGHT,)), tmp_path / "hard.onnx")
    before = {name: (tmp_path / name).read_bytes() for name in ("hard.onnx", "hard.masks.bin")}
    (tmp_path / "m.onnx").touch()
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes() + b"\x00")
    with pytest.raises((ModelError, CheckError)):
        harden_file(model, random_masks(model, (WEIGHT,))[:1], tmp_path / "hard.onnx", force=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert names(tmp_path) == {"m.onnx", "m.data", *before}


def test_the_same_bytes_twice_and_none_in_memory(tmp_path: Path) -> None:
    model = source(tmp_path)
    masks = random_masks(model, (WEIGHT,))
    harden_file(model, masks, tmp_path / "hard.onnx")
    first = [(tmp_path / name).read_bytes() for name in ("hard.onnx", "hard.masks.bin")]
    harden_file(model, masks, tmp_path / "hard.onnx", force=True)
    assert [(tmp_path / name).read_bytes() for name in ("hard.onnx", "hard.masks.bin")] == first
    assert hardened(model, masks).external_files == ["m.data"]
