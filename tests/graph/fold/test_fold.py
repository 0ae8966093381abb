"""What folds, where it goes, what stays a Mul and why; the file that is written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from cloakonnx.errors import MaskError, ModelError, TapError
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.fold.fold import fold_file, folded, folding
from cloakonnx.graph.masks.harden import hardened, strip_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import folded_masks, is_folded
from cloakonnx.graph.masks.strip import read_masks, stripped
from cloakonnx.graph.subgraphs.inline import inline

from .folding import TAPS, X, compared, conv, net, node, normal, positive, relative, residual, run


def test_all_masks_of_a_residual_net_fold_to_float64_rounding() -> None:
    model = residual()
    masks = [positive(model, tap, seed) for seed, tap in enumerate(TAPS)]
    assert compared(model, masks, X, 5e-15) == dict.fromkeys(TAPS)
    assert relative(run(folded(model, masks).proto, X)[0], run(model.proto, X)[0]) > 0.1


def test_a_mask_names_the_layers_it_went_into() -> None:
    model = residual()
    inner, last = folding(model, [positive(model, "i1"), positive(model, "a2")]).fates
    assert (inner.layers, last.layers) == (("Conv node 'n_z2'",), ("Gemm node 'n_y'",))
    assert inner.folded and last.folded


def test_only_named_weights_change(tmp_path: Path) -> None:
    model = residual()
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(model.buf))
    fold_file(load(path), [positive(model, "i1")], tmp_path / "out.onnx")
    found = {str(each) for each in diff(load(path), load(tmp_path / "out.onnx"))}
    assert {text for text in found if "metadata" not in text} == {"initializer 'w2' changed (raw_data)"}
    keys = {p.key for p in load(tmp_path / "out.onnx").proto.metadata_props}
    assert keys == {f"cloakonnx.{key}" for key in ("kind", "folded", "source_sha256", "version")}


def test_the_formula_of_the_plain_case() -> None:
    """A mask on Relu(Conv) times the next convolution's input channels, in float64, is all that happens."""
    model = residual()
    mask = positive(model, "i1")
    made = {t.name: numpy_helper.to_array(t) for t in folded(model, [mask]).proto.graph.initializer}
    source = {t.name: numpy_helper.to_array(t) for t in model.proto.graph.initializer}
    np.testing.assert_allclose(
        made["w2"], source["w2"] * mask.weights.astype(np.float64).reshape(1, -1, 1, 1), rtol=1e-15
    )


def test_zeros_on_the_stream_stay_a_mul_and_elsewhere_fold() -> None:
    model = residual()
    weights = {"a0": [0, 1, 1, 2], "a1": [0, 1, 1, 2], "i1": [0, 0, 1, 0.5], "a2": [0, 1, 2, 1, 1, 0]}
    masks = [Mask(tap, np.array(values, np.float32)) for tap, values in weights.items()]
    reasons = compared(model, masks, X, 5e-15)
    assert reasons["a0"] is None, "back into the first convolution"
    assert reasons["i1"] is None and reasons["a2"] is None
    assert "weight of 0 where a positive one is needed" in str(reasons["a1"])


def test_a_zero_goes_backward_where_it_cannot_go_forward() -> None:
    """The tap is an output, so only the convolution before it can take the mask."""
    model = net(
        [conv("x w b", "z"), node("Relu", "z", "y")], {"w": normal(1, 4, 3, 3, 3), "b": normal(2, 4)}, ["N", 3, 8, 8]
    )
    made = folding(model, [Mask("y", np.array([0, 1, 0.5, 2], np.float32))])
    assert made.fates[0].layers == ("Conv node 'n_z'",)
    assert compared(model, [Mask("y", np.array([0, 1, 0.5, 2], np.float32))], X) == {"y": None}


def test_negative_weights_stay_a_mul() -> None:
    reasons = compared(residual(), [Mask("i1", np.array([-1, 1, 1, 1], np.float32))], X)
    assert "negative" in str(reasons["i1"])


def external(folder: Path, model: Model) -> Path:
    made = onnx.ModelProto.FromString(bytes(model.buf))
    onnx.save_model(
        made,
        folder / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
        convert_attribute=False,
    )
    return folder / "m.onnx"


def test_external_data(tmp_path: Path) -> None:
    """Changed weights move into the model file, the others stay references; nothing of the user's is touched."""
    path = external(tmp_path, residual())
    before = path.read_bytes(), (tmp_path / "m.data").read_bytes()
    elsewhere = tmp_path / "there"
    elsewhere.mkdir()
    masks = [positive(residual(), "i1")]
    for output in (tmp_path / "out.onnx", elsewhere / "out.onnx"):
        fold_file(load(path), masks, output)
        made = onnx.load(output, load_external_data=False)
        inside = {t.name for t in made.graph.initializer if t.data_location != TensorProto.EXTERNAL}
        assert inside == {"w2"}
        assert relative(run(onnx.load(output), X)[0], run(inline(folded(residual(), masks)), X)[0]) == 0
    assert (path.read_bytes(), (tmp_path / "m.data").read_bytes()) == before
    assert (elsewhere / "m.data").read_bytes() == before[1]


def test_the_same_bytes_again_and_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(residual().buf))
    masks = [positive(residual(), tap, seed) for seed, tap in enumerate(TAPS)]
    masks.append(Mask("z4", np.array([0, 1, 1, 1, 1, -1], np.float32)))
    for name in ("one.onnx", "two.onnx"):
        fold_file(load(path), masks, tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert not diff(folded(load(path), masks), load(tmp_path / "one.onnx"))
    kept = [each for each in load(tmp_path / "one.onnx").proto.graph.node if each.op_type == "Mul"]
    assert [each.output[0] for each in kept] == ["z4"]


def test_metadata_gives_the_masks_back(tmp_path: Path) -> None:
    masks = [positive(residual(), tap, seed) for seed, tap in enumerate(TAPS)]
    model = folded(residual(), masks)
    assert is_folded(model.proto)
    for given, found, again in zip(masks, folded_masks(model.proto), read_masks(model), strict=True):
        assert given.tap == found.tap == again.tap
        assert np.array_equal(given.weights, found.weights)
    for text in ("{}", "[1]", '[{"tap":"a","feature_axis":1,"weights":"?"}]', '[{"tap":"a"}]', "[" * 99999):
        next(p for p in model.proto.metadata_props if p.key == "cloakonnx.folded").value = text
        if text != "{}":
            with pytest.raises(ModelError, match="damaged"):
                folded_masks(model.proto)


def test_a_folded_model_is_not_stripped_nor_hardened_again(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(residual().buf))
    mask = positive(residual(), "i1")
    fold_file(load(path), [mask], tmp_path / "out.onnx")
    model = load(tmp_path / "out.onnx")
    with pytest.raises(ModelError, match="is folded: its masks are in the weights and can't be taken out"):
        strip_file(model, tmp_path / "back.onnx")
    with pytest.raises(ModelError, match="is folded"):
        stripped(model)
    with pytest.raises(ModelError, match="takes no more masks"):
        hardened(model, [positive(residual(), "a0")])
    with pytest.raises(ModelError, match="was hardened before"):
        folding(model, [positive(residual(), "a0")])
    with pytest.raises(ModelError, match="was hardened before"):
        folding(hardened(residual(), [mask]), [positive(residual(), "a0")])


def test_a_model_in_which_nothing_folds_is_hardened_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = net([node("Sigmoid", "x", "s"), node("Sigmoid", "s", "y")], {}, ["N", 3, 8, 8])
    path.write_bytes(bytes(model.buf))
    (fate,) = fold_file(load(path), [positive(model, "s")], tmp_path / "out.onnx")
    assert not fate.folded and not is_folded(load(tmp_path / "out.onnx").proto)
    strip_file(load(tmp_path / "out.onnx"), tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == path.read_bytes()


def test_bad_input() -> None:
    model = residual()
    with pytest.raises(MaskError, match="no mask to fold"):
        folding(model, [])
    with pytest.raises(MaskError, match="two masks"):
        folding(model, [positive(model, "a0"), positive(model, "a0")])
    with pytest.raises(TapError, match="does not exist"):
        folding(model, [Mask("nothing", np.ones(4, np.float32))])
    with pytest.raises(MaskError, match="has 5 weights, but the tensor has 4"):
        folding(model, [Mask("a0", np.ones(5, np.float32))])


def test_a_mask_of_ones_changes_no_weight() -> None:
    model = residual()
    made = folding(model, [Mask("a0", np.ones(4, np.float32))])
    assert made.fates[0].folded and not made.fates[0].layers
    assert not made.edit.replace_initializers and is_folded(folded(model, [Mask("a0", np.ones(4, np.float32))]).proto)
