"""Packing of torchvision state dicts: converted models and rejected files."""

import json
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model, get_model_weights

from handlers.engines.image.torchvision_network import build, fill, load
from tests.unit.packing.conftest import Bench
from torchserve_models.packing import errors, read_provenance
from torchserve_models.packing.request import StateDict
from torchserve_models.packing.sources import convert
from training.images import draw

ARCHITECTURE = "shufflenet_v2_x0_5"
LABELS = ["cat", "dog", "a heart"]


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = get_model(ARCHITECTURE, weights=None, num_classes=len(LABELS))
    return network.eval()


@pytest.fixture
def weights(network: torch.nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "trained.pth"
    torch.save(network.state_dict(), path)
    return path


Convert = Callable[..., str]


@pytest.fixture
def converted(tmp_path: Path) -> Convert:
    """Run the conversion in this process; return the description of the transforms."""

    def run(
        file: Path,
        architecture: str = ARCHITECTURE,
        labels: list[str] = LABELS,
        transforms: str | None = None,
    ) -> str:
        result = convert._torchvision(architecture, file, labels, tmp_path / "model", transforms)
        return str(result["transforms"])

    return run


@pytest.fixture
def refused(converted: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Convert:
    """Run a conversion that fails; return its error message."""

    def run(file: Path, *arguments: Any, **options: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            converted(file, *arguments, **options)
        assert ended.value.code == 3
        assert not (tmp_path / "model").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return str(line)

    return run


@pytest.mark.full
def test_state_dict_is_packed_and_predicts_as_torchvision(
    bench: Bench, weights: Path, tmp_path: Path, network: torch.nn.Module
) -> None:
    (bench.layout.models / "shuffle").mkdir()
    (bench.layout.models / "shuffle" / "model-config.yaml").write_text("handler:\n  engine: torch\n")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    state_dict = StateDict(weights, tmp_path / "labels.txt")
    packed = bench.pack("shuffle", source=f"torchvision:{ARCHITECTURE}", state_dict=state_dict)
    assert packed.version.startswith("state-dict-")
    provenance = read_provenance(packed.path)
    assert provenance.architecture == provenance.source == f"torchvision:{ARCHITECTURE}"
    assert provenance.revision is not None
    assert provenance.revision.startswith("sha256:")
    assert "bilinear to 256, then center-cropped to 224" in bench.messages[-1]
    assert bench.pack("shuffle", source=f"torchvision:{ARCHITECTURE}", state_dict=state_dict).unchanged
    with zipfile.ZipFile(packed.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    image = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        logits = load(tmp_path / "unpacked" / "model", torch.float32)(image).logits
        assert torch.allclose(logits, network(image), atol=1e-5)
    config = json.loads((tmp_path / "unpacked" / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "dog", "2": "a heart"}


@pytest.mark.parametrize("form", ["safetensors", "parallel", "checkpoint", "averaged"])
def test_wrapped_state_dicts_are_unwrapped(
    converted: Convert, network: torch.nn.Module, tmp_path: Path, form: str
) -> None:
    state = network.state_dict()
    prefixed = OrderedDict((f"module.{name}", value) for name, value in state.items())
    path = tmp_path / ("any.safetensors" if form == "safetensors" else "any.pt")
    if form == "safetensors":
        save_file(state, path)
    else:
        content = {
            "parallel": prefixed,
            "checkpoint": {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
            "averaged": {"model": {"n_averaged": torch.tensor(7), **prefixed}},
        }
        torch.save(content[form], path)
    converted(path)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(load(tmp_path / "model", torch.float32)(image).logits, network(image))


def test_wrong_number_of_labels_is_rejected(refused: Convert, weights: Path) -> None:
    assert "has 3 classes (fc.weight, fc.bias), but --labels has 2 labels" in refused(
        weights, labels=["a", "b"]
    )


def test_weights_of_another_network_are_rejected(refused: Convert, weights: Path) -> None:
    message = refused(weights, "squeezenet1_1")
    assert "does not fit torchvision's squeezenet1_1: Missing key(s)" in message
    assert "size mismatch" in refused(weights, "shufflenet_v2_x1_0")


def test_unknown_architecture_is_rejected(refused: Convert, weights: Path) -> None:
    for name in ("resnet51", "fasterrcnn_resnet50_fpn", "quantized_mobilenet_v2"):
        message = refused(weights, name)
        assert f"no classifier '{name}'" in message
        assert "mobilenet_v2" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.nn.Linear(2, 2), "requires running code from it"),
        ({"model": {"a": torch.zeros(1)}, "arguments": Namespace(lr=1)}, "requires running code from it"),
        ({"accuracy": 0.7}, "no state dict"),
        ({}, "no state dict"),
        ([torch.zeros(1)], "no state dict"),
    ],
    ids=["a whole model", "with objects", "numbers", "empty", "a list"],
)
def test_file_without_state_dict_is_rejected(
    refused: Convert, tmp_path: Path, content: object, words: str
) -> None:
    torch.save(content, tmp_path / "any.pth")
    assert words in refused(tmp_path / "any.pth")


@pytest.mark.parametrize("name", ["any.pth", "any.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_damaged_files_are_rejected(refused: Convert, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refused(tmp_path / name)


def test_code_in_a_pickle_is_not_run(refused: Convert, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"a": Evil()}, tmp_path / "any.pth")
    assert "requires running code from it" in refused(tmp_path / "any.pth")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("mobilenet_v2", "IMAGENET1K_V1"),
        ("mobilenet_v2", "IMAGENET1K_V2"),
        ("efficientnet_b1", "IMAGENET1K_V2"),
        ("efficientnet_v2_l", "IMAGENET1K_V1"),
        ("inception_v3", "IMAGENET1K_V1"),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"),
        ("swin_s", "IMAGENET1K_V1"),
    ],
)
def test_pixels_match_torchvisions_transforms(architecture: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "any.pth").write_bytes(b"")
    enum = get_model_weights(architecture)
    plan, description = convert._preprocessing(enum, tmp_path / "any.pth", name)
    assert name in description
    scale, mean, std = plan.normalization
    for size in ((640, 480), (333, 501), (235, 237), (90, 61), (1201, 160)):
        image = draw("fish", np.random.default_rng(size), size)
        expected = enum[name].transforms()(image)
        levels = (expected.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) / scale
        converted = plan(np.array(image))
        assert converted.shape == levels.shape
        # torchvision resizes an image with Pillow, whose two passes round by themselves: see MOST_OFF
        assert (converted - levels).abs().max() < 2.01
        assert (converted - levels).abs().mean() < 0.05


def test_crop_offset_is_rounded_as_in_torchvision(tmp_path: Path) -> None:
    """Without a resize, the pixels are exactly equal."""
    (tmp_path / "any.pth").write_bytes(b"")
    enum = get_model_weights("mobilenet_v2")
    plan, _ = convert._preprocessing(enum, tmp_path / "any.pth", "IMAGENET1K_V2")
    scale, mean, std = plan.normalization
    for width in range(232, 240):
        image = np.random.default_rng(width).integers(0, 256, (232, width, 3), np.uint8)
        expected = enum["IMAGENET1K_V2"].transforms()(Image.fromarray(image))
        levels = (expected.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) / scale
        assert (plan(image) - levels).abs().max() < 0.01, width


def test_transforms_are_those_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of torchvision is recognized by its digest; for other files, the first transforms are used."""
    enum = get_model_weights("mobilenet_v2")
    path = tmp_path / "any.pth"
    path.write_bytes(b"")
    first, description = convert._preprocessing(enum, path, None)
    assert first.resize == 256
    assert "--transforms IMAGENET1K_V2" in description
    monkeypatch.setattr(
        convert.hashlib, "file_digest", lambda *_: Namespace(hexdigest=lambda: "7ebf99e0" + "0" * 56)
    )
    second, description = convert._preprocessing(enum, path, None)  # mobilenet_v2-7ebf99e0.pth
    assert second.resize == 232
    assert "--transforms" not in description


def test_unknown_transforms_are_rejected(refused: Convert, weights: Path) -> None:
    message = refused(weights, transforms="IMAGENET1K_V9")
    assert "with this architecture. Allowed: IMAGENET1K_V1" in message


def test_legacy_names_and_training_layers_are_handled() -> None:
    """Weights of densenet have legacy names; those of inception and googlenet have heads used only in training."""
    assert convert._OLD_DENSENET.sub(r"\1\2", "features.denseblock1.denselayer1.norm.1.weight") == (
        "features.denseblock1.denselayer1.norm1.weight"
    )
    torch.manual_seed(0)
    trained = get_model(
        "googlenet", weights=None, num_classes=3, init_weights=False, transform_input=True
    ).eval()
    state = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}
    network = build("googlenet", 3).eval()
    fill(network, state)
    image = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(network(image), trained(image))


def test_contradictory_options_are_rejected(bench: Bench, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    state_dict = StateDict(weights, tmp_path / "labels.txt")
    with pytest.raises(errors.InvalidOptions, match="requires --state-dict FILE"):
        bench.pack("net", source="torchvision:resnet18")
    with pytest.raises(errors.InvalidOptions, match="require --from torchvision"):
        bench.pack("net", source="owner/name", state_dict=state_dict)
    with pytest.raises(errors.InvalidOptions, match="--update"):
        bench.pack("net", source=f"torchvision:{ARCHITECTURE}", state_dict=state_dict, update=True)
    with pytest.raises(errors.InvalidSource, match=r"nothing\.pth does not exist"):
        bench.pack(
            "net", source="torchvision:resnet18", state_dict=StateDict(tmp_path / "nothing.pth", weights)
        )


@pytest.mark.full
def test_rejection_by_the_process_is_a_packing_error(bench: Bench, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    state_dict = StateDict(weights, tmp_path / "labels.txt")
    with pytest.raises(errors.InvalidSource, match=r"has 3 classes .* 2 labels"):
        bench.pack("net", source=f"torchvision:{ARCHITECTURE}", state_dict=state_dict)
    assert not bench.store.exists()
