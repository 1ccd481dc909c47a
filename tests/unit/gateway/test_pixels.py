"""Pixels in JSON become an image file exactly, in little memory; whatever else is sent has an error."""

import io
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from gateway.pixels import COPIES, to_bitmap
from handlers.core.errors import InvalidImage, InvalidRequest

RNG = np.random.default_rng(7)


def decoded(bitmap):
    return np.asarray(Image.open(io.BytesIO(bitmap)))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (31, 17, 3), (300, 500, 3)])
@pytest.mark.parametrize("options", [{}, {"indent": 1}, {"separators": (",", ":")}])
def test_pixels_are_exact(shape, options):
    pixels = RNG.integers(0, 256, shape, np.uint8)
    assert np.array_equal(
        decoded(to_bitmap(json.dumps({"img": pixels.tolist()}, **options).encode())), pixels
    )


def test_white_space_anywhere():
    body = b' \n{\t"img" : [ [\r\n[ 1 ,\t2 , 3 ] , [4,5 ,6]] ] \n} \n'
    assert decoded(to_bitmap(body)).tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", InvalidRequest),
        (b"{", InvalidRequest),
        (b"}{", InvalidRequest),
        (b'{"img": [[[1, 2, 3]]]', InvalidRequest),
        (b'{"img": [[[1, 2, 3]]]}}', InvalidRequest),
        (b'{"img": [[[1, 2, 3]]]} 7', InvalidRequest),
        (b'{"img": [[[1, 2 3, 4]]]}', InvalidRequest),
        (b'{"img": [[[1 2, , 3]]]}', InvalidRequest),
        (b'{"img": [[[, 1 2, 3]]]}', InvalidRequest),
        (b'{"img": [[[1, 2 3, ]]]}', InvalidRequest),
        (b'{"img": [[[007, 2, 3]]]}', InvalidRequest),
        (b'{"img": [[[1, 2, 00]]]}', InvalidRequest),
        (b'{"img": [[[1, 2, 3]]], "img": [[[1, 2, 3]]]}', InvalidRequest),
        (b'{"img": [[[1, 2, 3]]], "top_k": 3}', InvalidRequest),
        (b'{"pixels": [[[1, 2, 3]]]}', InvalidRequest),
        (b'[[[1, 2, 3]]]', InvalidRequest),
        (b'{"img": [[[1, 2, 3], [4, 5]]]}', InvalidImage),
        (b'{"img": [[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]]}', InvalidImage),
        (b'{"img": [[[1, 2, 3]], []]}', InvalidImage),
        (b'{"img": [[[1, 2, 3], []]]}', InvalidImage),
        (b'{"img": [[]]}', InvalidImage),
        (b'{"img": [[[1, 2, 256]]]}', InvalidImage),
        (b'{"img": [[[1, 2, 65792]]]}', InvalidImage),  # 256 + 2**16
        (b'{"img": [[[1, 2, 18446744073709551616]]]}', InvalidImage),
        (b'{"img": [[[1, 2, 0.5]]]}', InvalidImage),
        (b'{"img": [[[1, 2, -3]]]}', InvalidImage),
        (b'{"img": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", InvalidImage),
        (b'{"img": [' + b"[]," * 200_000 + b"[]]}", InvalidImage),
        (b'{"img": [[[1, 2, 3]]' + b', "x"' * 200_000 + b"]}", InvalidImage),
    ],
)  # fmt: skip
def test_anything_else_is_refused(body, error):
    with pytest.raises(error):
        to_bitmap(body)
    with pytest.raises(error):
        to_bitmap(bytearray(body))


@pytest.mark.parametrize("piece", [b"007,1,1", b"1 2,3,4", b"1,,3", b"256,1,1", b"1,2,-3"])
def test_one_wrong_pixel_among_many(piece):
    """Across the boundaries of the pieces that are read at once."""
    row = [b"[0,10,255]"] * 997
    rows = [b"[" + b",".join(row) + b"]"] * 200
    row[500] = b"[" + piece + b"]"
    rows[120] = b"[" + b",".join(row) + b"]"
    with pytest.raises(InvalidImage):
        to_bitmap(b'{"img": [' + b",".join(rows) + b"]}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"img": [' + b"[[0,0,0]]," * 1_500_000 + b"[[0,0,0]]]}",
        b'{"img": [[' + b"[0,0,0]," * 1_900_000 + b"[0,0,0]]]}",
        b'{"img": [[' + b"[ 0, 0, 0 ], " * 1_200_000 + b"[0,0,0]]]}",
        b'{"img": [[' + b"[0,0,0]," * 1_900_000 + b"[0,0]]]}",
        b'{"img": [' + b"[]," * 5_000_000 + b"[]]}",
        b'{"img": [[[' + b"1" * 15_000_000 + b",1,1]]]}",
    ],
    ids=["tall", "wide", "spaced", "uneven", "empty lists", "one number"],
)
def test_memory_is_a_small_multiple_of_the_body(body):
    tracemalloc.start()
    try:
        to_bitmap(body)
    except InvalidImage:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < (COPIES + 0.5) * len(body)
