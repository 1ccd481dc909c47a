"""Tests of decoding image files to upright RGB pixels."""

import base64
import contextlib
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
from tests.unit.handlers.vision.image_files import BLUE, GREEN, LIMIT, RED, WHITE, quarters, saved


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    height, width, _ = pixels.shape
    points = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(pixels[point]) for point in points]


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
def test_every_format_and_mode_is_decoded(kind, mode):
    source = quarters("RGB")
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(source, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        image = source.convert(mode)
    decoded = decode_image(saved(image, kind), LIMIT)
    assert (decoded.dtype, decoded.shape) == (np.uint8, (48, 64, 3))
    if mode != "LAB":  # Pillow converts LAB only approximately
        assert close(corners(decoded), corners(np.asarray(source)), 40)


def test_bytes_base64_data_url_and_pixels_give_the_same_image():
    png = saved(quarters(), "PNG")
    text = base64.b64encode(png).decode()
    wrapped = base64.encodebytes(png).decode()
    for payload in (png, text, wrapped, f"data:image/png;base64,{text}", np.asarray(quarters())):
        assert (decode_image(payload, LIMIT) == np.asarray(quarters())).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation):
    # The inverse of decoding: the pixels are stored rotated, and the tag defines the rotation to undo.
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
def test_damaged_file_of_known_signature_is_named_by_its_format(signature, kind):
    with pytest.raises(InvalidImage, match=f"the {kind} file is damaged or of an unsupported kind"):
        decode_image(signature + b"\1\2\3\4" * 5, LIMIT)


def test_one_bit_and_one_pixel_images_are_decoded():
    assert (decode_image(saved(Image.new("1", (3, 3), 1), "PNG"), LIMIT) == WHITE).all()
    assert decode_image(saved(Image.new("RGB", (1, 1), RED), "PNG"), LIMIT).tolist() == [[list(RED)]]


@pytest.mark.parametrize("tag", [0x0100, 0x0101, 0x011A])
def test_image_with_invalid_metadata_is_turned_upright(tag):
    """The EXIF data contain a text as width, length or resolution, and orientation 6."""
    entries = [(0x0112, 3, 1, 6), (tag, 2, 3, int.from_bytes(b"odd", "little"))]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", 0)
    data = saved(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    assert decode_image(data, LIMIT).shape == (40, 20, 3)


def test_jpeg_with_too_many_scans_is_rejected():
    data = saved(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        decode_image(data[:last] + data[last:-2] * 200 + data[-2:], LIMIT)


def test_scans_after_the_end_of_a_jpeg_are_ignored():
    """Motion photos have a video after the JPEG."""
    film = np.random.default_rng(0).bytes(100_000) + b"\xff\xda" * 200
    assert decode_image(saved(quarters(), "JPEG") + film, LIMIT).shape == (48, 64, 3)


def test_icons_are_rejected():
    with pytest.raises(InvalidImage, match="ICO files are not supported"):
        decode_image(icon_bomb(), 10**12)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_without_end_marker_is_read_unless_truncated(mode):
    data = saved(quarters(mode), "JPEG")
    assert (decode_image(data[:-2], LIMIT) == decode_image(data, LIMIT)).all()
    for end in range(len(data) - 40, len(data) - 2):
        with pytest.raises(InvalidImage):
            decode_image(data[:end], LIMIT)


def test_progressive_jpeg_truncated_between_scans_is_rejected():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    data = saved(noise, "JPEG", progressive=True)
    scans = [match.start() for match in re.finditer(rb"\xff\xda", data)][1:]
    assert len(scans) > 5
    for end in scans:
        with pytest.raises(InvalidImage):
            decode_image(data[:end], LIMIT)


def test_gif_with_small_first_frame_is_drawn_on_its_canvas():
    """In browsers, the area outside the frame is transparent, regardless of color 0."""
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


def test_tiff_with_tiles_larger_than_the_image_is_rejected(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match="30000 x 30000"):
        decode_image(tile_bomb(), LIMIT)


def test_file_of_too_many_bytes_is_rejected():
    with pytest.raises(ImageTooLarge, match="bytes; at most 10 are allowed"):
        decode_image(saved(quarters(), "PNG"), LIMIT, max_bytes=10)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_first_frame_of_animation_is_decoded(kind):
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
def test_file_that_is_not_an_image_is_rejected(payload):
    with pytest.raises(InvalidImage):
        decode_image(payload, LIMIT)


def test_too_large_image_is_rejected_before_decoding(monkeypatch):
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
def test_hostile_file_is_rejected_quickly(shared_data, name, error):
    with pytest.raises(error):
        decode_image((shared_data / "photos" / name).read_bytes(), 50_000_000)


def test_unusual_file_is_decoded_or_rejected(shared_data):
    """Decoding raises no exceptions except InvalidImage and ImageTooLarge."""
    decoded = 0
    for path in sorted((shared_data / "photos").glob("pil_*")):
        with contextlib.suppress(InvalidImage, ImageTooLarge):
            assert decode_image(path.read_bytes(), 50_000_000).dtype == np.uint8
            decoded += 1
    assert decoded >= 14


@pytest.mark.parametrize(("large", "together"), [(64 * 48, True), (64 * 48 - 1, False)])
def test_large_images_are_decoded_one_at_a_time(monkeypatch, large, together):
    """Two decoding threads wait for each other, and time out if they do not run at once."""
    met = []
    barrier = threading.Barrier(2)

    def meet(image, data):
        try:
            barrier.wait(5 if together else 0.2)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        return np.asarray(image)

    monkeypatch.setattr(decode, "LARGE_IMAGE_PIXELS", large)
    monkeypatch.setattr(decode, "_decode_with_pillow", meet)
    data = saved(quarters(), "PNG")
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(decode_image, [data] * 2, [LIMIT] * 2))) == 2
    assert met == [together] * 2


def test_base64_variants_are_decoded_to_the_image():
    """Base64 is bytes in form fields, over gRPC and as a raw body."""
    png = saved(quarters(), "PNG")
    text = base64.b64encode(png).decode()
    spellings = (text, text.rstrip("="), text.replace("+", "-").replace("/", "_"), f"DATA:;base64,{text}")
    for spelling in spellings:
        for payload in (spelling, spelling.encode()):
            assert (decode_image(payload, LIMIT) == decode_image(png, LIMIT)).all()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("https://example.com/photo.jpg", "a URL, and URLs are not downloaded"),
        (b"data:image/svg+xml,<svg/>", "a data URL without base64"),
        ("photo.jpg", "must be a file in base64; the text is not base64"),
        (b"photo.jpg", "the file is not in a supported image format"),
        (
            b"iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQMAAAAl PW0iAAAABlBMVEX13rOyIiJt",
            "is base64 that contains spaces",
        ),
    ],
)
def test_text_that_is_not_an_image_is_rejected(payload, words):
    with pytest.raises(InvalidImage, match=words):
        decode_image(payload, LIMIT)
