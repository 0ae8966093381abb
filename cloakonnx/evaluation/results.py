"""What an evaluation holds: models, masks, samples, and both models' accuracy at each eps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Self

from msgspec import Meta

from cloakonnx.entries import OMITTED, At, Fraction, Positive, Radius, Sha256, Whole
from cloakonnx.graph.file.edit import size
from cloakonnx.graph.file.model import Model
from cloakonnx.statistics import Accuracy, Paired
from cloakonnx.text import Written, parse_number

REPLAYED, CONTROLS = "replayed inputs", "controls"
"""Names of stages that are no attack: inputs made on another model, and the controls."""


@dataclass(frozen=True)
class Stage:
    """One step of the worst case; its numbers are cumulative: it works on what those before have left.

    Attributes:
        name: An attack's name, ``replayed inputs`` or ``controls``.
        settings: Settings of the attack; None for the others.
        attacked: The number of samples that were still classified correctly before it.
        robust: The number that still are after it.
        queries: Forward passes it took, in samples.
        gradients: Gradients it took, in samples.
        converged: The number of robust samples for which more steps of the attack change nothing; left out if 0.
    """

    name: str
    settings: Mapping[str, Any] | None
    attacked: Whole
    robust: Whole
    queries: Whole
    gradients: Whole
    converged: Annotated[Whole, At(omitted=True, described=Positive)] = 0


@dataclass(frozen=True)
class Robustness:
    """One model at one eps.

    Attributes:
        robust: Correct on the clean input and on every input that was made or replayed: the worst case.
        noise: Control: correct on the clean input and on random noise of size eps.
        control: Control: the same under the control attack alone, which the random masks get too.
        stages: How the worst case came about.
    """

    robust: Accuracy
    noise: Accuracy
    control: Accuracy
    stages: Annotated[tuple[Stage, ...], Meta(extra_json_schema={"minItems": 2})]


@dataclass(frozen=True)
class RandomMask:
    """Control: a model with the mask's weights in random places, under the control attack.

    Attributes:
        clean: Correct on the clean input.
        control: Correct under the control attack.
    """

    clean: Accuracy
    control: Accuracy


@dataclass(frozen=True)
class AtEps:
    """Everything at one eps.

    Attributes:
        eps: Radius of the ball, in pixel space.
        static: The model on the clean inputs and on those made on the baseline, which is no evidence of robustness;
            None without a baseline.
        hardened: The model, attacked itself.
        baseline: The baseline, attacked itself in the same way; None without one.
        pairs: Robust samples of the model (first) and of the baseline (second); None without a baseline.
        random_masks: Controls; none where the model carries no masks.
        eps_text: The radius as it was written, such as 2/16; left out where it was written as a number.
    """

    eps: Radius
    static: Accuracy | None
    hardened: Robustness
    baseline: Robustness | None
    pairs: Annotated[Paired | None, At("difference")]
    random_masks: tuple[RandomMask, ...]
    eps_text: Annotated[Fraction | None, OMITTED] = None

    def __post_init__(self) -> None:
        """Keep the text with the radius; raises ValueError where they are not the same number."""
        if self.eps_text is not None:
            written = parse_number(self.eps_text)
            if not math.isclose(written, self.eps, rel_tol=1e-9):
                raise ValueError(f"eps_text is {self.eps_text}, but eps is {self.eps:g}")
            object.__setattr__(self, "eps", Written(self.eps, self.eps_text))

    @property
    def beside(self) -> Beside | None:
        """What compares the model with its baseline; None without one."""
        if self.static is None or self.baseline is None or self.pairs is None:
            return None
        return Beside(self.static, self.baseline, self.pairs)

    def compared(self) -> Beside:
        """Return :attr:`beside`; raises ValueError where the model was evaluated alone."""
        beside = self.beside
        if beside is None:
            raise ValueError(f"at eps {self.eps:g} the model was evaluated without a baseline")
        return beside


class Beside(NamedTuple):
    """A baseline at one eps; see :class:`AtEps`."""

    static: Accuracy
    baseline: Robustness
    pairs: Paired


@dataclass(frozen=True)
class ModelRecord:
    """A model that was evaluated.

    Attributes:
        name: Name of the model's file.
        sha256: sha256 of the file.
        size: Bytes of the file, with those of its external data; None in files of versions that did not record it.
        nodes: The number of nodes of the main graph; None likewise.
    """

    name: str
    sha256: Sha256
    size: Annotated[Positive | None, OMITTED] = None
    nodes: Annotated[Positive | None, OMITTED] = None

    @classmethod
    def of(cls, model: Model, *, sha256: str | None = None) -> Self:
        """Return the record of a model; under another digest where its file is one that would give it."""
        nodes = len(model.proto.graph.node) or None
        pieces = [(0, len(model.buf))] if model.unwritten is None else model.unwritten()
        return cls(model.name, sha256 or model.sha256, size(pieces) + model.external_bytes or None, nodes)


@dataclass(frozen=True)
class MaskRecord:
    """A mask of the hardened model.

    Attributes:
        tap: The masked tensor.
        features: The number of the mask's weights.
        removed: The number of weights that are 0.
    """

    tap: str
    features: Positive
    removed: Whole


@dataclass(frozen=True)
class DataRecord:
    """The samples.

    Attributes:
        name: The source's name.
        count: The number of samples.
        sha256: sha256 of the digests of all pixels (float32, model's layout) and of all labels (int64), in order.
        seen: The number of samples that the masks' analysis has seen; None where no analysis was given.
    """

    name: str
    count: Positive
    sha256: Sha256
    seen: Whole | None = None
