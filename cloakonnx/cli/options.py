"""Options that several verbs share, as decorators, and what their values become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

import click
from click.core import ParameterSource

from cloakonnx.cli._output import say
from cloakonnx.cli._scores import say_scores
from cloakonnx.cli._types import ChannelNumbers, Number, Numbers

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset, FittedPairs
    from cloakonnx.data.sources import Source
    from cloakonnx.engine.batches import Engine
    from cloakonnx.graph.file.model import Model
    from cloakonnx.preprocessing import Preprocessing
    from cloakonnx.runtime.provider import Provider

F = TypeVar("F", bound=Callable[..., Any])

_SMALL = 0.1
"""Of a step of 8 bits."""


class _Path(click.Path):
    """A path; an empty text, as a script's unset variable gives it, is not the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; name a file or folder", param, ctx)
        if "\0" in str(value):
            self.fail(f"{str(value)!r} has a null character, which no path has", param, ctx)
        return super().convert(value, param, ctx)


_LAYOUTS = ("nchw", "nhwc", "nchw:nchw", "nchw:nhwc", "nhwc:nchw", "nhwc:nhwc")
"""As :data:`cloakonnx.preprocessing.LAYOUTS`, which the command line does not load for its help."""

PATH = _Path(path_type=Path)


def group(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Make one decorator of several options, shown in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class DataOptions(TypedDict):
    """Values of :func:`data_options`."""

    labels: Path | None
    classes: str | None
    resize: int | None
    crop: int | None
    limit: int | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str | None
    bounds: tuple[float, float]


def model_argument(function: F) -> F:
    """The model file, first."""
    return click.argument("model", type=PATH)(function)


def data_option(*, required: bool) -> Callable[[F], F]:
    """Where the clean samples are."""
    extra = "" if required else " Random inputs with a fixed seed where none are given."
    return group(
        click.option(
            "--data", type=PATH, help=f"Clean samples: .npz with x and y, .npy, or a folder of class folders.{extra}"
        ),
        click.option(
            "--data-script", metavar="FILE.py:FUNCTION", help="Run a script that yields (x, y) batches instead."
        ),
    )


data_options = group(
    click.option("--labels", type=PATH, help="Labels (.npy) for an .npy file of samples."),
    click.option("--classes", metavar="A,B,...", help="Class folders in the order of the outputs.  [by number]"),
    click.option("--resize", type=click.IntRange(min=1), help="Scale images: pixels of the shorter side."),
    click.option("--crop", type=click.IntRange(min=1), help="Cut a square out of the middle of images: its side."),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        help="Take N samples, the classes evenly; the first N of a script and without labels.",
    ),
    click.option(
        "--scale", type=Number(), default=1.0, show_default=True, help="Model input = (x * scale - mean) / std."
    ),
    click.option(
        "--mean", type=ChannelNumbers("mean"), default=(), help="A number, one a channel, or imagenet.  [none]"
    ),
    click.option("--std", type=ChannelNumbers("std"), default=(), help="As --mean.  [none]"),
    click.option(
        "--layout",
        type=click.Choice(_LAYOUTS),
        metavar="LAYOUT",
        help="Layout of the samples, nchw or nhwc, where both would fit; nhwc:nchw gives a flat input the order nchw.",
    ),
    click.option(
        "--bounds",
        type=Numbers(2, example="0,1"),
        default=(0.0, 1.0),
        help="Smallest and largest value of pixel space.  [0,1]",
    ),
)

input_option = click.option("--input", "input_name", metavar="NAME", help="The data input, where there are several.")


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta[f"cloakonnx.{param.name}"] = value


output_name_option = group(
    click.option("--output-name", metavar="NAME", help="The class scores, where there are several outputs."),
    click.option(
        "--task",
        metavar="TASK",
        expose_value=False,
        callback=_keep,
        help="Take the output for class scores whatever it looks like: classes, or binary.",
    ),
    click.option(
        "--batch-axis",
        type=click.IntRange(min=0),
        expose_value=False,
        callback=_keep,
        help="Axis of the input that counts samples, where its shape does not tell.",
    ),
)

norm_option = click.option(
    "--norm", type=click.Choice(["linf", "l2"]), default="linf", show_default=True, help="Norm of the eps ball."
)

seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")

straight_through_option = click.option(
    "--straight-through", is_flag=True, help="Have gradients pass rounding and quantisation as if they were not there."
)

provider_options = group(
    click.option("--provider", help="Execution provider: cpu, cuda, tensorrt, ...  [the best that loads]"),
    click.option("--device-id", type=click.IntRange(min=0), default=0, show_default=True, help="Which device."),
)

batch_option = click.option(
    "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Samples at a time."
)


workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    envvar="CLOAKONNX_WORKERS",
    show_envvar=True,
    help="Batches at a time, each in sessions of one thread.  [2 or 1, see docs/commands.md]",
)


def gate_options(*, required: bool) -> Callable[[F], F]:
    """What the result must show."""
    return group(
        click.option(
            "--require",
            metavar="GATE",
            multiple=True,
            required=required,
            help="Fail unless: clean-drop<=1%, robust-gain>=5%@2/255, robust>=40%@2/255, flags==0, ... (docs/gates.md)",
        ),
        click.option("--allow-inconclusive", is_flag=True, help="Fail only where a gate surely does."),
    )


force_option = click.option("--force", is_flag=True, help="Overwrite the output.")

hash_external_option = click.option(
    "--hash-external/--no-hash-external",
    default=True,
    help="Leave external data unread: what is in it is then not checked.  [read, for its sha256]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")


def preprocessing(options: DataOptions) -> Preprocessing:
    """Return what the options say of preprocessing."""
    from cloakonnx.preprocessing import Preprocessing

    return Preprocessing(
        scale=options["scale"],
        mean=options["mean"],
        std=options["std"],
        layout=cast(Any, options["layout"]),
        bounds=options["bounds"],
    )


def as_analysed(options: DataOptions, analysed: Preprocessing) -> DataOptions:
    """Return the options with an analysis's preprocessing.

    Raises:
        UsageError: an option that says otherwise.
    """
    given, source = preprocessing(options), click.get_current_context().get_parameter_source
    for name in ("scale", "mean", "std", "layout", "bounds"):
        wanted, found = getattr(analysed, name), getattr(given, name)
        if found != wanted and source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name} {_written(found)} contradicts the analysis, which was made with {_written(wanted)}; leave "
                "it out"
            )
        options = cast(DataOptions, {**options, name: wanted})
    return options


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def open_data(path: Path | None, script: str | None, options: DataOptions, *, option: str) -> Source | None:
    """Open the samples that ``--OPTION`` or ``--OPTION-script`` names; None where neither was given."""
    from cloakonnx.data.sources import open_script, open_source

    if path is not None and script is not None:
        raise click.UsageError(f"--{option} and --{option}-script exclude each other")
    if script is not None:
        return open_script(script)
    if path is None:
        return None
    classes = _class_names(options["classes"])
    if option == "data" or path.is_dir():
        labels = None if option != "data" else options["labels"]
        source = open_source(path, labels=labels, classes=classes, resize=options["resize"], crop=options["crop"])
        _tell_of_folder(source)
        if source.has_predicted_labels:
            say(
                f"cloakonnx: warning: the labels of {path.name} are a model's own predictions, not true ones: an "
                "accuracy on them says how often that class is kept"
            )
        return source
    return open_source(path)  # the twins of a folder of images or of an .npy file may well be an .npz


def _class_names(text: str | None) -> tuple[str, ...]:
    """Return the names of ``--classes``, without the spaces around commas."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if "" in names:
        raise click.BadParameter(f"{text!r} has an empty name; give A,B,...", param_hint="'--classes'")
    return names


def _tell_of_folder(source: Source) -> None:
    """Say how a folder of images was read: now what was skipped, and at the end which images were converted."""
    from cloakonnx.data.subset import class_folders

    folder = class_folders(source)
    if folder is None:
        return
    for note in folder.notes:
        click.echo(f"cloakonnx: {note}", err=True)

    def tell_of_grey() -> None:
        if folder.grey:
            click.echo(f"cloakonnx: {folder.name}: {len(folder.grey)} grey pictures were read as colour", err=True)

    click.get_current_context().call_on_close(tell_of_grey)


def claim(output: Path, *, inputs: Sequence[Path | None] = (), force: bool = False) -> None:
    """Check that an output may be written, and hold it for this run until the verb ends."""
    from cloakonnx.files import check_output, claimed

    check_output(output, inputs=[path for path in inputs if path is not None], force=force)
    click.get_current_context().with_resource(claimed(output))


def classifier(
    model: Model, options: DataOptions, *, input_name: str | None = None, output_name: str | None = None
) -> Classifier:
    """Return a model with its input, output and preprocessing; :func:`choose` gives it a provider later."""
    from cloakonnx.classifier.classifier import Classifier

    say_scores(model, output_name)
    kept = click.get_current_context().meta
    return Classifier(
        model,
        preprocessing=preprocessing(options),
        input_name=input_name,
        output_name=output_name,
        task=kept.get("cloakonnx.task"),
        batch_axis=kept.get("cloakonnx.batch_axis"),
    )


def part(classifier: Classifier, path: Path, options: DataOptions) -> Dataset:
    """Return all samples of a file or folder beside ``--data``; --labels and --limit are of that."""
    own = cast(DataOptions, {**options, "labels": None, "limit": None})
    source = open_data(path, None, own, option="data")
    assert source is not None  # a path was given
    return dataset(classifier, source, own)


def dataset(classifier: Classifier, source: Source, options: DataOptions) -> Dataset:
    """Fit samples to a model's input."""
    from cloakonnx.data.samples import Dataset

    found = Dataset.of(source, classifier, limit=options["limit"])
    tell_of_classes(source, found.source)
    return found


def tell_of_classes(opened: Source, fitted: Source) -> None:
    """Say how class folders were matched to the names that the model's file gives its classes."""
    from cloakonnx.data.subset import class_folders

    before, after = class_folders(opened), class_folders(fitted)
    for note in () if before is None or after is None else after.notes[len(before.notes) :]:
        click.echo(f"cloakonnx: {note}", err=True)


def pairs(clean: Dataset, adversarial: Dataset) -> FittedPairs:
    """Pair samples with their adversarial versions, and warn where these seem to be in another order."""
    from cloakonnx.data.order import order_doubt
    from cloakonnx.data.samples import FittedPairs

    found = FittedPairs(clean, adversarial)
    doubt = order_doubt(found)
    if doubt is not None:
        click.echo(f"cloakonnx: warning: {doubt}", err=True)
    return found


def warn_of_small_eps(eps: Sequence[float], dataset: Dataset) -> None:
    """Warn of balls far smaller than a step of 8 bits: eps in another space than the samples."""
    low, high = dataset.preprocessing.bounds
    small = next((each for each in eps if 0 < each < _SMALL * (high - low) / 255), None)
    if small is not None:
        say(
            f"cloakonnx: warning: --eps {small:.3g} is less than a tenth of a 255th of pixel space, [{low:g}, "
            f"{high:g}]; is it in another space?"
        )


def warn(said: str) -> None:
    """Print a warning to stderr."""
    click.echo(f"cloakonnx: warning: {said}", err=True)


def warn_of_randomness(classifier: Classifier) -> None:
    """Warn where the scores differ from run to run."""
    from cloakonnx.classifier.doubts import of_randomness
    from cloakonnx.graph.index.randomness import random_ops

    for said in of_randomness(random_ops(classifier.model.proto, classifier.output_name)):
        warn(said)


def engine(workers: int | None, classifier: Classifier, dataset: Dataset, batch_size: int) -> Engine:
    """Return what handles batches, and say so where several are handled at a time."""
    from cloakonnx.engine.choice import default_engine, engine_of

    found = engine_of(workers) or default_engine(classifier.provider, dataset, batch_size)
    if found.workers > 1:
        say(str(found))
    return found


def say_notes(notes: Sequence[str]) -> None:
    """Warn of how a model was run, where that is not as usual."""
    for note in notes:
        click.echo(f"cloakonnx: warning: {note}", err=True)


def choose(provider: str | None, device_id: int) -> Provider:
    """Return the provider, and warn where the installation is broken."""
    from cloakonnx.runtime.provider import choose_provider, installation_warning

    warning = installation_warning()
    if warning is not None:
        say(f"cloakonnx: warning: {warning}")
    return choose_provider(provider, device_id=device_id)
