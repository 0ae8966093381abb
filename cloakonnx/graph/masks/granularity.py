"""What one weight of a mask multiplies: a feature or an element of an activation, a kernel or a number of a weight.

One class a granularity: it gives the shape of a mask at a place, and how that shape broadcasts over the tensor.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeAlias

from cloakonnx.errors import MaskError, TapError
from cloakonnx.graph.masks.mask import ELEMENT, FEATURE, INPUT_CHANNEL, KERNEL, OUTPUT_CHANNEL, WEIGHT
from cloakonnx.graph.masks.taps import Tap
from cloakonnx.graph.masks.weights import WeightPlace

Place: TypeAlias = Tap | WeightPlace
"""Where a mask goes."""

Shape: TypeAlias = tuple[int, ...]


class Granularity(Protocol):
    """What one weight of a mask multiplies.

    Attributes:
        name: As options and files have it.
        unit: What the mask has one weight for, in the plural.
    """

    name: ClassVar[str]
    unit: ClassVar[str]

    def shape(self, place: Place) -> Shape:
        """Return the shape of a mask's weights; raises TapError where the model leaves it open."""

    def spread(self, place: Place) -> Shape | None:
        """Return the shape in which the weights broadcast over the tensor, -1 for what the model leaves open."""


def _known(place: Place, shape: tuple[int | str | None, ...], what: str) -> Shape:
    sizes = tuple(size for size in shape if isinstance(size, int))
    if len(sizes) < len(shape):
        raise TapError(
            f"the model leaves the {what} of tap {place.name!r} open, so the size of its mask is not known; choose "
            "another tap"
        )
    return sizes


class Feature:
    """One weight a feature of an activation."""

    name: ClassVar[str] = FEATURE
    unit: ClassVar[str] = "features"

    def shape(self, place: Place) -> Shape:
        """(F,)."""
        return _known(place, (_tap(place, self.name).features,), "number of features")

    def spread(self, place: Place) -> Shape | None:
        """(F, 1, ...), which broadcasts along the feature axis."""
        return _tap(place, self.name).mask_shape


class Element:
    """One weight for every element of a sample of an activation."""

    name: ClassVar[str] = ELEMENT
    unit: ClassVar[str] = "elements"

    def shape(self, place: Place) -> Shape:
        """The tap's shape without the batch."""
        return _known(place, _tap(place, self.name).shape[1:], "shape")

    def spread(self, place: Place) -> Shape | None:
        """The shape of the mask: it broadcasts over the batch."""
        _tap(place, self.name)
        return None


class Weight:
    """One weight for every number of a weight."""

    name: ClassVar[str] = WEIGHT
    unit: ClassVar[str] = "weights"

    def shape(self, place: Place) -> Shape:
        """The weight's own."""
        return _weight(place, self.name).shape

    def spread(self, place: Place) -> Shape | None:
        """As it is."""
        _weight(place, self.name)
        return None


class Kernel(Weight):
    """One weight for each kernel: a pair of an output and an input channel. Without spatial axes as :class:`Weight`."""

    name: ClassVar[str] = KERNEL
    unit: ClassVar[str] = "kernels"

    def shape(self, place: Place) -> Shape:
        """The weight's shape, 1 along its spatial axes."""
        found = _weight(place, self.name)
        return tuple(1 if axis in found.spatial else size for axis, size in enumerate(found.shape))


class OutputChannel(Weight):
    """One weight for each output channel of a weight."""

    name: ClassVar[str] = OUTPUT_CHANNEL
    unit: ClassVar[str] = "output channels"

    def shape(self, place: Place) -> Shape:
        """1 along all axes but one, and those that stack layers."""
        found = _weight(place, self.name)
        kept = {self.axis(found), *found.stacked}
        return tuple(size if axis in kept else 1 for axis, size in enumerate(found.shape))

    def axis(self, place: WeightPlace) -> int | None:
        """Return the axis that the weights run along."""
        return place.output_axis


class InputChannel(OutputChannel):
    """One weight for each input channel of a weight."""

    name: ClassVar[str] = INPUT_CHANNEL
    unit: ClassVar[str] = "input channels"

    def axis(self, place: WeightPlace) -> int | None:
        """Return the axis that the weights run along."""
        return place.input_axis


_ALL: tuple[Granularity, ...] = (Feature(), Element(), Kernel(), Weight(), OutputChannel(), InputChannel())
_BY_NAME = {each.name: each for each in _ALL}


def granularity(name: str) -> Granularity:
    """Return a granularity; raises MaskError for a name that is none."""
    if name not in _BY_NAME:
        raise MaskError(f"{name!r} is no granularity of masks; there are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def _tap(place: Place, name: str) -> Tap:
    if not isinstance(place, Tap):
        raise MaskError(f"a mask of granularity {name} goes to an activation, and {place.name!r} is a weight")
    return place


def _weight(place: Place, name: str) -> WeightPlace:
    if not isinstance(place, WeightPlace):
        raise MaskError(f"a mask of granularity {name} goes to a weight, and {place.name!r} is computed from the data")
    return place
