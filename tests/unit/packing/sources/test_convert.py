"""Weights whose shapes or names depend on more than the architecture: what a conversion makes of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import get_model, vision_transformer
from transformers import AutoModelForSeq2SeqLM

from handlers.engines.loading import load_network
from handlers.engines.torchvision_network import load
from handlers.vision.plan import Plan
from tests.unit.handlers.text.tiny import write_pegasus
from torchserve_models.packing.sources import convert

LABELS = ["cat", "dog", "a heart"]


@pytest.fixture
def _small_vits(monkeypatch: pytest.MonkeyPatch) -> None:
    """vit_* by their own names, of one narrow layer."""
    whole = vision_transformer._vision_transformer

    def small(**options: Any) -> torch.nn.Module:
        narrow = {"num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8}
        made: torch.nn.Module = whole(**options | narrow)
        return made

    monkeypatch.setattr(vision_transformer, "_vision_transformer", small)


def converted(
    folder: Path, trained: str, size: int, architecture: str = "", transforms: str | None = None
) -> str:
    """What is said of the transforms of a network that was `trained` at `size`."""
    network = get_model(trained, weights=None, num_classes=len(LABELS), image_size=size)
    torch.save(network.state_dict(), folder / "vit.pth")
    said = convert._torchvision(
        architecture or trained, folder / "vit.pth", LABELS, folder / "model", transforms
    )
    return str(said["transforms"])


@pytest.mark.parametrize(
    ("architecture", "size", "name", "others"),
    [
        ("vit_b_16", 224, "IMAGENET1K_V1", "IMAGENET1K_SWAG_LINEAR_V1"),
        ("vit_b_16", 384, "IMAGENET1K_SWAG_E2E_V1", ""),
        ("vit_h_14", 518, "IMAGENET1K_SWAG_E2E_V1", ""),
        ("vit_h_14", 224, "IMAGENET1K_SWAG_LINEAR_V1", ""),
    ],
)
@pytest.mark.usefixtures("_small_vits")
def test_a_vit_gets_images_of_its_own_size(
    tmp_path: Path, architecture: str, size: int, name: str, others: str
) -> None:
    hint = f" (--transforms {others} for another)" if others else ""
    said = converted(tmp_path, architecture, size)
    assert said.endswith(f"the middle {size}, as torchvision's {name} wants it{hint}")
    assert Plan.read(tmp_path / "model" / "preprocess.json").crop == (size, size)
    with torch.inference_mode():
        answer = load(tmp_path / "model", torch.float32)(torch.zeros(1, 3, size, size))
    assert answer.logits.shape == (1, len(LABELS))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("vit_b_32", 64), "for images of 64 x 64, and the transforms of IMAGENET1K_V1 cut out 224 x 224"),
        (("vit_b_32", 64), "torchvision has none for 64"),
        (("vit_b_16", 384, "", "IMAGENET1K_V1"), "--transforms IMAGENET1K_SWAG_E2E_V1 for 384"),
        (("vit_h_14", 518, "vit_b_16"), "does not fit torchvision's vit_b_16: Input shape indivisible"),
        (("vit_b_32", 224, "vit_b_16"), "does not fit torchvision's vit_b_16: size mismatch"),
        (("vit_b_32", 224, "resnet18"), "does not fit torchvision's resnet18: Missing key"),
    ],
)
@pytest.mark.usefixtures("_small_vits")
def test_a_vit_that_fits_no_architecture_or_no_transforms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(SystemExit):
        converted(tmp_path, *arguments)
    assert words in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_positions_by_formula_may_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """google/pegasus-xsum's file has none."""
    folder = write_pegasus(tmp_path / "pegasus")
    whole = load_network(AutoModelForSeq2SeqLM, folder, torch.float32).state_dict()
    stored = load_file(folder / "model.safetensors")
    tensors = {name: value for name, value in stored.items() if "embed_positions" not in name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    loaded = load_network(AutoModelForSeq2SeqLM, folder, torch.float32).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in whole.items())

    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    convert._transformers("AutoModelForSeq2SeqLM", folder, tmp_path / "target")
    loaded = load_network(AutoModelForSeq2SeqLM, tmp_path / "target", torch.float32).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in whole.items())

    del tensors["model.encoder.layer_norm.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(SystemExit):
        convert._transformers("AutoModelForSeq2SeqLM", folder, tmp_path / "again")
    assert "1 are missing, model.encoder.layer_norm.weight first" in capsys.readouterr().err
