"""The classifier: a model with its input, output, preprocessing, provider, task and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier._fed import FedModel
from cloakonnx.classifier._places import placed
from cloakonnx.classifier.activations import Activations
from cloakonnx.classifier.answer import Answer
from cloakonnx.classifier.declared import batch_axis, class_count, counterpart, input_shape, names_of_classes
from cloakonnx.classifier.sessions import Asked, Sample, Sessions
from cloakonnx.classifier.task import SingleLabel, checked_task, class_scores
from cloakonnx.errors import MaskError
from cloakonnx.gradient.differentiate import GradientGraph
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.state import restored, state_of
from cloakonnx.graph.masks.given import MasksLike, masks_of
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.notebook import Model, load
from cloakonnx.preprocessing import Preprocessing, channel_axis
from cloakonnx.runtime.provider import Provider, choose_provider
from cloakonnx.runtime.session import Value, to_numpy, value_shape


class Classifier:
    """A classifier: one data input, one output of class scores (N, classes) or (N, 1).

    Graphs and sessions are made when first asked for and kept. :meth:`scores` and :meth:`predict` run the model as its
    user does; :meth:`logits`, :meth:`gradient` and :meth:`vjp` run graphs that are derived from it. Batches are
    (N, ...) float32 in pixel space and in the model's layout.

    Args:
        model: The model, or the path of its file.
        preprocessing: From pixel space to the model's input; None where the model takes pixels.
        provider: Where it runs; the best one that loads where None.
        input_name: The data input; needed where there are several.
        output_name: The class scores; needed where there are several outputs.
        masks: Multiplied in at their taps.
        at_a_time: How many samples go into a run of the model; None for as many as there are. See :func:`settled`.
        probabilities: Whether the scores are probabilities (True) or logits (False), where the model does not show it.
        task: ``classes`` or ``binary`` where the output is to be taken for class scores whatever it looks like.
        batch_axis: Axis of the data input that counts samples; by its declared shape where None.

    Raises:
        ModelError: the model can't be read. Input and output are looked up when first needed.
        TapError, MaskError: a mask that does not fit.

    Examples:
        >>> import numpy as np
        >>> clf = Classifier("samples/digits_cnn.onnx", provider=choose_provider("cpu"))
        >>> x = np.zeros((2, 1, 8, 8), np.float32)
        >>> clf.predict(x).shape, clf.gradient(x, np.array([0, 1]), loss="margin").shape
        ((2,), (2, 1, 8, 8))
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        preprocessing: Preprocessing | None = None,
        provider: Provider | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
        masks: MasksLike = (),
        at_a_time: int | None = None,
        probabilities: bool | None = None,
        task: str | None = None,
        batch_axis: int | None = None,
    ) -> None:
        self.model = model if isinstance(model, Model) else load(model)
        self.preprocessing = preprocessing or Preprocessing()
        self.asked_names = input_name, output_name
        self.at_a_time, self.asked_axis = at_a_time, batch_axis
        self.probabilities, self.asked_task = probabilities, checked_task(task)
        self._provider = provider
        self._workers, self._placed = dict[int, Self](), dict[int, Classifier]()
        self._put_in(masks)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What is multiplied in."""
        return self._masks

    @property
    def record(self) -> dict[str, Any]:
        """Where it runs, for records: the provider, and how many samples at a time where that is fixed."""
        placed = {"at_a_time": self.at_a_time, "batch_axis": self.batch_axis or None}
        return {**self.provider.record, **{key: value for key, value in placed.items() if value is not None}}

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value of pixel space."""
        return self.preprocessing.bounds

    @property
    def provider(self) -> Provider:
        """Where it runs.

        Raises:
            ProviderError: no provider was given, and none loads.
        """
        if self._provider is None:
            self._provider = choose_provider()
        return self._provider

    @property
    def rounds_in_use(self) -> bool:
        """Whether predictions have to be the model's own: derived graphs of a float16 model round at other places."""
        elem_type = self.model.input(self.input_name).type.tensor_type.elem_type
        return bool(elem_type == onnx.TensorProto.FLOAT16)

    @property
    def decides_by_itself(self) -> bool:
        """Whether predictions have to be the model's own: it rounds, or its logits were made from before its scores."""
        return self.rounds_in_use or self.graph(Asked()).logs in {"exact", "single"}

    @cached_property
    def input_name(self) -> str:
        """The data input; raises ModelError where it is ambiguous."""
        return self.model.input(self.asked_names[0]).name

    @cached_property
    def output_name(self) -> str:
        """The output with the class scores; raises ModelError where it is ambiguous."""
        return self.model.output(self.asked_names[1]).name

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the data input without the batch axis; None for free dimensions, or as a whole."""
        return input_shape(self.model, self.asked_names[0], self.batch_axis)

    @cached_property
    def batch_axis(self) -> int:
        """Axis of the data input that counts samples; in batches here it is the first."""
        return (batch_axis(self.model, *self.asked_names) or 0) if self.asked_axis is None else self.asked_axis

    @property
    def channel_axis(self) -> int:
        """Axis of a batch that counts channels, by the model's input."""
        return channel_axis(self.input_shape)

    @cached_property
    def task(self) -> SingleLabel:
        """What scores and labels mean."""
        return SingleLabel(self.model, self.output_name, probabilities=self.probabilities)

    @property
    def declared_classes(self) -> int | None:
        """How many classes the output has, where the file tells; one score means two classes."""
        return class_count(self.model, self.asked_names[1])

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """What the file calls the classes, in the order of the scores; None where it does not say."""
        return names_of_classes(self.model, self.asked_names[1])

    def scores(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the model's own output, (N, classes) or (N, 1) float32: probabilities where it ends in a Softmax.

        Raises:
            InferenceError: the output is not one row of scores a sample.
        """
        return class_scores(self._own(x)[0], len(x), self.output_name)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the predicted classes, (N,) int64, by :meth:`scores`; -1 where a score is NaN."""
        return self.task.decide(self.scores(x))

    def right(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (N,) whether the model classifies samples as labelled."""
        return self.task.right(self.scores(x), y)

    def activations(self, taps: Sequence[str]) -> Activations:
        """Return what runs the model, without its masks, up to some tensors; raises as :class:`Activations` does."""
        return Activations(self._fed, taps)

    @property
    def classes(self) -> int:
        """How many classes there are, at least 2: one score means two.

        Raises:
            DifferentiationError: no floating-point input, or an output that is no class scores.
        """
        return self.graph(Asked()).classes

    @property
    def blocked(self) -> tuple[str, ...]:
        """The ops of zero gradient (Round, QuantizeLinear, ArgMax, ...) that hide part of the input's, described."""
        return self.graph(Asked()).blocked

    def graph(self, asked: Asked, sample: Sample = None) -> GradientGraph:
        """Return a gradient graph; made now, with its session, where it was not asked for before.

        Args:
            asked: What it computes.
            sample: Shape of a sample, which fixes what the model's input leaves open; the latest one where None.
        """
        return self.sessions.of(asked, sample)[0]

    def prepare(self, sample: Sample = None) -> None:
        """Make the graph of the logits for samples of a shape, so that a model without one is found before long work.

        Raises:
            ModelError: other inputs are needed.
            DataError: mean and std do not fit the channels of the samples.
            DifferentiationError: no floating-point input, or an output that is no class scores.
            InferenceError: ONNX Runtime refuses the graph.
        """
        self.graph(Asked(), sample)

    def logits(self, x: Value) -> NDArray[np.float32]:
        """Return (N, classes) float32 logits: the scores before a final Softmax or Sigmoid."""
        graph = self._for(Asked(), x)
        return self._counted(self._run(Asked(), x, [graph.logits])[0], x)

    def answer(
        self,
        x: Value,
        y: NDArray[np.int64],
        *,
        loss: Loss,
        targets: NDArray[np.int64] | None = None,
        straight_through: bool = False,
    ) -> Answer:
        """Return logits, loss and the loss's gradient by a batch; with targets, of the targeted loss.

        The logits of a model that rounds or quantises are asked for apart: ONNX Runtime computes such a model in
        integers, and beside its gradient in float, where on some processors another class wins.
        """
        asked = Asked(loss, targeted=targets is not None, straight_through=straight_through)
        graph = self._for(asked, x)
        fed = ((graph.labels, y), (graph.targets, targets))
        feed = {name: each for name, each in fed if name is not None and each is not None}
        assert graph.loss is not None  # set whenever a loss is given
        logits, value, gradient = self._run(asked, x, [graph.logits, graph.loss, graph.gradient], feed)
        own = self.logits(x) if self.blocked else self._counted(logits, x)
        return Answer(own, to_numpy(value).astype(np.float32), self.sessions.narrow(gradient))

    def gradient(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.int64],
        *,
        loss: Loss | str = Loss.CE,
        straight_through: bool = False,
    ) -> NDArray[np.float32]:
        """Return the gradient of each sample's loss by its pixels, of x's shape, float32."""
        found = self.answer(x, y, loss=Loss(loss), straight_through=straight_through).gradient
        return to_numpy(found).astype(np.float32)

    def vjp(self, x: Value, cotangent: NDArray[np.float32]) -> Value:
        """Return the gradient of the sum of logits times ``cotangent`` (N, classes) by x; an array where x is one."""
        asked = Asked(Loss.COTANGENT)
        graph = self._for(asked, x)
        assert graph.cotangent is not None  # the loss asks for it
        (gradient,) = self._run(asked, x, [graph.gradient], {graph.cotangent: self.sessions.wide(cotangent)})
        found = self.sessions.narrow(gradient)
        return to_numpy(found) if isinstance(x, np.ndarray) else found

    def with_masks(self, masks: MasksLike) -> Self:
        """Return the classifier with other masks; at the same taps it shares the graphs and sessions.

        Args:
            masks: A mask, several, or an analysis of learned masks.

        Raises:
            TapError, MaskError: a mask that does not fit.
        """
        other = self._without_sessions()
        other._put_in(masks)
        if other.places == self.places:
            other.sessions = self.sessions
        return other

    def for_worker(self, number: int) -> Self:
        """Return the classifier for one of several threads, with sessions of its own; itself for number 0."""
        if number and number not in self._workers:
            self._workers[number] = self._without_sessions()
        return self._workers[number] if number else self

    def __copy__(self) -> Self:
        """Return a classifier with the same graphs and sessions."""
        return self.with_masks(self.masks)

    def _without_sessions(self) -> Self:
        other: Self = object.__new__(type(self))
        kept = {name: value for name, value in self.__dict__.items() if name not in {"_own", "sessions"}}
        other.__dict__.update(kept, _workers={}, _placed={})
        return other

    def shipped(self) -> Classifier:
        """Return the classifier of the file that carries these masks; itself where there are none."""
        return self._like(hardened(self.model, self.masks)) if self.masks else self

    def check_unmasked(self, what: str) -> None:
        """Raise MaskError where there are masks, which a function would leave out."""
        if self.masks:
            raise MaskError(f"{what} takes a classifier without masks of its own; {self.name} has some (with_masks)")

    def on(self, provider: Provider) -> Classifier:
        """Return the classifier on another provider."""
        return self.changed(provider=provider)

    def changed(self, **settings: Any) -> Classifier:
        """Return the classifier with other settings, named as the constructor's arguments."""
        return self._like(self.model, masks=self.masks, **settings)

    def with_threads(self, threads: int | None) -> Classifier:
        """Return the classifier with sessions of a number of threads, made once; itself where None or as it is."""
        if threads is None or threads == self.provider.threads:
            return self
        if threads not in self._placed:
            self._placed[threads] = self.on(self.provider.with_threads(threads))
        return self._placed[threads]

    def beside(self, model: Model) -> Classifier:
        """Return another model with the same preprocessing, on the same provider.

        Its input and output are those of the same name, or its only ones.

        Raises:
            ModelError: it has no such input or output.
        """
        input_name, output_name = self.asked_names
        found = counterpart(model, input_name, "input"), counterpart(model, output_name, "output")
        return self._like(model, input_name=found[0], output_name=found[1])

    def _like(self, model: Model, **changes: Any) -> Classifier:
        return Classifier(model, **{**self._settings, **changes})

    @property
    def _settings(self) -> dict[str, Any]:
        """What it was made with, beside the model and the masks."""
        return {
            "preprocessing": self.preprocessing,
            "provider": self._provider,
            **dict(zip(("input_name", "output_name"), self.asked_names, strict=True)),
            "at_a_time": self.at_a_time,
            "probabilities": self.probabilities,
            "task": self.asked_task,
            "batch_axis": self.asked_axis,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: the file's path and digests, or the bytes of a model in memory; no session."""
        return {"model": state_of(self.model), "settings": self._settings, "masks": self.masks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the model again; raises ModelError where the file has other bytes than it had."""
        made = Classifier(restored(state["model"]), masks=state["masks"], **state["settings"])
        self.__dict__.update(made.__dict__)

    @cached_property
    def _fed(self) -> FedModel:
        return FedModel(self.model, self.input_name, self.preprocessing, self.provider, self.at_a_time, self.batch_axis)

    @cached_property
    def _own(self) -> Activations:
        """The model's class scores, its masks put in as they ship."""
        return Activations(replace(self._fed, model=self.shipped().model), [self.output_name])

    @cached_property
    def sessions(self) -> Sessions:
        """The gradient graphs and their sessions."""
        return Sessions(self._fed, self.output_name, self.places, probabilities=self.probabilities)

    def _put_in(self, masks: MasksLike) -> None:
        self._masks = masks_of(masks)
        self.places, self._weights = placed(self.model, self._masks)

    def _for(self, asked: Asked, x: Value) -> GradientGraph:
        return self.graph(asked, value_shape(x)[1:])

    def _counted(self, logits: Value, x: Value) -> NDArray[np.float32]:
        """Return logits in host memory; raises InferenceError where they are not one row a sample."""
        return class_scores(to_numpy(logits), value_shape(x)[0], self.output_name)

    def _run(
        self, asked: Asked, x: Value, outputs: list[str], feed: dict[str, NDArray[Any]] | None = None
    ) -> list[Value]:
        return self.sessions.run(asked, x, outputs, feed=feed or {}, masks=self._weights)
