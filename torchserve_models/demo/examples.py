"""The sample inputs of the pages."""

import shutil
from pathlib import Path

from torchserve_models.sample_inputs import IMAGES, REPORTS


def images(folder: Path) -> list[tuple[str, Path]]:
    """Copy the sample images into `folder`, and return the label and the new path of each."""
    return [(label, Path(shutil.copyfile(path, folder / path.name))) for label, path in IMAGES.items()]


def reports() -> list[str]:
    """Return the texts of the sample reports."""
    return [path.read_text("utf-8").rstrip("\n") for path in REPORTS]
