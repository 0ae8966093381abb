"""The report page draws the samples that the masks turned, pixel by pixel."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cloakonnx.errors import DataError
from cloakonnx.reporting.page import report_html
from tests.support.pages import Elements, table

from . import samples


def pictures(page: str) -> list[tuple[str, np.ndarray[Any, np.dtype[np.uint8]]]]:
    """The text for each image in the page, and its pixels as Pillow reads them."""
    found = []
    for tag, attributes in Elements(page).found:
        if tag == "img":
            head, content = str(attributes["src"]).split(",")
            assert head == "data:image/png;base64"
            with Image.open(io.BytesIO(base64.b64decode(content, validate=True)), formats=["PNG"]) as image:
                found.append((str(attributes["alt"]), np.asarray(image)))
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_shown(channels: int) -> None:
    found = samples.evaluation()
    made = samples.turned(found, 6, 5, channels)
    page = report_html(found, samples=made)
    said = Elements(page).text
    assert "At eps 1/255, of 200 samples: 40 where an attack won against the baseline" in said
    assert "Gained: the attack used to win and now fails (3 of 40)" in said
    assert "Lost: the attack used to fail and now wins (1)" in said
    assert "Sample 20, class 2. Under attack the baseline predicts 7, the hardened model 2." in said
    assert "Sample 30, class 3. Under attack the baseline predicts 3, the hardened model 8." in said
    assert "The change is 63 times as large" in said  # 127.5 levels over 2 of them
    shown, turned = pictures(page), made.turned
    assert len({text for text, _ in shown}) == len(shown) == 12
    for index in range(4):
        clean, adversarial, change = (pixels.reshape(6, 5, channels) for _, pixels in shown[index * 3 : index * 3 + 3])
        np.testing.assert_array_equal(clean, np.rint(turned.x[index] * 255))
        np.testing.assert_array_equal(adversarial, np.rint(turned.adversarial[index] * 255))
        moved = (turned.adversarial[index].astype(np.float64) - turned.x[index]) * 255
        np.testing.assert_allclose(change, 127.5 + 63 * moved, atol=0.51)


def test_samples_of_other_bounds_and_large_changes() -> None:
    """Pixels from -1 to 1, changed by more than half of that: the change is made smaller, and nothing is cut off."""
    found = dataclasses.replace(samples.evaluation(), preprocessing={"bounds": [-1.0, 1.0]})
    made = samples.turned(found, 4, 4, 1, gained=1, lost=0)
    made.turned.x[:], made.turned.adversarial[:] = -1, 1
    page = report_html(found, samples=made)
    assert [np.unique(pixels).tolist() for _, pixels in pictures(page)] == [[0], [255], [255]]
    assert "0.5 times as large" in page
    assert "There is no such sample." in page


def test_large_images_are_thinned_out() -> None:
    found = samples.evaluation()
    made = samples.turned(found, 400, 700, 1, gained=1, lost=0)
    page = report_html(found, samples=made)
    assert "Of 400x700 pixels, every 3rd in either direction is drawn" in page
    np.testing.assert_array_equal(pictures(page)[0][1], np.rint(made.turned.x[0, ::3, ::3, 0] * 255))


def test_samples_that_are_no_images() -> None:
    found = samples.evaluation()
    page = report_html(found, samples=samples.turned(found, 20, 7))
    assert "The samples have shape 20x7: no images of 1 or 3 channels" in page
    assert pictures(page) == []
    assert [row[:5] for row in table(page, "samples-table")][2:] == [
        ["20", "gained", "2", "7", "2"],
        ["30", "lost", "3", "3", "8"],
    ]
    assert "samples-table" not in report_html(found, samples=samples.turned(found, 20, gained=0, lost=0))


def test_samples_of_another_evaluation() -> None:
    other = samples.evaluation(samples.at(2 / 255, 100, 51))
    with pytest.raises(DataError, match=r"the samples are of another evaluation .*evaluate --samples"):
        report_html(samples.evaluation(), samples=samples.turned(other, 6, 5, 3))
