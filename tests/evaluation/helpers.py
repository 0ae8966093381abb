"""What the tests of verify share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from cloakonnx.evaluation.verification.attestation import Attestation
from cloakonnx.evaluation.verification.verify import Verification, verify
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import Provider
from cloakonnx.scoring.analysis import Analysis, SampleSet
from tests.fixtures.models import TAP
from tests.support.classifiers import cpu

CPU = Provider("CPUExecutionProvider")
MASK = np.array([0, 1, 0.5, 2, 0, 1], np.float32)


def write(path: Path, made: ModelProto) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def harden(path: Path, *masks: Mask, output: str = "hardened.onnx") -> Path:
    target = path.with_name(output)
    harden_file(load(path), masks or [Mask(TAP, MASK)], target)
    return target


def checked(
    model: Path,
    source: Path | None = None,
    *,
    attestation: Attestation | None = None,
    analysis: Analysis | None = None,
) -> Verification:
    reference = None if source is None else load(source)
    return verify(cpu(load(model)), source=reference, attestation=attestation, analysis=analysis)


def statuses(result: Verification) -> dict[str, str]:
    return {check.name: check.status for check in result.checks}


def failures(result: Verification) -> dict[str, str]:
    return {check.name: check.detail for check in result.checks if check.status == "failed"}


def weight(made: ModelProto, name: str) -> TensorProto:
    return next(each for each in made.graph.initializer if each.name == name)


def flip(tensor: TensorProto, at: int = 2) -> None:
    raw = bytearray(tensor.raw_data)
    raw[at] ^= 1
    tensor.raw_data = bytes(raw)


def analysis(source: Path, **found: Any) -> Analysis:
    """An analysis of a model, with scores or masks."""
    return Analysis(
        model_name=source.name,
        model_sha256=load(source).sha256,
        preprocessing=Preprocessing(),
        samples=SampleSet("clean", None, 1, 0.1, ("0" * 16,)),
        provider=CPU.name,
        **found,
    )
