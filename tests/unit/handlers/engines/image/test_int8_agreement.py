"""The stored images with which workers verify an int8 network."""

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from handlers.engines.base import PREPARED_DIR
from handlers.engines.image.int8_agreement import (
    CHECK_FILE,
    SMALL_BATCH,
    CheckImages,
    read_check_images,
    write_check_images,
)


class MeanClassifier:
    """An engine whose label is the level of the image's pixels, except for some levels or batch sizes."""

    name = "mean"

    def __init__(self, wrong_sizes=(), wrong_levels=()):
        self.sizes, self._wrong_sizes, self._wrong_levels = [], wrong_sizes, wrong_levels

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        levels = batch[:, 0, 0, 0].long()
        wrong = torch.isin(levels, torch.tensor(self._wrong_levels, dtype=torch.int64))
        levels = levels + (wrong | (len(batch) in self._wrong_sizes))
        return torch.nn.functional.one_hot(levels, 10).float()


def check_images(count: int) -> CheckImages:
    labels = torch.arange(count)
    return CheckImages(labels.to(torch.uint8)[:, None, None, None].expand(count, 2, 2, 3), labels)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_all_images_are_labeled_singly_and_some_in_a_batch(count):
    engine = MeanClassifier()
    assert check_images(count).count_differences(engine) == 0
    batch = min(count, SMALL_BATCH)
    assert engine.sizes == [1] * count + [batch]
    assert check_images(count).count_differences(MeanClassifier(wrong_sizes=[1])) == count
    assert check_images(count).count_differences(MeanClassifier(wrong_sizes=[batch])) == batch


def test_an_image_that_differs_in_both_runs_counts_once():
    assert check_images(8).count_differences(MeanClassifier(wrong_levels=[0, 7])) == 2


def test_stored_images_are_read_back_and_reproducible(tmp_path):
    assert read_check_images(tmp_path) is None
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        (folder / PREPARED_DIR).mkdir(parents=True)
        write_check_images(folder / PREPARED_DIR, check_images(3))
        contents.append((folder / PREPARED_DIR / CHECK_FILE).read_bytes())
    assert contents[0] == contents[1]
    (tmp_path / "other").touch()
    assert (folder / PREPARED_DIR / CHECK_FILE).stat().st_mode == (tmp_path / "other").stat().st_mode
    check = read_check_images(tmp_path / "one")
    assert check is not None
    assert torch.equal(check.pixels, check_images(3).pixels)
    assert check.labels.tolist() == [0, 1, 2]


def test_file_without_images_is_read_back(tmp_path):
    (tmp_path / PREPARED_DIR).mkdir()
    write_check_images(tmp_path / PREPARED_DIR, check_images(0))
    check = read_check_images(tmp_path)
    assert check is not None
    assert len(check.labels) == len(check.pixels) == 0


def test_damaged_file_is_an_error(tmp_path):
    path = tmp_path / PREPARED_DIR / CHECK_FILE
    path.parent.mkdir()
    write_check_images(path.parent, check_images(3))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SafetensorError):
        read_check_images(tmp_path)
    save_file({"pixels": check_images(3).pixels.contiguous(), "labels": torch.arange(1)}, path)
    with pytest.raises(ValueError, match=r"has 3 images, but labels of shape \[1\]"):
        read_check_images(tmp_path)
