"""Tests of AVIFs with 10 and 12 bits, written with libavif, against the same images with 8 bits."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from handlers.vision.decode import decode_image

X, Y = np.meshgrid(np.arange(8), np.arange(4))
COLORS = np.stack([X * 36, Y * 85, 255 - X * 36], axis=-1)
GRAY = np.stack([X * 36] * 3, axis=-1)
FILES = {
    "colors of 10 bits": (
        "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAA"
        "AAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAATQAAAChpaW5mAAAAAAABAAAAGmluZmUC"
        "AAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAACAAAAAQAAAAQcGl4aQAAAAADCgoKAAAA"
        "DGF2MUOBIEAAAAAAE2NvbHJuY2x4AAIAAgAAgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAVW1kYXQSAAoIOAh/zgQEASAy"
        "PxAAAIvW+KBfDy+e1Wt93Yd5IGXtOwLmOcdOMHqk5UahDfw04pDeNp55HFLK4gOJG0ulFKMdI2YW27rV9CgoQA=="
    ),
    "colors of 12 bits": (
        "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
        "AAAAAA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ8AAABVAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAA"
        "AQAAYXYwMUNvbG9yAAAAAGppcHJwAAAAS2lwY28AAAAUaXNwZQAAAAAAAAAIAAAABAAAABBwaXhpAAAAAAMMDAwAAAAMYXYx"
        "Q4FAYAAAAAATY29scm5jbHgAAgACAACAAAAAF2lwbWEAAAAAAAAAAQABBAECgwQAAABdbWRhdBIACghYCH/GgQEARDJHEAAA"
        "i9b4oF8PIPINT3eN3Yd5IGXtOhGXeKfXns86DlJAp56iYUzTvtk3vLUXQQH5GH+4XS7QtVib2T9xyNW2SS9SZNqaN6A="
    ),
    "gray of 10 bits": (
        "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOltZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
        "AAAAAA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ0AAAAlAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAA"
        "AQAAYXYwMUNvbG9yAAAAAGhpcHJwAAAASWlwY28AAAAUaXNwZQAAAAAAAAAIAAAABAAAAA5waXhpAAAAAAEKAAAADGF2MUOB"
        "AFwAAAAAE2NvbHJuY2x4AAIAAgACgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAALW1kYXQSAAoFGAh/zqAyGhAAhtKEKDBk"
        "OL/pehOXbZK8Whhb/6zxmP+g"
    ),
    "gray of 12 bits": (
        "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOltZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
        "AAAAAA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ0AAAAoAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAA"
        "AQAAYXYwMUNvbG9yAAAAAGhpcHJwAAAASWlwY28AAAAUaXNwZQAAAAAAAAAIAAAABAAAAA5waXhpAAAAAAEMAAAADGF2MUOB"
        "QHwAAAAAE2NvbHJuY2x4AAIAAgACgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAMG1kYXQSAAoFWAh/x1AyHRAAhtKEKDBj"
        "ZrxI8oP7lJoLUwLyVXWJ6kfqbIbi"
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_avif_of_more_than_eight_bits_is_decoded(name):
    pixels = decode_image(base64.b64decode(FILES[name]), 1000).astype(int)
    assert np.abs(pixels - (COLORS if "colors" in name else GRAY)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    """AVIF stores the orientation in image properties (irot, imir), not in EXIF."""
    colors = COLORS.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    turned = {
        2: colors[:, ::-1], 3: colors[::-1, ::-1], 4: colors[::-1], 5: colors.swapaxes(0, 1), 6: np.rot90(colors, -1),
        7: np.rot90(colors[::-1], 1), 8: np.rot90(colors, 1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(colors).save(buffer, "AVIF", quality=100, subsampling="4:4:4", exif=exif.tobytes())
    pixels = decode_image(buffer.getvalue(), 10_000).astype(int)
    expected = turned.get(orientation, colors)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= 12
