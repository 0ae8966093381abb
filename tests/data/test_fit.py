"""From stored samples to pixel space in the model's layout."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.data.samples import Dataset, sample_hashes
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import DataError
from cloakonnx.preprocessing import Preprocessing, channel_axis

Shape = tuple[int | None, ...]


def dataset(x: NDArray[Any], wanted: Shape | None, y: Any = None, **options: Any) -> Dataset:
    labels = None if y is None else np.asarray(y, np.int64)
    extra = {key: options.pop(key) for key in ("classes", "limit") if key in options}
    return Dataset(ArraySource("samples", x, labels), Preprocessing(**options), wanted, **extra)


def pixels(x: NDArray[Any], wanted: Shape | None, **options: Any) -> NDArray[np.float32]:
    return np.concatenate([batch.x for batch in dataset(x, wanted, **options).batches(2)])


def seeded(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def test_uint8_is_divided_by_255_exactly() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(
        pixels(levels, (1, 16, 16)).ravel(), np.arange(256, dtype=np.float32) / np.float32(255)
    )


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_are_taken_as_they_are(kind: Any) -> None:
    x = np.random.default_rng(0).random((3, 4)).astype(kind)
    found = pixels(x, (4,))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, x.astype(np.float32))


@pytest.mark.parametrize(
    ("stored", "wanted", "order", "axis"),
    [
        ((5, 6, 3), (3, 5, 6), (0, 3, 1, 2), 1),  # NHWC data, NCHW model
        ((3, 5, 6), (3, 5, 6), None, 1),
        ((3, 5, 6), (5, 6, 3), (0, 2, 3, 1), 3),  # NCHW data, NHWC model
        ((5, 6, 3), (5, 6, 3), None, 3),
        ((5, 6, 3), (3, None, None), (0, 3, 1, 2), 1),  # free height and width
        ((3, 5, 6), (3, None, None), None, 1),
        ((3, 5, 6), (None, None, 3), (0, 2, 3, 1), 3),
        ((5, 6, 1), (1, 5, 6), (0, 3, 1, 2), 1),
        ((6, 5), (6, 5), None, 2),  # not images: as they are
        ((7,), (7,), None, 1),
        ((3, 5, 6), None, None, 1),  # nothing is known of the input
    ],
)
def test_layouts(stored: tuple[int, ...], wanted: Shape | None, order: tuple[int, ...] | None, axis: int) -> None:
    x = seeded(4, *stored)
    found = pixels(x, wanted)
    expected = x if order is None else x.transpose(order)
    np.testing.assert_array_equal(found, expected.astype(np.float32) / np.float32(255))
    assert dataset(x, wanted).arrangement.channel_axis == axis == channel_axis(wanted)


@pytest.mark.parametrize(
    ("stored", "wanted", "shape", "axis"),
    [
        ((4, 5), (1, 4, 5), (1, 4, 5), 1),
        ((6, 5), (6, 5, 1), (6, 5, 1), 3),
        ((6, 5), (None, None, 1), (6, 5, 1), 3),
        ((4, 5), (4, 5, 1), (4, 5, 1), 1),  # the axis is the model's, whatever its samples: 4 channels of width 1
        ((3, 5), (3, 5, 1), (3, 5, 1), 1),
        ((3, 5), (3, None, 1), (3, 5, 1), 1),
        ((4, 5), (None, None, None), (1, 4, 5), 1),
        ((4, 5), (20,), (20,), 1),
    ],
)
def test_greyscale_and_flat(stored: tuple[int, ...], wanted: Shape, shape: tuple[int, ...], axis: int) -> None:
    x = seeded(3, *stored)
    np.testing.assert_array_equal(pixels(x, wanted), (x.astype(np.float32) / np.float32(255)).reshape(3, *shape))
    assert dataset(x, wanted).arrangement.channel_axis == axis == channel_axis(wanted)


@pytest.mark.parametrize(
    ("stored", "wanted"), [((3, 3, 3), (3, 3, 3)), ((3, 8, 3), (3, None, None)), ((4, 5, 3), (None,) * 3)]
)
def test_ambiguous_asks_for_layout(stored: tuple[int, ...], wanted: Shape) -> None:
    x = seeded(2, *stored)
    with pytest.raises(DataError, match="layout"):
        pixels(x, wanted)
    as_is = x.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(pixels(x, wanted, layout="nchw"), as_is)
    np.testing.assert_array_equal(pixels(x, wanted, layout="nhwc"), as_is.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("stored", ["nchw", "nhwc"])
@pytest.mark.parametrize("order", ["nchw", "nhwc"])
def test_colour_images_into_a_flat_input(stored: str, order: str) -> None:
    nhwc = seeded(2, 5, 6, 3)
    rows = {"nhwc": nhwc.reshape(2, 90), "nchw": nhwc.transpose(0, 3, 1, 2).reshape(2, 90)}
    x = nhwc if stored == "nhwc" else np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2))
    found = pixels(x, (90,), layout=f"{stored}:{order}")
    np.testing.assert_array_equal(found, rows[order].astype(np.float32) / np.float32(255))
    arrangement = dataset(x, (90,), layout=f"{stored}:{order}").arrangement
    np.testing.assert_array_equal(arrangement.undo(rows[order], x.shape[1:]), x)
    for layout in (None, "nchw", "nhwc"):
        with pytest.raises(DataError, match=f"in two orders; .*layout {layout or stored}:nchw .*:nhwc"):
            pixels(x, (90,), layout=layout)


@pytest.mark.parametrize(
    ("stored", "wanted", "shape"),
    [
        ((20,), (1, 4, 5), (1, 4, 5)),  # a picture of one channel: rows one after the other
        ((30,), (6, 5, 1), (6, 5, 1)),
        ((20,), (1, 4, None), (1, 4, 5)),
        ((16,), (4, 4), (4, 4)),
        ((20,), (1, 20), (1, 20)),  # axes of one value change no order
        ((20,), (1, 20, 1), (1, 20, 1)),
        ((1, 4, 5), (1, 20), (1, 20)),
        ((5, 5), (25, 1), (25, 1)),
        ((1, 1, 4, 5), (1, 4, 5), (1, 4, 5)),
        ((3, 4, 5), (1, 3, 4, 5), (1, 3, 4, 5)),
    ],
)
def test_samples_of_another_shape_that_have_one_order(
    stored: tuple[int, ...], wanted: Shape, shape: tuple[int, ...]
) -> None:
    x = seeded(3, *stored)
    np.testing.assert_array_equal(pixels(x, wanted), (x.astype(np.float32) / np.float32(255)).reshape(3, *shape))
    found = dataset(x, wanted)
    assert found.arrangement.note == (
        f"{found.source.name}: samples of shape {stored} are reshaped to the model's {shape}, their values in the same "
        "order"
    )
    np.testing.assert_array_equal(found.arrangement.undo(found.arrangement.apply(x), stored), x)


@pytest.mark.parametrize("model", ["nchw", "nhwc"])
@pytest.mark.parametrize("stored", ["nchw", "nhwc"])
def test_flat_samples_into_colour_images(stored: str, model: str) -> None:
    """They have two orders, as the files of CIFAR-10 and those of Keras: nothing is guessed."""
    nhwc = seeded(2, 5, 6, 3)
    nchw = nhwc.transpose(0, 3, 1, 2)
    x = (nhwc if stored == "nhwc" else nchw).reshape(2, 90)
    wanted = (5, 6, 3) if model == "nhwc" else (3, 5, None)
    expected = (nhwc if model == "nhwc" else nchw).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(pixels(x, wanted, layout=stored), expected)
    arrangement = dataset(x, wanted, layout=stored).arrangement
    np.testing.assert_array_equal(arrangement.undo(arrangement.apply(x), (90,)), x)
    assert arrangement.note is not None
    for layout in (None, "nchw:nchw"):
        with pytest.raises(DataError, match=r"\(90,\) fit the model's images .* in two orders; .*layout nchw .*nhwc"):
            pixels(x, wanted, layout=layout)


@pytest.mark.parametrize(
    ("stored", "wanted", "way"),
    [
        ((30,), (10, 3), r"x.reshape\(-1, 10, 3\)"),  # time first or features first
        ((30,), (2, 3, 5, 1), r"x.reshape\(-1, 2, 3, 5, 1\)"),
        ((3, 4, 5), (1, 60), r"x.reshape\(-1, 1, 60\)"),
    ],
)
def test_an_order_that_is_open_is_asked_for(stored: tuple[int, ...], wanted: Shape, way: str) -> None:
    with pytest.raises(DataError, match=f"do not fit .* as many values: {way}, if they were flattened in that order"):
        pixels(seeded(2, *stored), wanted)


@pytest.mark.parametrize(
    ("stored", "wanted", "layout", "said"),
    [
        ((20,), (20,), "nchw", "has no effect"),
        ((20,), (1, 4, 5), "nchw", "has no effect"),
        ((4, 5), (20,), "nhwc", "has no effect"),
        ((1, 4, 5), (20,), "nhwc", "has no effect"),
        ((4, 5), (1, 4, 5), "nchw", "has no effect"),
        ((3, 4, 5), None, "nchw", "has no effect"),
        ((3, 4, 5), (3, 4, 5), "nchw:nchw", "is for flat inputs"),
    ],
)
def test_a_layout_without_effect_is_refused(
    stored: tuple[int, ...], wanted: Shape | None, layout: str, said: str
) -> None:
    with pytest.raises(DataError, match=f"layout {layout} {said}"):
        pixels(seeded(2, *stored), wanted, layout=layout)


def test_a_layout_that_contradicts_the_source_is_refused() -> None:
    source = ArraySource("samples", seeded(2, 5, 6, 3), None, layout="nhwc")
    with pytest.raises(DataError, match="stored as nhwc; layout nchw contradicts that"):
        list(Dataset(source, Preprocessing(layout="nchw"), (3, 5, 6)).batches(2))


@pytest.mark.parametrize(
    ("stored", "wanted", "options"),
    [
        ((5, 6, 3), (3, 6, 5), {}),
        ((5, 6), (3, 5, 6), {}),
        ((30,), (3, 5, 2), {}),
        ((5, 6), (31,), {}),
        ((5, 6, 3), (3, 5, 6), {"layout": "nchw"}),
        ((3, 5, 6, 2), (3, 5, 6), {}),
    ],
)
def test_misfit_names_both_shapes(stored: tuple[int, ...], wanted: Shape, options: Any) -> None:
    with pytest.raises(DataError) as caught:
        pixels(seeded(2, *stored), wanted, **options)
    assert str(stored) in str(caught.value)
    assert str(wanted[0]) in str(caught.value)


def test_an_input_without_a_batch_axis() -> None:
    with pytest.raises(DataError, match="export the model with a batch axis in front"):
        pixels(seeded(2, 5), ())


@pytest.mark.parametrize("value", [1.001, -0.001, math.nan, math.inf, -math.inf])
def test_values_outside_the_bounds(value: float) -> None:
    x = np.full((5, 4), 0.5, np.float32)
    x[3, 2] = value
    with pytest.raises(DataError) as caught:
        pixels(x, (4,))
    assert f"sample 3 has the value {value:g}" in str(caught.value)


def test_bounds_can_be_wider() -> None:
    x = np.array([[-1, 1], [0, 0.5]], np.float32)
    np.testing.assert_array_equal(pixels(x, (2,), bounds=(-1.0, 1.0)), x)


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"std": (1.0, 0.0)}, {"std": (-1.0,)}, {"bounds": (1.0, 1.0)}])
def test_impossible_numbers(options: Any) -> None:
    with pytest.raises(DataError, match=next(iter(options))):
        Preprocessing(**options)


def test_labels_outside_the_classes() -> None:
    data = dataset(seeded(5, 4), (4,), [0, 1, 2, 3, 1], classes=3)
    with pytest.raises(DataError, match=r"sample 3 has label 3, but the model has 3 classes \(0 to 2\)"):
        list(data.batches(2))
    assert sum(len(b.x) for b in dataset(seeded(5, 4), (4,), [0, 1, 2, 3, 1], classes=4, limit=3).batches(2)) == 3


def test_the_sample_that_is_wrong_is_named_by_its_place_in_the_whole_data() -> None:
    with pytest.raises(DataError, match="sample 4 has label 3"):
        list(dataset(seeded(5, 4), (4,), [0, 0, 0, 0, 3], classes=3, limit=2).batches(2))
    x = np.full((5, 4), 0.5, np.float32)
    x[4] = 7
    with pytest.raises(DataError, match="sample 4 has the value 7"):
        list(dataset(x, (4,), [0, 0, 0, 0, 1], limit=2).batches(2))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_bounds_are_advised_for_what_is_no_number(value: float) -> None:
    with pytest.raises(DataError, match=f"sample 0 has the value {value:g}, which is no finite number") as caught:
        list(dataset(np.full((1, 4), value, np.float32), (4,)).batches(2))
    assert "bounds" not in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "sizes"), [(None, [3, 2]), (5, [3, 2]), (4, [3, 1]), (3, [3]), (1, [1]), (9, [3, 2])]
)
def test_limit(limit: int | None, sizes: list[int]) -> None:
    x = seeded(5, 4)
    data = dataset(x, (4,), limit=limit)  # without labels: the first ones
    batches = list(data.batches(3))
    assert [len(b.x) for b in batches] == sizes
    assert data.count() == sum(sizes)
    found = np.concatenate([b.x for b in batches])
    np.testing.assert_array_equal(found, x[: sum(sizes)].astype(np.float32) / np.float32(255))


def test_limit_takes_classes_evenly() -> None:
    x, y = seeded(12, 4), [0] * 6 + [1] * 4 + [2, 3]
    data = dataset(x, (4,), y, limit=7)
    batches = list(data.batches(3))
    assert [b.start for b in batches] == [0, 3, 6]
    assert data.count() == 7
    labels = [int(v) for b in batches if b.y is not None for v in b.y]
    # One each is 4, two of the two large ones 6; the seventh goes to one of these.
    assert labels in ([0, 0, 0, 1, 1, 2, 3], [0, 0, 1, 1, 1, 2, 3])
    rows = [0, 1, 2][: labels.count(0)] + [6, 7, 8][: labels.count(1)] + [10, 11]
    found = np.concatenate([b.x for b in batches])
    np.testing.assert_array_equal(found, x[rows].astype(np.float32) / np.float32(255))


def test_empty() -> None:
    with pytest.raises(DataError, match="samples is empty"):
        list(dataset(seeded(0, 4), (4,)).batches(3))


def test_hashes_know_a_sample_in_uint8_and_in_float() -> None:
    x = seeded(4, 3, 5, 6)
    as_float = (x / 255).astype(np.float32)
    hashes = sample_hashes(pixels(x, (3, 5, 6)))
    assert hashes == sample_hashes(pixels(as_float, (3, 5, 6)))
    assert hashes == sample_hashes(pixels(x.transpose(0, 2, 3, 1), (3, 5, 6)))
    assert len(set(hashes)) == 4
    assert all(len(h) == 16 for h in hashes)


MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@pytest.mark.parametrize("axis", [1, 3])
def test_normalised_pictures_are_not_answered_with_bounds(axis: int) -> None:
    """An eps in normalised data is another one in each channel."""
    shape = [1, 1, 1]
    shape[axis - 1] = 3
    sample = [4, 4]
    sample.insert(axis - 1, 3)
    x = np.random.default_rng(0).random((5, *sample)).astype(np.float32)
    with pytest.raises(DataError, match="the samples look normalised") as caught:
        pixels((x - MEAN.reshape(shape)) / STD.reshape(shape), tuple(sample))
    assert all(word in str(caught.value) for word in ("give pixels", "mean and std", "outside pixel space [0, 1]"))
    assert "bounds" not in str(caught.value)


def test_pictures_from_minus_one_to_one() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
    with pytest.raises(DataError, match=r"normalised.*mean 0\.5 std 0\.5; bounds=-1,1 takes them as they are"):
        pixels(x, (3,))


@pytest.mark.parametrize("values", [[0.0, 17.5], [0.0, 255.0], [-100.0, 3.5], [-3.0, 2.0], [0.0, 2.5]], ids=str)
def test_what_does_not_look_normalised(values: list[float]) -> None:
    with pytest.raises(DataError, match="set bounds, or store the samples as uint8 or scaled to it"):
        pixels(np.array([values], np.float32), (2,))


def test_bounds_that_were_given_are_not_doubted() -> None:
    with pytest.raises(DataError, match=r"outside pixel space \[-1, 1\]; set bounds"):
        pixels(np.array([[-2.5, 0.25]], np.float32), (2,), bounds=(-1.0, 1.0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_finite_number(value: float) -> None:
    with pytest.raises(DataError, match="which is no finite number") as caught:
        pixels(np.array([[0.5, value]], np.float32), (2,))
    assert "bounds" not in str(caught.value)
