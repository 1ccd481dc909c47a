"""Bytes to an upright RGB image."""

import base64
import contextlib
import io
import re
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from handlers.core.errors import ImageTooLarge, InvalidImage
from handlers.vision import decode
from handlers.vision.decode import decode_image
from tests.bombs import icon_bomb, tile_bomb

LIMIT = 1_000_000
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(mode: str = "RGB") -> Image.Image:
    """Red and green above, blue and white below."""
    image = Image.new("RGB", (64, 48))
    for place, color in zip([(0, 0), (32, 0), (0, 24), (32, 24)], [RED, GREEN, BLUE, WHITE], strict=True):
        image.paste(color, (*place, place[0] + 32, place[1] + 24))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    height, width, _ = pixels.shape
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(pixels[place]) for place in places]


def close(left, right, tolerance=12) -> bool:
    return bool(np.abs(np.array(left, int) - np.array(right, int)).max() <= tolerance)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("GIF", "P"),
        ("WEBP", "RGB"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("MPO", "RGB"),
        ("TIFF", "YCbCr"), ("TIFF", "LAB"),
    ],
)  # fmt: skip
def test_formats_and_modes(kind, mode):
    source = quarters("RGB")
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(source, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        image = source.convert(mode)
    decoded = decode_image(saved(image, kind), LIMIT)
    assert (decoded.dtype, decoded.shape) == (np.uint8, (48, 64, 3))
    if mode != "LAB":  # Pillow's own conversion of LAB is approximate
        assert close(corners(decoded), corners(np.asarray(source)), 40)


def test_bytes_base64_data_url_and_pixels_are_one_image():
    png = saved(quarters(), "PNG")
    text = base64.b64encode(png).decode()
    wrapped = base64.encodebytes(png).decode()
    for payload in (png, text, wrapped, f"data:image/png;base64,{text}", np.asarray(quarters())):
        assert (decode_image(payload, LIMIT) == np.asarray(quarters())).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_ends_upright(orientation):
    # The inverse of what a reader does: the pixels are stored turned, and the tag says how to turn them back.
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = quarters().transpose(turn[orientation]) if orientation in turn else quarters()
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(saved(stored, "JPEG", exif=exif, quality=95, subsampling=0), LIMIT)
    assert decoded.shape == (48, 64, 3)
    assert close(corners(decoded), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_on_white(mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    decoded = decode_image(saved(image.convert(mode), "PNG"), LIMIT)
    assert tuple(decoded[1, 1]) == (0, 0, 0)
    assert tuple(decoded[6, 6]) == WHITE


def test_a_transparent_palette_color_lies_on_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert tuple(decode_image(saved(image, "PNG", transparency=0), LIMIT)[0, 0]) == WHITE


def bmp(pixels: np.ndarray) -> bytes:
    """A 32-bit BMP with a mask for alpha (BITMAPV4HEADER): `pixels` are [height, width, 4] of RGBA."""
    height, width, _ = pixels.shape
    content = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(content), 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = (header + masks).ljust(108, b"\0")
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start) + header + content


def test_a_bmp_whose_alpha_is_zero_everywhere_is_opaque():
    """Case 6."""
    pixels = np.concatenate([np.asarray(quarters()), np.zeros((48, 64, 1), np.uint8)], axis=2)
    assert (decode_image(bmp(pixels), LIMIT) == np.asarray(quarters())).all()
    pixels[:, :32, 3] = 255
    decoded = decode_image(bmp(pixels), LIMIT)
    assert (decoded[:, :32] == np.asarray(quarters())[:, :32]).all()
    assert (decoded[:, 32:] == 255).all()


def test_a_bmp_of_another_program_whose_alpha_is_zero_everywhere(shared_data):
    """Case 6."""
    data = (shared_data / "cases" / "bmp32_alpha_mask_all_zero.bmp").read_bytes()
    assert decode_image(data, LIMIT).std() > 50


def test_a_png_or_webp_that_is_all_transparent_is_white():
    for kind in ("PNG", "WEBP"):
        assert (decode_image(saved(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), kind), LIMIT) == 255).all()


@pytest.mark.parametrize(
    ("signature", "kind"),
    [
        (b"\xff\xd8\xff", "JPEG"),
        (b"GIF89a", "GIF"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"II*\0", "TIFF"),
        (b"BM", "BMP"),
    ],
)
def test_what_begins_as_a_format_that_is_read_is_called_by_it(signature, kind):
    with pytest.raises(InvalidImage, match=f"the {kind} file is damaged or of a kind that cannot be read"):
        decode_image(signature + b"\1\2\3\4" * 5, LIMIT)


def test_one_bit_and_one_pixel():
    assert (decode_image(saved(Image.new("1", (3, 3), 1), "PNG"), LIMIT) == WHITE).all()
    assert decode_image(saved(Image.new("RGB", (1, 1), RED), "PNG"), LIMIT).tolist() == [[list(RED)]]


@pytest.mark.parametrize("tag", [0x0100, 0x0101, 0x011A])
def test_odd_metadata_does_not_keep_a_image_from_being_turned(tag):
    """A width, a length or a resolution that is a text, beside orientation 6."""
    entries = [(0x0112, 3, 1, 6), (tag, 2, 3, int.from_bytes(b"odd", "little"))]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", 0)
    data = saved(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    assert decode_image(data, LIMIT).shape == (40, 20, 3)


def test_a_transparent_palette_color_stays_one_when_turned():
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(saved(image, "PNG", transparency=0, exif=exif), LIMIT)
    assert (decoded.shape, tuple(decoded[0, 0])) == ((4, 2, 3), WHITE)


def test_a_jpeg_of_endless_scans_is_refused():
    data = saved(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        decode_image(data[:last] + data[last:-2] * 200 + data[-2:], LIMIT)


def test_what_follows_a_jpeg_in_its_file_does_not_count():
    """The film of a motion photo, for example."""
    film = np.random.default_rng(0).bytes(100_000) + b"\xff\xda" * 200
    assert decode_image(saved(quarters(), "JPEG") + film, LIMIT).shape == (48, 64, 3)


def test_icons_are_no_images_of_ours():
    with pytest.raises(InvalidImage, match="ICO files cannot be read"):
        decode_image(icon_bomb(), 10**12)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_without_its_end_marker_is_read_unless_it_is_cut_off_elsewhere(mode):
    data = saved(quarters(mode), "JPEG")
    assert (decode_image(data[:-2], LIMIT) == decode_image(data, LIMIT)).all()
    for end in range(len(data) - 40, len(data) - 2):
        with pytest.raises(InvalidImage):
            decode_image(data[:end], LIMIT)


def test_a_progressive_jpeg_that_is_cut_off_between_scans_is_refused():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    data = saved(noise, "JPEG", progressive=True)
    scans = [match.start() for match in re.finditer(rb"\xff\xda", data)][1:]
    assert len(scans) > 5
    for end in scans:
        with pytest.raises(InvalidImage):
            decode_image(data[:end], LIMIT)


def test_a_gif_whose_first_frame_is_smaller_than_its_canvas():
    """What the frame leaves out is transparent in browsers, whatever color 0 is."""
    data = bytearray(saved(quarters("P"), "GIF"))
    frame = data.index(b",")
    data[6:10] = struct.pack("<HH", 80, 60)
    data[frame + 1 : frame + 5] = struct.pack("<HH", 10, 5)
    pixels = decode_image(bytes(data), LIMIT)
    assert pixels.shape == (60, 80, 3)
    assert (pixels[5:53, 10:74] == np.asarray(quarters())).all()
    pixels = pixels.copy()
    pixels[5:53, 10:74] = 255
    assert (pixels == 255).all()


def test_tiff_tiles_larger_than_the_image_are_refused(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match="30000 x 30000"):
        decode_image(tile_bomb(), LIMIT)


def test_a_file_of_too_many_bytes_is_refused():
    with pytest.raises(ImageTooLarge, match="bytes; at most 10 are allowed"):
        decode_image(saved(quarters(), "PNG"), LIMIT, max_bytes=10)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert close(decode_image(data, LIMIT)[4, 4], RED)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"this is no image", b"\xff\xd8\xff\xe0", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n", "no base64!",
        saved(quarters(), "JPEG")[:300], saved(quarters(), "PNG")[:100],
        np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2, 3), np.uint8),
        np.full((2, 2, 3), 0.5, np.float32),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(payload):
    with pytest.raises(InvalidImage):
        decode_image(payload, LIMIT)


def test_size_is_refused_before_anything_is_decoded(monkeypatch):
    bomb = saved(Image.new("1", (4000, 4000)), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match=r"4000 x 4000 pixels; at most 1000000"):
        decode_image(bomb, LIMIT)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("d_bomb_20000x20000_1bit.png", ImageTooLarge),
        ("d_header_2g_x_2g.png", (ImageTooLarge, InvalidImage)),
        ("d_empty.jpg", InvalidImage),
        ("d_text.jpg", InvalidImage),
        ("pil_broken_data_stream.png", InvalidImage),
        ("pil_truncated_image.png", InvalidImage),
        ("pil_truncated_jpeg.jpg", InvalidImage),
    ],
)
def test_hostile_files(shared_data, name, error):
    with pytest.raises(error):
        decode_image((shared_data / "photos" / name).read_bytes(), 50_000_000)


def test_odd_files_are_images_or_clear_errors(shared_data):
    """Whatever the file, nothing but our two errors comes out."""
    decoded = 0
    for path in sorted((shared_data / "photos").glob("pil_*")):
        with contextlib.suppress(InvalidImage, ImageTooLarge):
            assert decode_image(path.read_bytes(), 50_000_000).dtype == np.uint8
            decoded += 1
    assert decoded >= 14


@pytest.mark.parametrize(("large", "together"), [(64 * 48, True), (64 * 48 - 1, False)])
def test_large_images_are_decoded_one_at_a_time(monkeypatch, large, together):
    """Two threads meet while they decode, or wait in vain."""
    met = []
    barrier = threading.Barrier(2)

    def meet(image, data):
        try:
            barrier.wait(5 if together else 0.2)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        return np.asarray(image)

    monkeypatch.setattr(decode, "LARGE", large)
    monkeypatch.setattr(decode, "_by_pillow", meet)
    data = saved(quarters(), "PNG")
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(decode_image, [data] * 2, [LIMIT] * 2))) == 2
    assert met == [together] * 2


def test_base64_in_its_spellings_and_as_bytes():
    """Case 2, for images: in a form's field, over gRPC and as a raw body, base64 comes as bytes."""
    png = saved(quarters(), "PNG")
    text = base64.b64encode(png).decode()
    spellings = (text, text.rstrip("="), text.replace("+", "-").replace("/", "_"), f"DATA:;base64,{text}")
    for spelling in spellings:
        for payload in (spelling, spelling.encode()):
            assert (decode_image(payload, LIMIT) == decode_image(png, LIMIT)).all()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("https://example.com/photo.jpg", "an address, which is not fetched"),
        (b"data:image/svg+xml,<svg/>", "a data URL that is not in base64"),
        ("photo.jpg", "must be a file in base64; this one is not base64"),
        (b"photo.jpg", "not an image that can be read"),
        (b"iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQMAAAAl PW0iAAAABlBMVEX13rOyIiJt", "is base64 with spaces in it"),
    ],
)
def test_text_that_is_no_image_is_named(payload, words):
    with pytest.raises(InvalidImage, match=words):
        decode_image(payload, LIMIT)
