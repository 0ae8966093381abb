"""The gradient graph of a model as plain ONNX, for any runtime."""

from __future__ import annotations

from collections.abc import Sequence

from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.gradient.differentiate import INPUT, GradientGraph
from cloakonnx.gradient.differentiate import differentiate as differentiated
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.subgraphs.inline import held
from cloakonnx.graph.subgraphs.prepend import put_batch_first


def differentiate(
    model: ModelLike,
    *,
    loss: Loss | str = Loss.CE,
    wrt: str | Sequence[str] = INPUT,
    targeted: bool = False,
    straight_through: bool = False,
) -> GradientGraph:
    """Return forward, loss and backward of a classifier as one ONNX model of standard ops, which any runtime runs.

    Args:
        model: A path, a model, or a classifier, whose preprocessing, input and output hold.
        loss: What is differentiated: ``ce`` (cross-entropy), ``log-odds``, ``margin``, ``dlr``, ``difference``,
            ``soft-ce`` or ``cotangent`` (a vector-Jacobian product).
        wrt: The tensors to differentiate by: ``input``, names of tensors, or several.
        targeted: Whether the loss pulls towards target classes.
        straight_through: Whether gradients pass rounding and quantisation as identity (BPDA, arXiv 1802.00420).

    Returns:
        The graph: ``proto`` is the model, ``image``, ``labels`` and so on name its inputs, ``logits``, ``loss`` and
        ``gradients`` its outputs. Weights of over 1 GiB stay references into the model's files: save it beside them.

    Raises:
        DifferentiationError: no floating-point input, an op without a gradient on the way, or no way at all.
        TapError: a tensor that does not exist.
        ModelError: the model can't be read, or input and output are ambiguous.

    Examples:
        >>> import cloakonnx as ck
        >>> graph = ck.differentiate("samples/digits_cnn.onnx", loss="margin", wrt=["/6/Relu_output_0"])
        >>> list(graph.gradients), graph.proto.ir_version
        (['/6/Relu_output_0'], 10)
    """
    classifier = classifier_of(model).shipped()
    proto, _ = held(classifier.model)
    return differentiated(
        proto,
        loss=loss,
        wrt=wrt,
        targeted=targeted,
        straight_through=straight_through,
        probabilities=classifier.probabilities,
        preprocessing=classifier.preprocessing,
        input_name=put_batch_first(proto.graph, classifier.input_name, classifier.batch_axis),
        output_name=classifier.output_name,
    )
