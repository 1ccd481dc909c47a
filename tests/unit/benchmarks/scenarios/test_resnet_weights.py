"""The full-size network: its size, and labels equal to those of the starter network."""

import io

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from benchmarks.scenarios import images, resnet_weights
from torchserve_models.packing.models import LAYOUT


def test_network_has_the_size_of_resnet_50_and_the_answers_of_the_starter(tmp_path):
    folder = resnet_weights.write_resnet(tmp_path / "model")
    processor = AutoImageProcessor.from_pretrained(folder)
    large = AutoModelForImageClassification.from_pretrained(folder).eval()
    small = AutoModelForImageClassification.from_pretrained(LAYOUT.starter("resnet-50")).eval()
    assert sum(parameter.numel() for parameter in large.parameters()) == 25_557_032
    photos = [Image.open(io.BytesIO(images.draw_photo(images.REQUEST_SEED, index))) for index in range(4)]
    with torch.inference_mode():
        inputs = processor(images=photos, return_tensors="pt")
        wide, narrow = large(**inputs).logits, small(**inputs).logits
    assert torch.allclose(wide[:, :13], narrow, atol=0.2)
    assert wide.argmax(1).tolist() == narrow.argmax(1).tolist()
    labels = large.config.id2label.values()
    assert len(set(labels)) == 1000
    assert all(label.count(resnet_weights.LABEL_MARKER) == 1 for label in labels)
    modified = (folder / "model.safetensors").stat().st_mtime_ns
    resnet_weights.write_resnet(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == modified  # written once
