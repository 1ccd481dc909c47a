"""Selection of the images that int8 is calibrated with."""

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


def test_images_are_selected_from_all_subfolders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_images, "MAX_IMAGES", 4)
    for label in ("ant", "bee", "cat", "dog"):
        for number in range(3):
            image(tmp_path / label / f"{number}.JPEG")
    (tmp_path / "labels.txt").write_text("ant\n")
    selected = calibration_images.select_images(tmp_path, lambda _: None)
    assert [path.parent.name for path in selected.paths] == ["ant", "bee", "cat", "dog"]
    assert selected.count == 4


def test_digest_depends_on_contents_only(tmp_path: Path) -> None:
    first, second, third = (
        calibration_images.select_images(image(tmp_path / name, shade).parent, lambda _: None).sha256
        for name, shade in (("a/x.png", 1), ("b/y.png", 1), ("c/x.png", 2))
    )
    assert first == second != third


def test_unreadable_image_is_skipped_and_reported(tmp_path: Path) -> None:
    readable = image(tmp_path / "readable.jpg")
    (tmp_path / "cut.jpg").write_bytes(readable.read_bytes()[:-200])
    (tmp_path / "text.png").write_text("no image")
    messages: list[str] = []
    assert calibration_images.select_images(tmp_path, messages.append).paths == (readable,)
    assert "2 of 3 images cannot be read" in messages[0]
    assert "only 1 images; int8 is more accurate with 100 to 300" in messages[1]


def test_recommended_number_of_images_causes_no_warning(tmp_path: Path) -> None:
    for number in range(calibration_images.RECOMMENDED_IMAGES):
        image(tmp_path / f"{number}.png", number)
    messages: list[str] = []
    assert (
        calibration_images.select_images(tmp_path, messages.append).count
        == calibration_images.RECOMMENDED_IMAGES
    )
    assert messages == []


def test_missing_folder_is_rejected(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", image(tmp_path / "file.png")):
        with pytest.raises(errors.InvalidOptions, match="does not exist"):
            calibration_images.select_images(path, lambda _: None)


def test_folder_without_images_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(errors.InvalidOptions, match="contains no readable images"):
        calibration_images.select_images(tmp_path, lambda _: None)


def test_limits_equal_those_of_the_classifier() -> None:
    from handlers.vision.types import VisionConfig

    limits = VisionConfig()
    assert (limits.max_pixels, limits.max_bytes) == (
        calibration_images.MAX_PIXELS,
        calibration_images.MAX_BYTES,
    )


def test_selection_does_not_import_torch(tmp_path: Path) -> None:
    image(tmp_path / "x.png")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from torchserve_models.packing.artifacts.calibration_images import select_images\n"
        f"select_images(Path({str(tmp_path)!r}), print)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
