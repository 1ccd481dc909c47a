"""Packing of mit-b0, a model without starter weights whose hub repository has only pickled weights."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from handlers.image_classifier import ImageClassifier
from tests.unit.handlers.architectures import mit_b0
from tests.unit.handlers.classifying import assert_equal_to_transformers
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.sending import raw, send
from tests.unit.packing.conftest import LAYOUT, Bench, content_of
from tests.unit.packing.fake_hub import FakeHub
from torchserve_models.packing import read_provenance
from training.images import draw


@pytest.mark.full
def test_packed_mit_b0_predicts_as_transformers(bench: Bench, fake_hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "mit-b0"
    mit_b0(folder, depth=1, size=128)
    pickled = io.BytesIO()
    torch.save(load_file(folder / "model.safetensors"), pickled)
    content = content_of(folder)
    del content["model.safetensors"]
    fake_hub.add("nvidia/mit-b0", {**content, "pytorch_model.bin": pickled.getvalue()})
    shutil.copytree(LAYOUT.models / "mit-b0", bench.layout.models / "mit-b0")

    packed = bench.pack("mit-b0")
    assert packed.weights == "pretrained"
    provenance = read_provenance(packed.path)
    assert (provenance.source, provenance.architecture) == (
        "nvidia/mit-b0",
        "SegformerForImageClassification",
    )
    assert "none" not in provenance.prepared["openvino"]
    assert bench.pack("mit-b0").unchanged  # from the lock and the cache

    with zipfile.ZipFile(packed.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert not list((tmp_path / "unpacked").rglob("*.bin.index.json"))
    assert not (tmp_path / "unpacked" / "model" / "pytorch_model.bin").exists()
    context = FakeContext(tmp_path / "unpacked", {"handler": {"precision": "fp32", "max_batch": 1}})
    handler = ImageClassifier()
    handler.initialize(context)
    assert handler.describe()["engine"] == "openvino"
    assert handler.describe()["network"] == "archive"
    file = io.BytesIO()
    Image.fromarray(np.asarray(draw("fish", np.random.default_rng(3), (640, 480)))).save(file, "PNG")
    (answer,), _ = send(handler, context, raw(file.getvalue()))
    assert_equal_to_transformers(answer, folder, file.getvalue())


def test_pickled_repository_is_rejected_without_pickled_option(
    bench: Bench, fake_hub: FakeHub, tmp_path: Path
) -> None:
    from torchserve_models.packing import errors

    folder = tmp_path / "mit-b0"
    mit_b0(folder, depth=1, size=128)
    content = content_of(folder)
    content["pytorch_model.bin"] = content.pop("model.safetensors")
    fake_hub.add("owner/other", content)
    with pytest.raises(errors.NoSafetensors, match="--pickled"):
        bench.pack("other", source="owner/other")
    assert not fake_hub.downloads("pytorch_model.bin")
