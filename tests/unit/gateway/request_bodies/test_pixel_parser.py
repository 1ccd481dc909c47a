"""The parser converts JSON pixels exactly and in little memory, and rejects all other bodies."""

import io
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from handlers.core.errors import ImageTooLarge, InvalidImage, InvalidRequest
from torchserve_models.gateway.request_bodies import pixel_parser
from torchserve_models.gateway.request_bodies.pixel_parser import MAX_NUMBERS, MAX_SIDE, PixelParser

RNG = np.random.default_rng(7)
NOISE = RNG.integers(0, 256, (31, 17, 3), np.uint8)


def parse(body, size=2**16):
    """Return the image file that the parser makes of a body, fed in chunks of `size` bytes."""
    parser = PixelParser()
    for at in range(0, len(body), size):
        parser.feed(bytes(body[at : at + size]))
    return Image.open(io.BytesIO(parser.finish()))


def request_body(pixels, **options):
    return json.dumps({"img": np.asarray(pixels).tolist()}, **options).encode()


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (90, 500, 3), (40, 30), (2, 5, 1), (40, 30, 2), (40, 30, 4)]
)
@pytest.mark.parametrize("options", [{}, {"indent": 1}, {"separators": (",", ":")}])
@pytest.mark.parametrize("size", [2**16, 7001])
def test_pixels_are_exact(shape, options, size):
    pixels = RNG.integers(0, 256, shape, np.uint8)
    image = np.asarray(parse(request_body(pixels, **options), size))
    assert np.array_equal(image, pixels[:, :, 0] if shape[2:] == (1,) else pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_pixels_of_a_pillow_image_are_accepted(mode):
    original = Image.fromarray(NOISE).convert(mode)
    image = parse(request_body(np.asarray(original)))
    assert image.mode == ("L" if mode == "1" else mode)
    assert np.array_equal(np.asarray(image), np.asarray(original.convert("L") if mode == "1" else original))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_chunk_size_does_not_change_the_image(size, monkeypatch):
    monkeypatch.setattr("torchserve_models.gateway.request_bodies.pixel_parser._PARSE_CHARACTERS", 1)
    body = b' \n{\t"img" : [ [\r\n[ 1 ,\t2 , 3e0 ] , [4,5 ,6]] ,[[7,8,255],[0,-0,1.0e+01] ] ] \n} \n'
    assert np.asarray(parse(body, size)).tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 255], [0, 0, 10]]]


@pytest.mark.parametrize(
    ("numbers", "levels"),
    [
        (NOISE / 255, NOISE),
        ((NOISE / 255).astype(np.float32), NOISE),
        (NOISE.astype(float), NOISE),
        (NOISE + 0.4 * (NOISE < 255), NOISE),
        (np.zeros((2, 2)), np.zeros((2, 2))),
        # JavaScript writes 1.0 as 1. The range is only known after the last row.
        ([[0, 1], [1, 0], [0.5, 0]], [[0, 255], [255, 0], [128, 0]]),
        ([[0, 1], [0.5, 0], [3.0, 1]], [[0, 1], [0, 0], [3, 1]]),
        ([[0, 1], [1, 0]], [[0, 1], [1, 0]]),
    ],
)
def test_floats_range_from_0_to_1_or_from_0_to_255(numbers, levels):
    body = json.dumps({"img": numbers.tolist() if isinstance(numbers, np.ndarray) else numbers}).encode()
    assert np.array_equal(np.asarray(parse(body)), levels)


@pytest.mark.parametrize(
    "numbers", [[[0.0, 1.0]], [[1.0]], [[1, 0, 1.0]], [[0.2, 1.01]], [[2.64, 0.1]], [[0, 2.5], [2, 1]]]
)
def test_ambiguous_floats_are_rejected(numbers):
    with pytest.raises(InvalidImage, match=r"so white may be 1 or 255; send integers"):
        parse(json.dumps({"img": numbers}).encode())


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b"", InvalidRequest, "the body is empty; the body must be a JSON object with the one field 'img'"),
        (b"{", InvalidRequest, "not valid JSON: .*; the body must be a JSON object with the one field 'img'"),
        (b"}{", InvalidRequest, "not valid JSON"),
        (b"\xff\xd8", InvalidRequest, "not UTF-8; .* one field 'img'.*; send image files to /predict"),
        (b'{"img": [[[1, 2, 3]]]', InvalidRequest, "one field 'img'"),
        (b'{"img": [[[1, 2, 3]], ', InvalidRequest, "no closing"),
        (b'{"img": [[[1, 2, 3]', InvalidRequest, "no closing"),
        (b'{"img": [[[1, 2, 3]],]}', InvalidRequest, "no closing"),
        (b'{"img": [[[1, 2, 3]]]}}', InvalidRequest, "one field"),
        (b'{"img": [[[1, 2, 3]]]} 7', InvalidRequest, "one field"),
        (b'{"img": [[[1, 2 3, 4]], [[1, 2, 3]]]}', InvalidRequest, "Expecting ','"),
        (b'{"img": [[[1, 2, , 3]], [[1, 2, 3]]]}', InvalidRequest, "Expecting value"),
        (b'{"img": [[[, 1, 2, 3]], [[1, 2, 3]]]}', InvalidRequest, "Expecting value"),
        (b'{"img": [[[007, 2, 3]], [[1, 2, 3]]]}', InvalidRequest, "Expecting ','"),
        (b'{"img": [[[1, 2, NaN]]]}', InvalidRequest, "NaN is not a JSON number"),
        (b'{"img": [[[1, 2, Infinity]]]}', InvalidRequest, "Infinity is not a JSON number"),
        (b'{"img": [[[1, 2, 3]] [[1, 2, 3]]]}', InvalidRequest, "after the row"),
        (b'{"img": [[[1, 2, 3]]], "img": [[[1, 2, 3]]]}', InvalidRequest, "one field"),
        (b'{"img": [[[1, 2, 3]]], "top_k": 3}', InvalidRequest, "one field 'img'; send parameters in the query"),
        (b'{"pixels": [[[1, 2, 3]]]}', InvalidRequest, "one field 'img'"),
        (b'{"pixels": [' + b"[[1, 2, 3]]," * 10_000 + b"[[1, 2, 3]]]}", InvalidRequest, "one field 'img'"),
        (b'{"img": [[1]]' + b" " * 2_000_000, InvalidRequest, "one field 'img'"),
        (b"[[[1, 2, 3]]]", InvalidRequest, "one field 'img'"),
        (b'{"img": 7}', InvalidImage, r"\[height\]\[width\]"),
        (b'{"img": "abc"}', InvalidImage, r"\[height\]\[width\]"),
        (b'{"img": {"a": 1}}', InvalidImage, r"\[height\]\[width\]"),
        (b'{"img": []}', InvalidImage, "'img' contains no rows"),
        (b'{"img": [7]}', InvalidImage, r"img\[0\] must be a list of pixels"),
        (b'{"img": [[]]}', InvalidImage, r"img\[0\] must be a list of pixels"),
        (b'{"img": [{"": 1}]}', InvalidImage, r"img\[0\] must be a list of pixels"),
        (b'{"img": [[[]]]}', InvalidImage, "channels last"),
        (b'{"img": [[[1, 2, 3, 4, 5]]]}', InvalidImage, "channels last"),
        (b'{"img": [[[[1, 2, 3]]]]}', InvalidImage, "channels last"),
        (b'{"img": [[["a"]]]}', InvalidImage, "must contain only numbers"),
        (b'{"img": [["abc"]]}', InvalidImage, "must contain only numbers"),
        (b'{"img": [[-1, 3]]}', InvalidImage, "number below 0; undo the normalization"),
        (b'{"img": [[-1.5, 3]]}', InvalidImage, "number below 0; undo the normalization"),
        (b'{"img": [[0.5, 1e999]]}', InvalidImage, "number above 255; scale pixels of 16 bits"),
        (b'{"img": [[null]]}', InvalidImage, "must contain only numbers"),
        (b'{"img": [[[true, false, true]]]}', InvalidImage, "must contain only numbers"),
        (b'{"img": [[true, 1]]}', InvalidImage, "must contain only true and false"),
        (b'{"img": [[true], [1]]}', InvalidImage, r"img\[1\] must contain only true and false"),
        (b'{"img": [[1], [true]]}', InvalidImage, r"img\[1\] must contain only numbers"),
        (b'{"img": [[[1, 2, 3], [4, 5]]]}', InvalidImage, "3 numbers each"),
        (b'{"img": [[[1, 2, 3], "abc"]]}', InvalidImage, "3 numbers each"),
        (b'{"img": [[[1, 2, 3], {"a": 1, "b": 2, "c": 3}]]}', InvalidImage, "3 numbers each"),
        (b'{"img": [[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]]}', InvalidImage, r"img\[1\] has 2 pixels, but the first"),
        (b'{"img": [[[1, 2, 3]], []]}', InvalidImage, r"img\[1\] must be a list"),
        (b'{"img": [[1, 2], [[1], [2]]]}', InvalidImage, "must contain only numbers"),
        (b'{"img": [[[1, 2, 256]]]}', InvalidImage, "number above 255; scale pixels of 16 bits"),
        (b'{"img": [[40000]]}', InvalidImage, "scale pixels of 16 bits"),
        (b'{"img": [[[1, 2, 18446744073709551616]]]}', InvalidImage, "number above 255"),
        (b'{"img": [[[1, 2, -3]]]}', InvalidImage, "number below 0"),
        (b'{"img": [[-2.1, 0.3]]}', InvalidImage, "number below 0"),
        (b'{"img": [[255.5]]}', InvalidImage, "number above 255"),
        (b'{"img": [[1e999]]}', InvalidImage, "number above 255"),
        (b'{"img": [[0.5, 1' + b"0" * 400 + b"]]}", InvalidImage, "number above 255"),
        (b'{"img": [[1' + b"0" * 5000 + b"]]}", InvalidImage, "number above 255"),
        (b'{"img": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", InvalidImage, r"\[height\]"),
        (b'{"img": [' + b"[]," * 200_000 + b"[]]}", InvalidImage, "must be a list of pixels"),
        (b'{"img": [[[1, 2, 3]]' + b', "x"' * 200_000 + b"]}", InvalidImage, r"img\[1\] must be a list"),
        (b'{"img": [' + b"[1]," * MAX_SIDE + b"[1]]}", ImageTooLarge, "more than 65535 rows"),
        (b'{"img": [[' + b"1," * MAX_SIDE + b"1]]}", ImageTooLarge, "more than 65535 pixels in a row"),
        (b'{"img": [[[' + b"1" * 1_500_000 + b",1,1]]]}", InvalidImage, "number above 255"),
        (b'{"img": [[' + b"0.1000000000000000," * 60_000 + b"1]]}", ImageTooLarge, "exceeds 1 MiB"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else None,
)  # fmt: skip
@pytest.mark.parametrize("size", [2**16, 2**22])
def test_invalid_body_is_rejected(body, error, message, size):
    with pytest.raises(error, match=message):
        parse(body, size)


@pytest.mark.parametrize("piece", [b"007,1,1", b"1 2,3,4", b"1,,3", b"256,1,1", b"1,2,-3", b"1,2"])
def test_single_invalid_pixel_is_rejected(piece):
    row = [b"[0,10,255]"] * 997
    rows = [b"[" + b",".join(row) + b"]"] * 30
    row[500] = b"[" + piece + b"]"
    rows[20] = b"[" + b",".join(row) + b"]"
    with pytest.raises((InvalidImage, InvalidRequest), match=r"img\[20\]"):
        parse(b'{"img": [' + b",".join(rows) + b"]}")


def test_number_of_values_is_limited(monkeypatch):
    assert MAX_NUMBERS > 1920 * 1080 * 3
    monkeypatch.setattr(pixel_parser, "MAX_NUMBERS", 60_000)
    row = b"[" + b",".join([b"9"] * 6_000) + b"]"
    rows = [row] * 10
    assert parse(b'{"img": [' + b",".join(rows) + b"]}").size == (6_000, 10)
    with pytest.raises(ImageTooLarge, match="more than 60000 numbers; send it as a file"):
        parse(b'{"img": [' + b",".join([*rows, row]) + b"]}")


ROW = b"[" + b"[0,0,0]," * 1919 + b"[0,0,0]]"


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (b'{"img": [' + (ROW + b",") * 50 + ROW + b"]}", 4e6),
        (b'{"img": [' + b"[[0,0,0]]," * 10_000 + b"[[0,0,0]]]}", 1e6),
        (b'{"img": [[' + b"[0]," * 10_000 + b"[0,0]]]}", 4e6),
        (b'{"img": [' + b"[[0.5]]," * 10_000 + b"[[0]]]}", 1e6),
        (
            b'{"img": [[' + b"[]," * 2_500_000 + b"[]]]}",
            40e6,
        ),  # a row of 1 MiB is a list before it is rejected
        (b'{"img": [[[' + b"1" * 15_000_000 + b",1,1]]]}", 4e6),
        (b'{"img": [' + b" " * 15_000_000 + b"[1]]}", 5e6),
    ],
    ids=["rows", "tall", "uneven", "floats", "empty lists", "one number", "spaces"],
)
@pytest.mark.full
def test_memory_does_not_grow_with_the_body(body, limit):
    """The Python objects of a whole body take more than twice the limit, but for the uneven one."""
    tracemalloc.start()
    try:
        parse(body)
    except (InvalidImage, ImageTooLarge):
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < limit
