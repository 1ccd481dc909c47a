"""The small copy that a page shows: of anything that Pillow reads rightly, and of nothing else."""

import io

import numpy as np
import pytest
from PIL import Image

from torchserve_models.demo.preview import LONGEST_SIDE, preview


def file(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def shown(content):
    return Image.open(io.BytesIO(preview(content)))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
def test_a_large_image_becomes_a_small_jpeg_of_the_same_shape(format):
    image = shown(file(Image.new("RGB", (2000, 1000), "red"), format))
    assert (image.format, image.size) == ("JPEG", (LONGEST_SIDE, LONGEST_SIDE // 2))
    assert np.allclose(np.asarray(image)[100, 100], [254, 0, 0], atol=3)


def test_it_is_upright_and_alpha_lies_on_white():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert shown(file(Image.new("RGB", (30, 20)), "JPEG", exif=exif)).size == (20, 30)
    clear = shown(file(Image.new("RGBA", (9, 9), (255, 0, 0, 0))))
    assert np.asarray(clear).min() > 250


@pytest.mark.parametrize(
    "content", [b"", b"no image", file(Image.new("RGB", (90, 90)))[:60], file(Image.new("I;16", (9, 9)))]
)
def test_what_cannot_be_shown_has_no_preview(content):
    assert preview(content) is None
