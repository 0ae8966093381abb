"""verify names what anyone changed after a model was hardened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cloakonnx.errors import ModelError
from cloakonnx.evaluation.verification.attestation import attest
from cloakonnx.evaluation.verification.verify import verify
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from tests.evaluation.helpers import MASK, analysis, checked, failures, flip, harden, statuses, weight, write
from tests.fixtures.models import FEATURES, FIXTURES, TAP, mlp, write_external
from tests.support.classifiers import cpu


def _node(made: ModelProto, name: str) -> object:
    return next(each for each in made.graph.node if each.name == name)


def _entry(made: ModelProto, key: str) -> object:
    return next(each for each in made.metadata_props if each.key == f"cloakonnx.{key}")


def _swap(made: ModelProto, first: int, second: int) -> None:
    nodes = list(made.graph.node)
    nodes[first], nodes[second] = nodes[second], nodes[first]
    del made.graph.node[:]
    made.graph.node.extend(nodes)


def _set(message: object, **values: object) -> None:
    for name, value in values.items():
        setattr(message, name, value)


def _masks(made: ModelProto, **values: object) -> None:
    entry = _entry(made, "masks")
    (fields,) = json.loads(entry.value)  # type: ignore[attr-defined]
    _set(entry, value=json.dumps([fields | values], sort_keys=True, separators=(",", ":")))


def _rename_weight(made: ModelProto) -> None:
    weight(made, "w1").name = "w"
    _node(made, "first").input[1] = "w"  # type: ignore[attr-defined]


def _bypass(made: ModelProto) -> None:
    _node(made, "second").input[0] = "features_unmasked"  # type: ignore[attr-defined]


def _replace_mul(made: ModelProto) -> None:
    _set(_node(made, "features_cloak"), op_type="Add")


def _mask_as_output_of_a_node(made: ModelProto) -> None:
    value = weight(made, "features_mask")
    made.graph.node.insert(0, helper.make_node("Constant", [], ["features_mask"], name="c", value=value))
    made.graph.initializer.remove(value)


def _integer_mask(made: ModelProto) -> None:
    weight(made, "features_mask").data_type = TensorProto.INT32


def _mask_of_another_size(made: ModelProto) -> None:
    weight(made, "features_mask").dims[:] = [7]


def _scalar_mask(made: ModelProto) -> None:
    scalar = numpy_helper.from_array(np.float32(1), "features_mask")
    weight(made, "features_mask").CopyFrom(scalar)
    _masks(made, sha256=hashlib.sha256(scalar.raw_data).hexdigest())


def _swap_initializers(made: ModelProto) -> None:
    weights = list(made.graph.initializer)
    del made.graph.initializer[:]
    made.graph.initializer.extend([weights[1], weights[0], *weights[2:]])


def _strip_metadata(made: ModelProto) -> None:
    del made.metadata_props[:]


def _second_mask_of_the_name(made: ModelProto) -> None:
    made.graph.initializer.insert(0, weight(made, "features_mask"))


# Each: how to tamper, the check that fails even without the source, the one that fails with it, what is said then.
TAMPERING: dict[str, tuple[Callable[[ModelProto], object], str | None, str, str]] = {
    "weight bit": (lambda m: flip(weight(m, "w1")), "metadata", "structure", "initializer 'w1' changed (raw_data)"),
    "weight's type": (
        lambda m: _set(weight(m, "b1"), data_type=6),
        "metadata",
        "structure",
        "initializer 'b1' changed",
    ),
    "renamed weight": (_rename_weight, "metadata", "structure", "initializer 'w' added"),
    "extra weight": (
        lambda m: m.graph.initializer.add(name="w9", data_type=1, dims=[0]),
        "metadata",
        "structure",
        "initializer 'w9' added",
    ),
    "mask value": (
        lambda m: flip(weight(m, "features_mask")),
        "mask values",
        "mask values",
        "the mask of 'features'",
    ),
    "mask's type": (_integer_mask, "masks in place", "masks in place", "initializer 'features_mask' changed"),
    "scalar mask": (_scalar_mask, "masks in place", "masks in place", "1 weights"),
    "mask's doc": (
        lambda m: _set(weight(m, "features_mask"), doc_string="x"),
        "masks in place",
        "masks in place",
        "initializer 'features_mask' changed (doc_string)",
    ),
    "mask twice": (
        _second_mask_of_the_name,
        "masks in place",
        "masks in place",
        "initializer 'features_mask' added",
    ),
    "mask from a node": (_mask_as_output_of_a_node, "masks in place", "masks in place", "Constant node 'c'"),
    "node order": (lambda m: _swap(m, 0, 1), "metadata", "structure", "moved"),
    "Mul moved": (lambda m: _swap(m, 2, 3), "masks in place", "masks in place", "moved"),
    "extra node": (
        lambda m: m.graph.node.add(op_type="Neg", input=["logits"], output=["n"], name="spy"),
        "metadata",
        "structure",
        "Neg node 'spy' added",
    ),
    "removed node": (lambda m: m.graph.node.remove(_node(m, "first")), "metadata", "structure", "'first' removed"),
    "Mul removed": (
        lambda m: m.graph.node.remove(_node(m, "features_cloak")),
        "masks in place",
        "structure",
        "initializer 'features_mask' added",
    ),
    "Mul is an Add": (_replace_mul, "masks in place", "structure", "Add node 'features_cloak' added"),
    "Mul in a domain": (
        lambda m: _set(_node(m, "features_cloak"), domain="evil"),
        "masks in place",
        "masks in place",
        "Mul node 'features_cloak' changed (domain)",
    ),
    "mask bypassed": (_bypass, "metadata", "structure", "Gemm node 'second' changed (input)"),
    "model's doc": (
        lambda m: _set(m, doc_string="x"),
        "metadata",
        "structure",
        "model.doc_string added",
    ),
    "node's doc": (
        lambda m: _set(_node(m, "relu"), doc_string="x"),
        "metadata",
        "structure",
        "Relu node 'relu' changed (doc_string)",
    ),
    "initializers moved": (_swap_initializers, "metadata", "structure", "initializers moved (their order)"),
    "changed attribute": (
        lambda m: _node(m, "second").attribute.add(name="alpha", type=1, f=0.5),  # type: ignore[attr-defined]
        "metadata",
        "structure",
        "Gemm node 'second' changed (attribute)",
    ),
    "operator": (lambda m: _set(_node(m, "relu"), op_type="Elu"), "metadata", "structure", "Elu node 'relu' added"),
    "opset": (lambda m: _set(m.opset_import[0], version=16), "metadata", "structure", "model.opset_import changed"),
    "IR version": (lambda m: _set(m, ir_version=9), "metadata", "structure", "model.ir_version changed"),
    "output added": (lambda m: m.graph.output.add(name=TAP), "metadata", "structure", "graph.output changed"),
    "input's shape": (
        lambda m: m.graph.input[0].type.tensor_type.shape.dim.add(),
        "metadata",
        "structure",
        "graph.input changed",
    ),
    "function added": (lambda m: m.functions.add(name="F"), "metadata", "structure", "model.functions added"),
    "user's metadata": (
        lambda m: m.metadata_props.add(key="author", value="x"),
        "metadata",
        "structure",
        "metadata 'author' added",
    ),
    "metadata removed": (
        lambda m: m.metadata_props.remove(_entry(m, "stripped_sha256")),
        "metadata",
        "metadata",
        "cloakonnx.stripped_sha256",
    ),
    "source removed": (
        lambda m: m.metadata_props.remove(_entry(m, "source_sha256")),
        "metadata",
        "source",
        "none... is recorded",
    ),
    "source edited": (lambda m: _set(_entry(m, "source_sha256"), value="0" * 64), None, "source", "has sha256"),
    "stripped edited": (
        lambda m: _set(_entry(m, "stripped_sha256"), value="0" * 64),
        "metadata",
        "metadata",
        "another sha256 than the metadata records",
    ),
    "entry of ours added": (
        lambda m: m.metadata_props.add(key="cloakonnx.note", value="x"),
        "masks in place",
        "masks in place",
        "metadata 'cloakonnx.note' added",
    ),
    "entry twice": (
        lambda m: m.metadata_props.add(key="cloakonnx.version", value="0"),
        "masks in place",
        "masks in place",
        "metadata",
    ),
    "recorded hash": (lambda m: _masks(m, sha256="0" * 64), "mask values", "mask values", "is not the one"),
    "recorded axis": (lambda m: _masks(m, feature_axis=0), "masks in place", "masks in place", "axis 0 does not fit"),
    "recorded tap": (lambda m: _masks(m, tap="logits"), "masks in place", "structure", "without masks: Relu node"),
    "recorded node": (lambda m: _masks(m, node="x"), "masks in place", "structure", "without masks: Relu node"),
    "unknown field": (lambda m: m.MergeFromString(b"\x92\x89\x02\x04evil"), "metadata", "structure", "fields unknown"),
    "unknown field of the Mul": (
        lambda m: _node(m, "features_cloak").MergeFromString(b"\x92\x89\x02\x04evil"),  # type: ignore[attr-defined]
        "masks in place",
        "masks in place",
        "Mul node 'features_cloak' changed (unknown fields)",
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering(how: str, tmp_path: Path) -> None:
    tamper, alone, with_source, said = TAMPERING[how]
    source = write(tmp_path / "source.onnx", mlp())
    honest = harden(source)
    made = ModelProto.FromString(honest.read_bytes())
    tamper(made)
    assert made.SerializeToString() != honest.read_bytes()
    model = write(tmp_path / "tampered.onnx", made)
    found = failures(checked(model, source))
    assert with_source in found
    assert said in found[with_source]
    assert all("\n" not in detail for detail in found.values())
    found = failures(checked(model))
    assert (alone is None) == (not found)
    assert alone is None or alone in found
    found = failures(checked(model, attestation=attest(load(honest), load(source), settings={})))
    assert found["attested file"].startswith("not the attested file: ")
    assert "encoded" not in found["attested file"], "the difference is named"
    assert all("\n" not in detail for detail in found.values())


def test_a_mask_of_another_size_is_no_model(tmp_path: Path) -> None:
    made = ModelProto.FromString(harden(write(tmp_path / "source.onnx", mlp())).read_bytes())
    _mask_of_another_size(made)
    with pytest.raises(ModelError, match="should have 28 bytes and has 24"):
        load(write(tmp_path / "tampered.onnx", made))


@pytest.mark.parametrize("how", ["stripped", "damaged"])
def test_metadata_stripped_or_damaged(how: str, tmp_path: Path) -> None:
    source = write(tmp_path / "source.onnx", mlp())
    honest = harden(source)
    made = ModelProto.FromString(honest.read_bytes())
    if how == "stripped":
        _strip_metadata(made)
    else:
        _set(_entry(made, "masks"), value="[")
    model = write(tmp_path / "tampered.onnx", made)
    found = failures(checked(model, source))
    assert ("carries no cloakonnx masks" if how == "stripped" else "is damaged") in found["metadata"]
    assert "Relu node 'relu' changed (output 'features' is now 'features_unmasked')" in found["structure"]
    found = failures(checked(model, attestation=attest(load(honest), load(source), settings={})))
    wanted = "metadata 'cloakonnx.masks' " + ("removed" if how == "stripped" else "changed")
    assert wanted in found["attested file"]
    with pytest.raises(ModelError):
        checked(model)


def test_external_data(tmp_path: Path) -> None:
    """In one folder both models refer to the changed file: only a record of its digest tells."""
    source = write_external(tmp_path)
    bare, recorded = tmp_path / "bare.onnx", tmp_path / "recorded.onnx"
    harden_file(load(source), [Mask(TAP, MASK)], bare, hash_external=False)
    harden_file(load(source), [Mask(TAP, MASK)], recorded)
    attested = {path: attest(load(path), load(source), settings={}) for path in (bare, recorded)}
    assert all(checked(path, source, attestation=attested[path]).passed for path in attested)
    assert statuses(checked(recorded))["external data"] == "passed"
    data = bytearray((tmp_path / "external.data").read_bytes())
    data[7] ^= 4
    (tmp_path / "external.data").write_bytes(data)
    assert statuses(checked(bare, source))["external data"] == "not checked"
    for found in (failures(checked(recorded, source)), failures(checked(recorded))):
        assert found["external data"] == "'external.data' is not as the metadata records it"
    for path, attestation in attested.items():
        found = failures(checked(path, attestation=attestation))
        assert found["attested data"] == "external data 'external.data' is not the attested one"


def test_record_of_external_data(tmp_path: Path) -> None:
    source = write_external(tmp_path)
    model = tmp_path / "recorded.onnx"
    harden_file(load(source), [Mask(TAP, MASK)], model, hash_external=True)
    for value, said in (
        ('{"weights/w2.bin":{"sha256":"' + "0" * 64 + '","size":3}}', "'external.data' is recorded or referred to"),
        ("{}", "is recorded or referred to, not both"),
        ('{"../a":{"sha256":"' + "0" * 64 + '","size":3}}', "'../a' is recorded or referred to"),
        ("[]", "is damaged"),
        ('{"a":{"sha256":"x","size":3}}', "is damaged"),
        ('{"a":{"sha256":3}}', "is damaged"),
    ):
        made = ModelProto.FromString(model.read_bytes())
        _set(_entry(made, "external_sha256"), value=value)
        found = failures(checked(write(tmp_path / "tampered.onnx", made), source))
        assert said in found["external data"]


def test_tampering_of_a_model_below_ir_4(tmp_path: Path) -> None:
    fixture = next(each for each in FIXTURES if each.name == "ir3_initializers_are_inputs")
    source = write(tmp_path / "source.onnx", fixture.model)
    honest = harden(source)
    made = ModelProto.FromString(honest.read_bytes())
    constant = _node(made, "features_cloak_constant")
    flip(constant.attribute[0].t)  # type: ignore[attr-defined]
    assert set(failures(checked(write(tmp_path / "a.onnx", made)))) == {"mask values"}
    made = ModelProto.FromString(honest.read_bytes())
    _set(_node(made, "features_cloak_constant"), doc_string="x")
    assert "changed (doc_string)" in failures(checked(write(tmp_path / "b.onnx", made)))["masks in place"]


def test_every_byte_of_a_hardened_model_counts(tmp_path: Path) -> None:
    """Flip a bit of every byte: it is no model any more, or a check fails, or nothing but the encoding changed."""
    source = write(tmp_path / "source.onnx", mlp())
    honest = harden(source)
    data = honest.read_bytes()
    path = tmp_path / "flipped.onnx"
    reference = load(source)
    attestation = attest(load(honest), reference, settings={})
    rng = np.random.default_rng(0)
    for number, at in enumerate(rng.choice(len(data), 150, replace=False)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            result = verify(cpu(load(path)), source=reference)
        except ModelError:
            continue
        if number < 20:
            assert "attested file" in failures(checked(path, attestation=attestation))
        if result.passed:
            # Which version wrote the file is not for the source to say.
            assert _without_version(ModelProto.FromString(bytes(flipped))) == _without_version(
                ModelProto.FromString(data)
            )


def _without_version(made: ModelProto) -> bytes:
    _set(_entry(made, "version"), value="")
    return made.SerializeToString()


def test_another_mask_with_its_own_hash_is_another_mask(tmp_path: Path) -> None:
    """The source can't know which mask was meant: what the checks say of it tells the two apart."""
    source = write(tmp_path / "source.onnx", mlp())
    made = ModelProto.FromString(harden(source).read_bytes())
    mask = weight(made, "features_mask")
    mask.raw_data = np.zeros(FEATURES, np.float32).tobytes()
    _masks(made, sha256=hashlib.sha256(mask.raw_data).hexdigest())
    model = write(tmp_path / "other.onnx", made)
    said = [
        next(check.detail for check in checked(each, source).checks if check.name == "mask values")
        for each in (tmp_path / "hardened.onnx", model)
    ]
    assert "removes 2 of 6" in said[0]
    assert "removes 6 of 6" in said[1]
    assert checked(model, source).passed
    attested = attest(load(tmp_path / "hardened.onnx"), load(source), settings={})
    found = failures(checked(model, attestation=attested))
    assert "initializer 'features_mask' changed" in found["attested file"]
    assert "the mask of 'features' (removes 6," in found["attested masks"]
    learned = analysis(source, masks=(Mask(TAP, MASK),))
    assert "analysis" in failures(checked(model, source, analysis=learned))
    assert checked(tmp_path / "hardened.onnx", source, analysis=learned).passed


def test_many_differences_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "source.onnx", mlp())
    made = ModelProto.FromString(harden(source).read_bytes())
    for index in range(9):
        made.metadata_props.add(key=f"k{index}", value="v")
    detail = failures(checked(write(tmp_path / "t.onnx", made), source))["structure"]
    assert detail.endswith("and 4 more")
