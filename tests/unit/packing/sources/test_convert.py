"""Conversion of vision transformers for several image sizes and of weights without position embeddings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import get_model, vision_transformer
from transformers import AutoModelForSeq2SeqLM

from handlers.engines.image.torchvision_network import load
from handlers.engines.loading import load_network
from handlers.vision.preprocessing_plan import PreprocessingPlan
from tests.unit.handlers.text.tiny import write_pegasus
from torchserve_models.packing.sources import convert

LABELS = ["cat", "dog", "a heart"]


@pytest.fixture
def _small_vits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the vit_* networks of torchvision with narrow ones of one layer."""
    build_full_network = vision_transformer._vision_transformer

    def small(**options: Any) -> torch.nn.Module:
        narrow = {"num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8}
        network: torch.nn.Module = build_full_network(**options | narrow)
        return network

    monkeypatch.setattr(vision_transformer, "_vision_transformer", small)


def converted(
    folder: Path, trained: str, size: int, architecture: str = "", transforms: str | None = None
) -> str:
    """Convert a network trained at `size` and return the description of its transforms."""
    network = get_model(trained, weights=None, num_classes=len(LABELS), image_size=size)
    torch.save(network.state_dict(), folder / "vit.pth")
    result = convert._torchvision(
        architecture or trained, folder / "vit.pth", LABELS, folder / "model", transforms
    )
    return str(result["transforms"])


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
def test_vit_transforms_match_its_image_size(
    tmp_path: Path, architecture: str, size: int, name: str, others: str
) -> None:
    hint = f" (alternatives: --transforms {others})" if others else ""
    description = converted(tmp_path, architecture, size)
    assert description.endswith(f"center-cropped to {size}, as for torchvision's {name}{hint}")
    assert PreprocessingPlan.read(tmp_path / "model" / "preprocess.json").crop == (size, size)
    with torch.inference_mode():
        answer = load(tmp_path / "model", torch.float32)(torch.zeros(1, 3, size, size))
    assert answer.logits.shape == (1, len(LABELS))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("vit_b_32", 64),
            "requires images of 64 x 64, but the transforms of IMAGENET1K_V1 crop to 224 x 224",
        ),
        (("vit_b_32", 64), "Transforms for 64: none in torchvision"),
        (("vit_b_16", 384, "", "IMAGENET1K_V1"), "Transforms for 384: --transforms IMAGENET1K_SWAG_E2E_V1"),
        (("vit_h_14", 518, "vit_b_16"), "does not fit torchvision's vit_b_16: Input shape indivisible"),
        (("vit_b_32", 224, "vit_b_16"), "does not fit torchvision's vit_b_16: size mismatch"),
        (("vit_b_32", 224, "resnet18"), "does not fit torchvision's resnet18: Missing key"),
    ],
)
@pytest.mark.usefixtures("_small_vits")
def test_vit_without_matching_architecture_or_transforms_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(SystemExit):
        converted(tmp_path, *arguments)
    assert words in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_computed_position_embeddings_may_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of google/pegasus-xsum have no position embeddings."""
    folder = write_pegasus(tmp_path / "pegasus")
    full_state = load_network(AutoModelForSeq2SeqLM, folder, torch.float32).state_dict()
    stored = load_file(folder / "model.safetensors")
    tensors = {name: value for name, value in stored.items() if "embed_positions" not in name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    loaded = load_network(AutoModelForSeq2SeqLM, folder, torch.float32).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in full_state.items())

    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    convert._transformers("AutoModelForSeq2SeqLM", folder, tmp_path / "target")
    loaded = load_network(AutoModelForSeq2SeqLM, tmp_path / "target", torch.float32).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in full_state.items())

    del tensors["model.encoder.layer_norm.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(SystemExit):
        convert._transformers("AutoModelForSeq2SeqLM", folder, tmp_path / "again")
    assert "are missing (1 in total), such as model.encoder.layer_norm.weight" in capsys.readouterr().err
