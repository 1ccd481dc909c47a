"""A model of models/ without a starter, from the hub by its name into a real archive, with its real architecture.

The repository has pickled weights alone, as older ones do; what comes out answers as transformers does.
"""

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
def test_mit_b0_by_its_name(bench: Bench, fake_hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "mit-b0"
    mit_b0(folder)
    pickled = io.BytesIO()
    torch.save(load_file(folder / "model.safetensors"), pickled)
    content = content_of(folder)
    del content["model.safetensors"]
    fake_hub.add("nvidia/mit-b0", {**content, "pytorch_model.bin": pickled.getvalue()})
    shutil.copytree(LAYOUT.models / "mit-b0", bench.layout.models / "mit-b0")

    packed = bench.pack("mit-b0")
    assert packed.weights == "pretrained"
    made = read_provenance(packed.path)
    assert (made.source, made.architecture) == ("nvidia/mit-b0", "SegformerForImageClassification")
    assert "none" not in made.prepared["openvino"]
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


def test_without_pickled_the_same_repository_is_refused(
    bench: Bench, fake_hub: FakeHub, tmp_path: Path
) -> None:
    from torchserve_models.packing import errors

    folder = tmp_path / "mit-b0"
    mit_b0(folder)
    content = content_of(folder)
    content["pytorch_model.bin"] = content.pop("model.safetensors")
    fake_hub.add("owner/other", content)
    with pytest.raises(errors.NoSafetensors, match="--pickled"):
        bench.pack("other", source="owner/other")
    assert not fake_hub.downloads("pytorch_model.bin")
