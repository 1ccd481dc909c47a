"""The JPEGs that are sent."""

import io

import pytest
from PIL import Image

from benchmarks import images
from benchmarks.errors import BenchError
from tests.conftest import ROOT


def test_drawn_images_are_photos_in_size_and_weight_and_always_the_same():
    drawn = images.sent(None)
    assert len(set(drawn)) == len(drawn) >= 16
    assert drawn[3] == images.photo(images.SENT_SEED, 3)
    assert images.photo(images.AGREEMENT_SEED, 3) != drawn[3]
    assert all(25_000 < len(image) < 250_000 for image in drawn)
    for image, size in zip(drawn, images.SIZES * 2, strict=True):
        image = Image.open(io.BytesIO(image))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)


def test_ones_own_images_are_taken_as_they_are(tmp_path):
    (tmp_path / "b.JPG").write_bytes(b"two")
    (tmp_path / "a.jpeg").write_bytes(b"one")
    (tmp_path / "notes.txt").write_text("no")
    assert images.sent(tmp_path) == [b"one", b"two"]
    with pytest.raises(BenchError, match=r"no \.jpg"):
        images.sent(ROOT / "docs")
