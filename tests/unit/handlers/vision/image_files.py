"""Image files of tests: four colored quarters in any mode and format."""

import io

from PIL import Image

LIMIT = 1_000_000

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(mode: str = "RGB") -> Image.Image:
    """Return an image with red and green quarters at the top, and blue and white quarters at the bottom."""
    image = Image.new("RGB", (64, 48))
    for top_left, color in zip([(0, 0), (32, 0), (0, 24), (32, 24)], [RED, GREEN, BLUE, WHITE], strict=True):
        image.paste(color, (*top_left, top_left[0] + 32, top_left[1] + 24))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
