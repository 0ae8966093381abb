"""Builds the gradient graph of a classifier: forward, loss and backward in one model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import onnx
from onnx import TensorProto

from cloakonnx.errors import DifferentiationError, TapError, ZeroGradientError, nearest
from cloakonnx.gradient._backward import backpropagate
from cloakonnx.gradient._canonical import Job, canonical, prune
from cloakonnx.gradient._channels import ChannelMasks
from cloakonnx.gradient._classical import with_ending_spelled_out
from cloakonnx.gradient._forward import insert_mask, insert_weight_masks
from cloakonnx.gradient._log_domain import log_scores
from cloakonnx.gradient._logits import Logits, Reading, logits_of, round_input, rounded
from cloakonnx.gradient._opset import opset_of
from cloakonnx.gradient._path import Path, check_rules, find_path
from cloakonnx.gradient._single import single_scores
from cloakonnx.gradient.losses import Loss, Scores, inputs_of, seed
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.index import FLOATS, Dim, Index
from cloakonnx.graph.index.outputs import score_output
from cloakonnx.graph.index.shapes import infer
from cloakonnx.graph.masks.weights import WeightMask
from cloakonnx.graph.subgraphs.prepend import prepend
from cloakonnx.preprocessing import Preprocessing, channel_axis

INPUT = "input"
"""Stands for the model's input, in pixel space, among the tensors to differentiate by."""


@dataclass(frozen=True)
class GradientGraph:
    """A model that computes logits, losses and gradients.

    All names are of tensors of :attr:`proto`. Floating-point inputs are float32, float64 where the model's input is.

    Attributes:
        proto: The model, opset 18 or later, IR version 10.
        image: Input in pixel space and in the model's own layout; its batch axis is the model's.
        labels: Input, int64 (N,), or None where the loss needs no label.
        targets: Input, int64 (N,), or None for an untargeted loss.
        soft_targets: Input, (N, classes), or None where the loss is another one.
        cotangent: Input, (N, classes), likewise.
        masks: Input (features,) of the mask at each tap; for a mask of single elements of the tap's shape without the
            batch.
        logits: Output (N, classes), before any final Softmax or Sigmoid; rounded as the model's own where those are
            float16. Losses and gradients are of the unrounded ones.
        loss: Output (N,): larger is better for the attacker; None where no loss was asked for.
        gradients: Output with the gradient of each tensor asked for, of that tensor's shape. The sum of the losses is
            differentiated, so each sample has the gradient of its own loss.
        mask_gradients: Output with the gradient of each mask, of its shape, summed over the batch and, where it has one
            weight a feature, over space.
        weight_masks: Initializer of the mask on each weight, all 1: who runs the graph exchanges its values.
        classes: Number of classes, at least 2.
        stripped: Op type of the final activation that was left out, or None.
        logs: How logits were made of probabilities: ``exact`` in the log domain, ``floored`` as the logarithm of the
            output; ``single`` where they are the one number that two scores are made of; None where the model has them.
        blocked: Non-differentiable ops (Round, Sign, ...) that hide part of the gradient, described; without a loss,
            those that would hide part of the input's.
        bridged: Ops of rounding and quantisation that the gradient passes straight through, described.
    """

    proto: onnx.ModelProto
    image: str
    labels: str | None
    targets: str | None
    soft_targets: str | None
    cotangent: str | None
    masks: Mapping[str, str]
    logits: str
    loss: str | None
    gradients: Mapping[str, str]
    mask_gradients: Mapping[str, str]
    weight_masks: Mapping[str, str]
    classes: int
    stripped: str | None
    logs: Literal["exact", "floored", "single"] | None
    blocked: tuple[str, ...]
    bridged: tuple[str, ...]

    @property
    def gradient(self) -> str:
        """Output with the gradient of the model's input."""
        return self.gradients[INPUT]

    @property
    def batch(self) -> str | None:
        """Name of the open batch dimension of :attr:`image`, or None where the model fixes it.

        A session that overrides it (``SessionOptions.add_free_dimension_override_by_name``) is faster on the CPU, where
        ONNX Runtime keeps its blocked layout only between tensors whose shapes it knows to agree.
        """
        value = next(v for v in self.proto.graph.input if v.name == self.image)
        return value.type.tensor_type.shape.dim[0].dim_param or None


@dataclass(frozen=True)
class _Inputs:
    labels: str | None
    targets: str | None
    soft_targets: str | None
    cotangent: str | None


def differentiate(
    model: onnx.ModelProto,
    *,
    loss: Loss | str | None = Loss.CE,
    wrt: str | Sequence[str] = INPUT,
    masks: Mapping[str, int | None] | None = None,
    weight_masks: Mapping[str, WeightMask] | None = None,
    mask_gradients: bool = False,
    targeted: bool = False,
    straight_through: bool = False,
    probabilities: bool | None = None,
    preprocessing: Preprocessing | None = None,
    provider: str = "cpu",
    input_name: str | None = None,
    input_shape: Sequence[int | None] | None = None,
    output_name: str | None = None,
) -> GradientGraph:
    """Build the gradient graph of a classifier.

    Args:
        model: The classifier; not changed. Large weights may be references into files, and stay so: then the graph's
            session needs their folder.
        loss: What to differentiate; None gives the forward graph alone.
        wrt: Tensors to differentiate by: :data:`INPUT`, names of tensors, or both.
        masks: Feature axis of each tap that a mask input is multiplied in at; None for a mask with a weight for every
            element of a sample. Gradients by such a tap are by the masked features.
        weight_masks: Masks to multiply into weights, each by a key of the caller's.
        mask_gradients: Whether to differentiate by the masks too.
        targeted: Whether the loss pulls towards target labels.
        straight_through: Whether the gradient passes Round, Floor, Ceil, Sign, QuantizeLinear and Casts to integers as
            if they were not there, instead of being 0: for attacks on quantised models (BPDA, arXiv 1802.00420).
        probabilities: Whether the output is known to hold probabilities: where the graph does not show how they are
            made, their logarithm stands for the logits.
        preprocessing: Put before the model's input, computed in its precision, float32 at least; mean and std run along
            its channel axis (:func:`~cloakonnx.preprocessing.channel_axis`). None where the model takes pixels.
        provider: ``cpu`` or ``cuda``: what the ops are chosen for. The graph runs on any provider.
        input_name: The input to differentiate by, where the model has several of floating point.
        input_shape: Dimensions to fix at the model's input, None for those that stay open. A fixed height and width
            gives a faster graph.
        output_name: The output that holds the probabilities or logits, or the tensor that it is made of; if None, the
            only one of floating point (maps of ZipMap are read through), else the first one.

    Raises:
        DifferentiationError: No floating-point input, an op without a rule on the way, or no way at all.
        TapError: A tap that does not exist or cannot be masked.
    """
    asked = [wrt] if isinstance(wrt, str) else list(wrt)
    chosen = None if loss is None else Loss(loss)
    taps = dict(masks or {})
    name = _data_input(model, input_name)
    _check_tensors(model, [*taps, *(t for t in asked if t != INPUT)])
    wanted = _output(model, output_name)
    shapes = {} if input_shape is None else {name: input_shape}
    axis = _channel_axis(model, name)
    output = image = ""
    logs: Literal["exact", "single"] | None = None
    mask_inputs: dict[str, str] = {}
    baked: dict[str, str] = {}
    channels: dict[str, ChannelMasks] = {}
    on_weights = dict(weight_masks or {})

    def entered(work: onnx.ModelProto, _: Job) -> onnx.ModelProto:
        """Put preprocessing in front and masks at the taps."""
        nonlocal output, image, logs
        output = wanted
        if with_ending_spelled_out(work, output, opset=opset_of(work)):
            work = infer(work)
        single = single_scores(work.graph, output, opset=opset_of(work), probabilities=probabilities)
        made = single or log_scores(work.graph, output, opset=opset_of(work))
        if made is not None:
            logs, output = "single" if single else "exact", made
        image = _prepended(work.graph, name, preprocessing, axis)
        mask_inputs.update({tap: insert_mask(work.graph, tap, axis) for tap, axis in taps.items()})
        if on_weights:
            names, on_channels = insert_weight_masks(work.graph, on_weights, differentiated=mask_gradients)
            baked.update(names)
            channels.update(on_channels)
        return infer(work)

    keep = [*taps, *(t for t in asked if t != INPUT), *(mask.weight for mask in on_weights.values())]
    work = canonical(model, output=wanted, keep=keep, shapes=shapes, then=[entered])
    declared = Index(onnx.GraphProto(output=model.graph.output)).shape(output)
    reading = Reading(declared, straight_through=straight_through, logs=logs, probabilities=probabilities)
    steps = _Steps(work, provider, image, mask_inputs, output, reading=reading, baked=baked, channels=channels)
    graph = steps.build(chosen, targeted, asked, mask_gradients)
    round_input(graph.proto.graph, name)
    return graph


class _Steps:
    """The steps that share the builder."""

    def __init__(
        self,
        model: onnx.ModelProto,
        provider: str,
        image: str,
        masks: dict[str, str],
        output: str,
        *,
        reading: Reading,
        baked: dict[str, str],
        channels: dict[str, ChannelMasks],
    ) -> None:
        self.baked, self.channels = baked, channels
        self.model = model
        self.index = Index(model.graph)
        self.builder = Builder(
            model.graph, self.index, opset=opset_of(model), provider=provider.lower(), prefix="backward/"
        )
        self.image = image
        self.masks = masks
        self.output = output
        self.reading = reading
        self.straight_through = reading.straight_through

    def build(self, loss: Loss | None, targeted: bool, wrt: Sequence[str], mask_gradients: bool) -> GradientGraph:
        variables: dict[str, str] = {}
        if mask_gradients and loss is not None:  # first: errors about a tap name it
            variables.update({_mask_key(key): name for key, name in (self.masks | self.baked).items()})
        if loss is not None:
            variables.update({t: self.image if t == INPUT else t for t in wrt})
        # An op without a rule often leaves the shapes behind it unknown: say so first.
        check_rules(self._path(self.model.graph.node, self.output, variables.values()), self.builder.opset)
        logits = logits_of(self.builder, self.output, self.reading)
        shape, name = self.index.shape(logits.tensor.name), logits.tensor.name
        forward = list(self.model.graph.node)
        inputs = self._loss_inputs(loss, targeted, logits)
        del self.model.graph.output[:]
        given = rounded(logits.tensor, self.index.elem_type(logits.source))
        named = {"logits": self._give("logits", given, shape)}
        gradients: dict[str, str] = {}
        path = self._path(forward, name, list(variables.values()) or [self.image])
        if loss is not None:
            made = seed(Scores(logits.tensor, logits.classes), loss, **self._labels(inputs))
            named["loss"] = self._give("loss", made.loss, (shape or (None,))[:1])
            start = {name: made.gradient}
            found = backpropagate(self.builder, path, start, list(variables.values()), channels=self.channels)
            masked = {name: tap for tap, name in (self.masks | self.baked).items()}
            for key, variable in variables.items():
                stop = "" if variable in found else self._stop(path, forward, name, variable)
                gradients[key] = self._give_gradient(variable, found, path.blocked, tap=masked.get(variable), stop=stop)
        prune(self.model.graph)
        return GradientGraph(
            proto=self.model,
            image=self.image,
            labels=inputs.labels,
            targets=inputs.targets,
            soft_targets=inputs.soft_targets,
            cotangent=inputs.cotangent,
            masks=self.masks,
            weight_masks=self.baked,
            logits=named["logits"],
            loss=named.get("loss"),
            gradients={t: gradients[t] for t in wrt if t in gradients},
            mask_gradients={
                key: gradients[_mask_key(key)] for key in self.masks | self.baked if _mask_key(key) in gradients
            },
            classes=logits.classes,
            stripped=logits.stripped,
            logs=logits.logs,
            blocked=path.blocked,
            bridged=path.bridged,
        )

    def _path(self, nodes: Sequence[onnx.NodeProto], output: str, variables: Iterable[str]) -> Path:
        return find_path(nodes, self.index, [output], variables, straight_through=self.straight_through)

    def _stop(self, path: Path, nodes: Sequence[onnx.NodeProto], output: str, variable: str) -> str:
        """Return which op a straight-through gradient would not pass either; nothing where one reaches the variable.

        It passes no integer arithmetic (DynamicQuantizeLinear, QLinearConv, MatMulInteger).
        """
        first = next(iter(path.blocked), "")
        if self.straight_through:
            return first
        bridged = find_path(nodes, self.index, [output], [variable], straight_through=True)
        try:
            check_rules(bridged, self.builder.opset)
        except DifferentiationError:
            return first
        passes = bool(bridged.nodes) and variable in bridged.active
        return "" if passes else next(iter(bridged.blocked), first)

    def _loss_inputs(self, loss: Loss | None, targeted: bool, logits: Logits) -> _Inputs:
        batch = (logits.tensor.dims or (None,))[0]
        taken: dict[str, str] = {}
        for each in () if loss is None else inputs_of(loss, targeted=targeted):
            if each in {"soft_targets", "cotangent"}:
                taken[each] = self._take(each, logits.tensor.elem_type, (batch, logits.classes))
            else:
                taken[each] = self._take(each, TensorProto.INT64, (batch,))
        return _Inputs(**{each.name: taken.get(each.name) for each in fields(_Inputs)})

    def _take(self, hint: str, elem_type: int, shape: tuple[Dim, ...]) -> str:
        name = self.builder.fresh(hint)
        self.model.graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, shape))
        self.index.learn(name, elem_type, shape)
        return name

    def _labels(self, inputs: _Inputs) -> dict[str, Tensor | None]:
        return {key: None if name is None else self.builder.tensor(name) for key, name in vars(inputs).items()}

    def _give(self, hint: str, tensor: Tensor, shape: tuple[Dim, ...] | None) -> str:
        output = self.builder.op("Identity", tensor, name=self.builder.fresh(f"cloak/{hint}"))
        self.model.graph.output.append(onnx.helper.make_tensor_value_info(output.name, tensor.elem_type, shape))
        return output.name

    def _give_gradient(
        self, name: str, found: Mapping[str, Tensor], blocked: Sequence[str], *, tap: str | None, stop: str
    ) -> str:
        if name not in found:
            why = f": {blocked[0]} has a zero gradient everywhere" if blocked else ""
            if tap is not None:
                before = ", or learn before the model is rounded or quantised" if why else ""
                raise TapError(
                    f"the output does not depend on tap {tap!r} in a way that can be differentiated{why}, so no mask "
                    f"can be learned there; choose another tap{before}"
                )
            kind = ZeroGradientError if blocked else DifferentiationError
            instead = "black-box attacks need no gradient: --attack square"
            if stop:
                instead = (
                    f"--straight-through does not pass {stop}; {instead}; or attack the float model that it was made "
                    "from"
                )
            elif blocked:
                instead = f"attacks pass rounding and quantisation with --straight-through, and {instead}"
            raise kind(f"the output does not depend on {name!r} in a way that can be differentiated{why}; {instead}")
        return self._give(f"gradient/{name}", found[name], self.index.shape(name))


def _mask_key(tap: str) -> str:
    return f"mask of {tap}"


def _data_input(model: onnx.ModelProto, wanted: str | None) -> str:
    constants = {t.name for t in model.graph.initializer}
    inputs = {v.name: v.type.tensor_type.elem_type for v in model.graph.input if v.name not in constants}
    if wanted is not None and wanted not in inputs:
        raise DifferentiationError(f"the model has no input {wanted!r}{nearest(wanted, inputs)}")
    floats = [n for n, t in inputs.items() if t in FLOATS and wanted in {None, n}]
    if len(floats) == 1:
        return floats[0]
    if not floats:
        name, elem_type = next(((n, t) for n, t in inputs.items() if wanted in {None, n}), ("", 0))
        known = elem_type in TensorProto.DataType.values()
        kind = "missing" if not name else TensorProto.DataType.Name(elem_type).lower() if known else "of no known type"
        raise DifferentiationError(
            f"input {name!r} is {kind}; attacks, black-box ones too, need a floating-point input: export the model "
            "with one"
        )
    raise DifferentiationError(
        f"the model has several floating-point inputs ({', '.join(floats)}): name one with {{input_name}}",
        parameter="input_name",
    )


def _channel_axis(model: onnx.ModelProto, name: str) -> int:
    tensor = next(value for value in model.graph.input if value.name == name).type.tensor_type
    if not tensor.HasField("shape"):
        return channel_axis(None)
    return channel_axis([d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim][1:])


def _prepended(graph: onnx.GraphProto, name: str, preprocessing: Preprocessing | None, axis: int) -> str:
    """Put preprocessing before the input; return the name of the input in pixel space, float64 where the model's is."""
    tensor = next(value for value in graph.input if value.name == name).type.tensor_type
    pixels = TensorProto.DOUBLE if tensor.elem_type == TensorProto.DOUBLE else TensorProto.FLOAT
    steps = () if preprocessing is None else preprocessing.steps(len(tensor.shape.dim), axis)
    return prepend(graph, name, steps, pixels=pixels)


def _output(model: onnx.ModelProto, wanted: str | None) -> str:
    names = [output.name for output in model.graph.output]
    made = {name for node in model.graph.node for name in node.output}
    if wanted is not None and wanted not in {*names, *made}:
        raise DifferentiationError(f"the model has no output {wanted!r}{nearest(wanted, names)}")
    is_told = wanted is not None or len(names) == 1
    return score_output(Index((model if is_told else infer(model)).graph), wanted)


def _check_tensors(model: onnx.ModelProto, names: Sequence[str]) -> None:
    made = {output for node in model.graph.node for output in node.output if output}
    known = made | {value.name for value in model.graph.input}
    for name in names:
        if name not in known:
            raise TapError(f"the model has no tensor {name!r}{nearest(name, known)}")
