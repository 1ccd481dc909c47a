"""The preview of an image, for the modes that Pillow converts correctly."""

import io

import numpy as np
import pytest
from PIL import Image

from torchserve_models.demo.preview import MAX_SIDE_PIXELS, jpeg_preview


def file(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def shown(content):
    return Image.open(io.BytesIO(jpeg_preview(content)))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
def test_large_image_becomes_a_small_jpeg_of_the_same_shape(format):
    image = shown(file(Image.new("RGB", (2000, 1000), "red"), format))
    assert (image.format, image.size) == ("JPEG", (MAX_SIDE_PIXELS, MAX_SIDE_PIXELS // 2))
    assert np.allclose(np.asarray(image)[100, 100], [254, 0, 0], atol=3)


def test_preview_is_upright_and_on_a_white_background():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert shown(file(Image.new("RGB", (30, 20)), "JPEG", exif=exif)).size == (20, 30)
    clear = shown(file(Image.new("RGBA", (9, 9), (255, 0, 0, 0))))
    assert np.asarray(clear).min() > 250


@pytest.mark.parametrize(
    "content", [b"", b"no image", file(Image.new("RGB", (90, 90)))[:60], file(Image.new("I;16", (9, 9)))]
)
def test_unsupported_content_has_no_preview(content):
    assert jpeg_preview(content) is None
