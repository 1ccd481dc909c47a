"""A writer of TIFF files in any layout, because libraries write only a few layouts."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

SHORT, LONG = 3, 4
NONE, DEFLATE = 1, 8
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def tiff(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    *,
    endian: str = "<",
    sample_format: int = UNSIGNED,
    fill_order: int = 1,
    planar: int = 1,
    compression: int = NONE,
    extra: Sequence[int] | None = None,
    rows_per_strip: int | None = None,
    tile: int | None = None,
    tags: Mapping[int, tuple[int, Sequence[int]]] | None = None,
) -> bytes:
    """Return a TIFF of `samples` [height, width, channels], whose values must fit `bits` and `sample_format`.

    `tile` is the edge of square tiles. `tags`: number to type and values, beside and in the place of the usual ones.
    """
    height, width, channels = samples.shape
    planes = [samples] if planar == 1 else np.split(samples, channels, axis=2)
    blocks = [block for plane in planes for block in _blocks(plane, rows_per_strip or height, tile)]
    parts = [_packed(block, bits, sample_format, endian) for block in blocks]
    if compression == DEFLATE:
        parts = [zlib.compress(part) for part in parts]
    if fill_order == 2:
        parts = [part.translate(_REVERSED_BITS) for part in parts]
    offsets = np.cumsum([8, *map(len, parts)])[:-1].tolist()
    entries = {
        256: (SHORT, [width]), 257: (SHORT, [height]), 258: (SHORT, [bits] * channels), 259: (SHORT, [compression]),
        262: (SHORT, [photometric]), 266: (SHORT, [fill_order]), 277: (SHORT, [channels]), 284: (SHORT, [planar]),
        339: (SHORT, [sample_format] * channels),
        (324 if tile else 273): (LONG, offsets), (325 if tile else 279): (LONG, [len(part) for part in parts]),
    }  # fmt: skip
    if tile:
        entries |= {322: (SHORT, [tile]), 323: (SHORT, [tile])}
    else:
        entries[278] = (SHORT, [rows_per_strip or height])
    if extra is not None:
        entries[338] = (SHORT, extra)
    return _file(b"".join(parts), entries | dict(tags or {}), endian)


def scaled(levels: np.ndarray, bits: int) -> np.ndarray:
    """Scale levels from 0 to 255 to the range of `bits`, so that white stays white."""
    return np.rint(levels / 255 * (2**bits - 1)).astype(np.int64)


def _blocks(plane: np.ndarray, rows: int, tile: int | None) -> list[np.ndarray]:
    if tile is None:
        return [plane[top : top + rows] for top in range(0, len(plane), rows)]
    height, width, _ = plane.shape
    padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
    return [
        padded[top : top + tile, left : left + tile]
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]


def _packed(block: np.ndarray, bits: int, sample_format: int, endian: str) -> bytes:
    rows = block.reshape(len(block), -1)
    if bits in (8, 16, 32) or sample_format == FLOAT:
        kind = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[sample_format]
        return rows.astype(f"{endian}{kind}{bits // 8}").tobytes()
    digits = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def _file(body: bytes, entries: Mapping[int, tuple[int, Sequence[int]]], endian: str) -> bytes:
    start = 8 + len(body)
    values_at = start + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(endian + "H", len(entries)), b""
    for number, (kind, numbers) in sorted(entries.items()):
        packed = struct.pack(f"{endian}{len(numbers)}{'H' if kind == SHORT else 'I'}", *numbers)
        if len(packed) > 4:
            values += packed
            packed = struct.pack(endian + "I", values_at + len(values) - len(packed))
        directory += struct.pack(endian + "HHI", number, kind, len(numbers)) + packed.ljust(4, b"\0")
    magic = b"II*\0" if endian == "<" else b"MM\0*"
    return magic + struct.pack(endian + "I", start) + body + directory + bytes(4) + values
