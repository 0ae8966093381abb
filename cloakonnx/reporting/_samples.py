"""The report page's part on single samples: those that the masks save from the attacks, and those that they cost."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import DataError
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.samples import TurnedSamples
from cloakonnx.reporting._figures import Cell, Sheet
from cloakonnx.text import eps_text

_MOST_PIXELS = 320
"""Pixels of a picture's longer side; a page of larger ones would not load on a phone."""


@dataclass(frozen=True)
class Picture:
    """An image in the page: its address, what it shows for those who don't see it, and what stands below it."""

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Card:
    """A sample: clean, adversarial and the change between them, and a line."""

    pictures: tuple[Picture, ...]
    line: str


@dataclass(frozen=True)
class Group:
    """Samples of one kind: a heading, and a line in place of samples where there are none to show."""

    title: str
    cards: tuple[Card, ...]
    none: str


@dataclass(frozen=True)
class SamplePart:
    """The part: what it shows, and the samples as pictures or, where they are no images, as a table."""

    intro: str
    how: str
    groups: tuple[Group, ...]
    sheet: Sheet | None


def sample_part(samples: TurnedSamples, found: Evaluation) -> SamplePart:
    """Return the part.

    Raises:
        DataError: the samples are not those of the evaluation.
    """
    if samples.evaluation != found.sha256:
        raise DataError(
            f"the samples are of another evaluation (of a file with sha256 {samples.evaluation[:16]}...) than this one "
            f"({found.sha256[:16]}...); give those that 'cloakonnx evaluate --samples' wrote with it"
        )
    turned = samples.turned
    gained, lost = map(int, turned.counts)
    eps = eps_text(found.as_written(samples.eps))
    intro = (
        f"At eps {eps}, of {found.data.count} samples: {gained} where an attack won against the baseline and none wins "
        f"against the hardened model (gained), {lost} the other way round (lost). Samples that a model gets wrong "
        "without any attack are in neither number."
    )
    if not samples.are_images:
        shape = "x".join(map(str, turned.x.shape[1:]))
        how = f"The samples have shape {shape}: no images of 1 or 3 channels, so there is nothing to look at but this."
        return SamplePart(intro, how, (), _sheet(samples) if len(turned.y) else None)
    low, high = found.preprocessing.get("bounds") or (0.0, 1.0)
    factor, step = _factor(samples, high - low), _step(turned.x.shape[1:3])
    how = (
        "The first of each kind in the order of the data: nobody picked them. The adversarial input is the one that "
        f"won; both models were asked about it. The change is {_number(factor)} times as large as it is, around grey: "
        "grey did not change."
    )
    if step > 1:
        height, width = turned.x.shape[1:3]
        how += f" Of {height}x{width} pixels, every {_ordinal(step)} in either direction is drawn."

    def cards(is_gained: bool) -> tuple[Card, ...]:
        rows = np.flatnonzero(turned.gained == is_gained)
        return tuple(_card(samples, int(row), (low, high), factor, step) for row in rows)

    groups = (
        _group("Gained", "the attack used to win and now fails", gained, cards(True)),
        _group("Lost", "the attack used to fail and now wins", lost, cards(False)),
    )
    return SamplePart(intro, how, groups, None)


def _group(kind: str, what: str, count: int, cards: tuple[Card, ...]) -> Group:
    shown = len(cards)
    title = f"{kind}: {what} ({count if shown == count else f'{shown} of {count}'})"
    return Group(title, cards, "There is no such sample.")


def _card(samples: TurnedSamples, row: int, bounds: tuple[float, float], factor: float, step: int) -> Card:
    turned, (low, high) = samples.turned, bounds
    index, label = int(turned.index[row]), int(turned.y[row])
    before, after = int(turned.baseline[row]), int(turned.hardened[row])
    clean, adversarial = turned.x[row, ::step, ::step], turned.adversarial[row, ::step, ::step]
    change = (adversarial.astype(np.float64) - clean) / (high - low)
    times = _number(factor)
    pictures = (
        Picture(_uri((clean - low) / (high - low)), f"Sample {index} as it is, of class {label}", "clean"),
        Picture(
            _uri((adversarial - low) / (high - low)),
            f"Sample {index} attacked; the baseline takes it for class {before}, the hardened model for {after}",
            "adversarial",
        ),
        Picture(
            _uri(0.5 + factor * change),
            f"What the attack changed in sample {index}, {times} times as large",
            f"change, {times} times",
        ),
    )
    return Card(
        pictures,
        f"Sample {index}, class {label}. Under attack the baseline predicts {before}, the hardened model {after}.",
    )


def _uri(shares: NDArray[np.floating]) -> str:
    """Return an image whose values lie in [0, 1]; what lies outside is cut off."""
    return data_uri(np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8))


def _factor(samples: TurnedSamples, span: float) -> float:
    """Return by how much the changes may grow, the same for all, so that the largest just fits around grey."""
    turned = samples.turned
    largest = float(np.abs(turned.adversarial - turned.x).max(initial=0)) / span
    fits = 0.5 / largest if largest else 1.0
    return float(math.floor(fits)) if fits >= 1 else fits


def _number(factor: float) -> str:
    return f"{factor:.2g}" if factor < 1 else f"{factor:.0f}"


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _step(size: tuple[int, ...]) -> int:
    return math.ceil(max(size) / _MOST_PIXELS)


def _sheet(samples: TurnedSamples) -> Sheet:
    turned = samples.turned
    changes = np.abs(turned.adversarial - turned.x).reshape(len(turned.y), -1).max(axis=1)
    rows = tuple(
        (
            Cell(str(int(turned.index[row]))),
            Cell("gained" if turned.gained[row] else "lost"),
            *(Cell(str(int(each[row])), float(each[row])) for each in (turned.y, turned.baseline, turned.hardened)),
            Cell(f"{changes[row]:.4g}", float(changes[row])),
        )
        for row in range(len(turned.y))
    )
    columns = ("sample", "kind", "class", "attacked: before", "attacked: after", "largest change of a value")
    caption = "The first of each kind, in the order of the data"
    return Sheet("samples-table", caption, columns, rows, sortable=True, words=frozenset({0, 1}))


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR = 0, 2


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of (H, W, 1) grey or (H, W, 3) red, green and blue pixels."""
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _GREY if channels == 1 else _COLOUR, 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # 0: no filter
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return pixels as an address that holds the whole picture."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
