"""How a model is run, on the command line: preprocessing, input and output, provider, batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import click
from click.core import ParameterSource

from cloakonnx.cli._completion import engines, providers
from cloakonnx.cli._output import say, warn
from cloakonnx.cli._scores import say_scores
from cloakonnx.cli._shards import engine_of_shards, merges
from cloakonnx.cli._types import ChannelNumbers, EnginePlace, Number, Numbers
from cloakonnx.cli._verb import Group, option

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.cli._data import Data
    from cloakonnx.data.samples import Dataset
    from cloakonnx.engine.batches import Engine
    from cloakonnx.graph.file.model import Model
    from cloakonnx.preprocessing import Layout, Preprocessing
    from cloakonnx.runtime.provider import Provider

_LAYOUTS = ("nchw", "nhwc", "nchw:nchw", "nchw:nhwc", "nhwc:nchw", "nhwc:nhwc")
"""As :data:`cloakonnx.preprocessing.LAYOUTS`, which the command line does not load for its help."""


@dataclass(frozen=True, kw_only=True)
class Runs(Group):
    """How a model is run."""

    runs: ClassVar[bool] = True
    feeds: ClassVar[bool] = True
    """Whether the verb can't do without running the model."""

    scale: float = option(
        "--scale",
        type=Number(),
        default=1.0,
        show_default=True,
        help="Preprocessing: the model's input is (x * scale - mean) / std.",
    )
    mean: tuple[float, ...] = option(
        "--mean",
        type=ChannelNumbers("mean"),
        default=(),
        help="Mean to subtract: one number, one per channel, or a data set: imagenet, cifar10, mnist.  [none]",
    )
    std: tuple[float, ...] = option(
        "--std",
        type=ChannelNumbers("std"),
        default=(),
        help="Standard deviation to divide by, given as for --mean.  [none]",
    )
    layout: Layout | None = option(
        "--layout",
        type=click.Choice(_LAYOUTS),
        metavar="LAYOUT",
        help="Layout of the samples, nchw or nhwc, if both fit; for flat inputs also the order of values: nhwc:nchw.",
    )
    bounds: tuple[float, float] = option(
        "--bounds",
        type=Numbers(2, example="0,1"),
        default=(0.0, 1.0),
        help="Smallest and largest pixel value of the samples.  [0,1]",
    )
    batch_size: int = option(
        "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Batch size."
    )
    input_name: str | None = option(
        "--input", metavar="NAME", help="Input that takes the samples, if the model has several."
    )
    output_name: str | None = option(
        "--output-name", metavar="NAME", help="Output with the class scores, if the model has several."
    )
    task: Any = option(
        "--task",
        metavar="TASK",
        help="Kind of class scores in the output, if it is not recognised: classes, or binary.",
    )
    batch_axis: int | None = option(
        "--batch-axis", type=click.IntRange(min=0), help="Batch axis of the input, if its shape does not show it."
    )
    provider: str | None = option(
        "--provider",
        shell_complete=providers,
        help="ONNX Runtime execution provider: cpu, cuda, tensorrt, ...  [the best that loads]",
    )
    device_id: int = option(
        "--device-id", type=click.IntRange(min=0), default=0, show_default=True, help="Index of the device."
    )
    workers: int | None = option(
        "--workers",
        type=click.IntRange(min=1),
        envvar="CLOAKONNX_WORKERS",
        show_envvar=True,
        help="Batches processed in parallel, each on one thread.  [2 or 1, see docs/commands.md]",
    )
    engine: str = option(
        "--engine",
        type=EnginePlace(),
        shell_complete=engines,
        metavar="local|ray|auto|ADDRESS",
        default="local",
        envvar="CLOAKONNX_ENGINE",
        show_envvar=True,
        show_default=True,
        help="Where batches are processed: local, in this process; ray, in processes on this machine; auto, on the "
        "Ray cluster this machine belongs to; or its address, ray://HOST:10001 or HOST:6379.",
    )
    gpus_per_worker: float | None = option(
        "--gpus-per-worker",
        type=Number(),
        envvar="CLOAKONNX_GPUS_PER_WORKER",
        show_envvar=True,
        help="GPUs of each worker on Ray; 0.5 puts two workers on each.  [0]",
    )
    cpus_per_worker: int | None = option(
        "--cpus-per-worker",
        type=click.IntRange(min=1),
        envvar="CLOAKONNX_CPUS_PER_WORKER",
        show_envvar=True,
        help="Threads of each worker's sessions, and its CPUs on Ray.  [1]",
    )

    @property
    def preprocessing(self) -> Preprocessing:
        """What the options say of preprocessing."""
        from cloakonnx.preprocessing import Preprocessing

        return Preprocessing(scale=self.scale, mean=self.mean, std=self.std, layout=self.layout, bounds=self.bounds)

    def as_analysed(self, analysed: Preprocessing) -> Self:
        """Return the options with an analysis's preprocessing.

        Raises:
            UsageError: an option that says otherwise.
        """
        given, source = self.preprocessing, click.get_current_context().get_parameter_source
        wanted = {name: getattr(analysed, name) for name in ("scale", "mean", "std", "layout", "bounds")}
        for name, value in wanted.items():
            found = getattr(given, name)
            if found != value and source(name) is not ParameterSource.DEFAULT:
                raise click.UsageError(
                    f"--{name} {_written(found)} contradicts the analysis, which was made with {_written(value)}; "
                    "leave it out"
                )
        return replace(self, **wanted)

    def classifier(self, model: Model, data: Data) -> Classifier:
        """Return a model with its input, output and preprocessing; :meth:`ready` gives it a provider.

        Args:
            model: The model.
            data: The samples, which may have bounds of their own.
        """
        from cloakonnx.classifier.classifier import Classifier
        from cloakonnx.classifier.declared import check_fed

        if self.feeds:
            check_fed(model, self.input_name, self.output_name)
        say_scores(model, self.output_name)
        return Classifier(
            model,
            preprocessing=data.bounded(self.preprocessing),
            input_name=self.input_name,
            output_name=self.output_name,
            task=self.task,
            batch_axis=self.batch_axis,
        )

    def ready(self, classifier: Classifier) -> Classifier:
        """Return a classifier on the provider."""
        return classifier.on(self.chosen())

    def chosen(self) -> Provider:
        """Return the provider; warn where the installation is broken."""
        from cloakonnx.runtime.provider import choose_provider, installation_warning

        warning = installation_warning()
        if warning is not None:
            warn(warning)
        return choose_provider(self.provider, device_id=self.device_id)

    def asked_engine(self) -> Engine | None:
        """Return the engine that the options name, connected; None where they name none.

        Raises:
            OptionError: options that do not go together, or a cluster that does not answer.
            MissingDependencyError: Ray is not installed.
        """
        return self._engine

    @cached_property
    def _engine(self) -> Engine | None:
        from cloakonnx.engine.batches import Connected
        from cloakonnx.engine.choice import engine_of

        found = engine_of(
            self.workers,
            where=self.engine,
            gpus_per_worker=self.gpus_per_worker,
            cpus_per_worker=self.cpus_per_worker,
        )
        if isinstance(found, Connected) and not merges():
            found.connect()
        return found

    def engine_for(self, classifier: Classifier, dataset: Dataset) -> Engine:
        """Return what handles batches, and say so where several are handled at a time."""
        from cloakonnx.engine.choice import default_engine

        found = self.asked_engine() or default_engine(classifier.provider, dataset, self.batch_size)
        if found.workers > 1 and not merges():
            say(str(found))
        return engine_of_shards(found)


def warn_of_randomness(classifier: Classifier) -> None:
    """Warn where the scores differ from run to run."""
    from cloakonnx.classifier.doubts import of_randomness
    from cloakonnx.graph.index.randomness import random_ops

    for said in of_randomness(random_ops(classifier.model.proto, classifier.output_name)):
        warn(said)


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
