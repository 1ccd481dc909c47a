"""The network of full size answers as the small one that it was made of."""

import io

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from benchmarks import images, weights
from torchserve_models.packing.models import LAYOUT


def test_it_has_the_size_of_resnet_50_and_the_starters_answers(tmp_path):
    folder = weights.full_size(tmp_path / "model")
    processor = AutoImageProcessor.from_pretrained(folder)
    large = AutoModelForImageClassification.from_pretrained(folder).eval()
    small = AutoModelForImageClassification.from_pretrained(LAYOUT.starter("resnet-50")).eval()
    assert sum(parameter.numel() for parameter in large.parameters()) == 25_557_032
    photos = [Image.open(io.BytesIO(images.photo(images.SENT_SEED, index))) for index in range(4)]
    with torch.inference_mode():
        inputs = processor(images=photos, return_tensors="pt")
        wide, thin = large(**inputs).logits, small(**inputs).logits
    assert torch.allclose(wide[:, :13], thin, atol=0.2)
    assert wide.argmax(1).tolist() == thin.argmax(1).tolist()
    labels = large.config.id2label.values()
    assert len(set(labels)) == 1000
    assert all(label.count(weights.MARKER) == 1 for label in labels)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    weights.full_size(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written  # made once
