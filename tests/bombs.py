"""Small files that would take large amounts of memory if they were decoded."""

import io
import struct
import zlib

from PIL import Image


def image_bomb() -> bytes:
    """Return a PNG of 400 megapixels in 50 kB."""
    buffer = io.BytesIO()
    Image.new("1", (20000, 20000)).save(buffer, "PNG")
    return buffer.getvalue()


def icon_bomb() -> bytes:
    """Return an ICO that contains `image_bomb`. Pillow decodes it when it opens the file, before a size check."""
    png = image_bomb()
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 1, len(png), 22) + png


def tile_bomb() -> bytes:
    """Return a TIFF of 16 x 16 pixels with a declared tile size of 30,000 x 30,000."""
    tags = [  # number, type (3 short, 4 long), value
        (256, 3, 16), (257, 3, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
        (322, 4, 30_000), (323, 4, 30_000), (324, 4, 200), (325, 4, 20),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + zlib.compress(b"\0" * 100).ljust(20, b"\0")
