"""The agreement of a model in int8 with the same model in fp32: the share of images with the same best label.

Packing measures it on the calibration images. It stores a few of these images and their labels, so that workers can
verify the network on their own CPU, whose int8 instructions may differ.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from handlers.engines.base import FACTS_FILE, PREPARED_DIR, Engine

INT8_GRAPH = "openvino-int8.xml"
"""The model in int8, in the folder of prepared files."""

CHECK_FILE = "int8-check.safetensors"
"""Stored images: `pixels`, a batch in the format of the engines, and `labels`, their labels in fp32, int64 [n].

The file has no images if none of the calibration images is suitable.
"""

MIN_AGREEMENT = 0.98
"""The minimum share of images with the same label in int8 and fp32 for `precision: auto` to select int8.

If the first quantization is below it, packing quantizes again with a more precise setting.
"""

SMALL_BATCH = 4
"""The number of images of a small batch, whose kernels may differ from those for a single image."""


@dataclass(frozen=True)
class CheckImages:
    """Images that packing stored, all of which the model labeled in int8 as in fp32.

    Attributes:
        pixels: A batch of n images in the format of the engines.
        labels: Their labels in fp32, int64 [n].
    """

    pixels: torch.Tensor
    labels: torch.Tensor

    def count_differences(self, engine: Engine[torch.Tensor, torch.Tensor]) -> int:
        """Return the number of images to which an engine gives another label than fp32.

        Each image is labeled singly, and the first SMALL_BATCH images also in a batch.
        """
        singles = [engine.run(self.pixels[i : i + 1]).argmax(1) for i in range(len(self.pixels))]
        different = torch.cat(singles) != self.labels
        small = slice(min(SMALL_BATCH, len(self.pixels)))
        different[small] |= engine.run(self.pixels[small]).argmax(1) != self.labels[small]
        return int(different.sum())


def has_int8(folder: Path) -> bool:
    """Return whether packing prepared an int8 network for the model in `folder`."""
    return (folder / PREPARED_DIR / INT8_GRAPH).exists()


def read_int8_facts(folder: Path) -> dict[str, Any]:
    """Return packing's facts about the int8 network: its `agreement` (0 to 1) on a number of `images`, and more."""
    facts: dict[str, Any] = json.loads((folder / PREPARED_DIR / FACTS_FILE).read_text())
    int8: dict[str, Any] = facts["openvino"]["int8"]
    return int8


def write_check_images(prepared: Path, check: CheckImages) -> None:
    """Write the images to the folder of prepared files. The same images produce the same bytes."""
    from safetensors.torch import save

    tensors = {"pixels": check.pixels.contiguous(), "labels": check.labels.contiguous()}
    (prepared / CHECK_FILE).write_bytes(save(tensors))  # save_file would let only the owner read it


def read_check_images(folder: Path) -> CheckImages | None:
    """Return the stored images of a model, or None for archives of earlier versions, which have no such file.

    Raises:
        SafetensorError: The file is damaged.
        KeyError: The file has no pixels or no labels.
        ValueError: The number of labels is not that of the images.
    """
    path = folder / PREPARED_DIR / CHECK_FILE
    if not path.exists():
        return None
    from safetensors.torch import load_file

    tensors = load_file(path)
    check = CheckImages(tensors["pixels"], tensors["labels"])
    if check.labels.shape != (len(check.pixels),):
        raise ValueError(
            f"{CHECK_FILE} has {len(check.pixels)} images, but labels of shape {[*check.labels.shape]}"
        )
    return check
