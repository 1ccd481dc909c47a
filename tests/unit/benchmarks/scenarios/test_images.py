"""The JPEG images of requests."""

import io

from PIL import Image

from benchmarks.scenarios import images


def test_drawn_images_are_like_photos_and_repeatable():
    drawn = images.load_images(None)
    assert len(set(drawn)) == len(drawn) == 16
    assert (
        drawn[3] == images.draw_photo(images.REQUEST_SEED, 3) != images.draw_photo(images.AGREEMENT_SEED, 3)
    )
    assert all(25_000 < len(data) < 250_000 for data in drawn)
    for data, size in zip(drawn, images.SIZES * 2, strict=True):
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)


def test_images_of_a_folder_are_sent_unchanged(tmp_path):
    (tmp_path / "b.JPG").write_bytes(b"two")
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / "a.jpeg").write_bytes(b"one")
    assert images.load_images(tmp_path) == (b"one", b"two")
