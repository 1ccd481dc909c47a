"""Which images of a folder int8 is calibrated with."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.packing.conftest import ROOT
from torchserve_models.packing import errors
from torchserve_models.packing.artifacts import calibration_images


def image(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 32), (shade, 100, 200)).save(path)
    return path


def test_they_come_from_all_over_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for each label is usual, and the first of them alone would be one label."""
    monkeypatch.setattr(calibration_images, "MAX_IMAGES", 4)
    for label in ("ant", "bee", "cat", "dog"):
        for number in range(3):
            image(tmp_path / label / f"{number}.JPEG")
    (tmp_path / "labels.txt").write_text("ant\n")
    chosen = calibration_images.choose(tmp_path, lambda _: None)
    assert [path.parent.name for path in chosen.paths] == ["ant", "bee", "cat", "dog"]
    assert chosen.count == 4


def test_the_digest_is_of_the_contents(tmp_path: Path) -> None:
    first, second, third = (
        calibration_images.choose(image(tmp_path / name, shade).parent, lambda _: None).sha256
        for name, shade in (("a/x.png", 1), ("b/y.png", 1), ("c/x.png", 2))
    )
    assert first == second != third


def test_what_cannot_be_read_is_left_out_and_said(tmp_path: Path) -> None:
    whole = image(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "text.png").write_text("no image")
    said: list[str] = []
    assert calibration_images.choose(tmp_path, said.append).paths == (whole,)
    assert "2 of 3 images cannot be read" in said[0]
    assert "more exact with 100 to 300 images than with 1" in said[1]


def test_enough_images_need_no_words(tmp_path: Path) -> None:
    for number in range(calibration_images.RECOMMENDED_IMAGES):
        image(tmp_path / f"{number}.png", number)
    said: list[str] = []
    assert calibration_images.choose(tmp_path, said.append).count == calibration_images.RECOMMENDED_IMAGES
    assert said == []


def test_no_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", image(tmp_path / "file.png")):
        with pytest.raises(errors.BadRequest, match="There is no folder"):
            calibration_images.choose(path, lambda _: None)


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(errors.BadRequest, match="no image that can be read"):
        calibration_images.choose(tmp_path, lambda _: None)


def test_the_limits_are_the_classifiers() -> None:
    from handlers.vision.types import VisionConfig

    limits = VisionConfig()
    assert (limits.max_pixels, limits.max_bytes) == (
        calibration_images.MAX_PIXELS,
        calibration_images.MAX_BYTES,
    )


def test_torch_is_not_imported(tmp_path: Path) -> None:
    image(tmp_path / "x.png")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from torchserve_models.packing.artifacts.calibration_images import choose\n"
        f"choose(Path({str(tmp_path)!r}), print)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
