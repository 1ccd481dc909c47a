"""Real weights that scripts/pack packs from a folder or a state dict classify real photos correctly."""

import json
import subprocess
import zipfile

import pytest

from tests.conftest import ROOT
from tests.real_models import labeled_photos, mobilenet_folder
from torchserve_models.client import Client, ModelNotFound


def from_folder(shared_data, tmp_path):
    return ["--from", mobilenet_folder(shared_data, tmp_path / "my weights, with a comma")]


def from_torchvision(shared_data, tmp_path):
    """Return the options for a state dict with torchvision's names."""
    weights = shared_data / "weights" / "mobilenet_v2_imagenet.safetensors"
    labels = shared_data / "imagenet_index_to_name.json"
    return ["--from", "torchvision:mobilenet_v2", "--state-dict", weights, "--labels", labels]


KINDS = {
    "folder": (from_folder, "MobileNetV2ForImageClassification"),
    "state-dict": (from_torchvision, "torchvision:mobilenet_v2"),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def archive(server, shared_data, tmp_path, kind):
    """Pack the weights with scripts/pack into the store of the running server."""
    options = KINDS[kind][0](shared_data, tmp_path)
    command = [ROOT / "scripts" / "pack", "packed-net", *options, "--store", server.store]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    path = server.store / "packed-net.mar"
    yield path
    path.unlink()


def labels_of(answers):
    return [[label.label for label in answer] for answer in answers]


def test_packed_model_labels_real_photos(server, shared_data, archive, kind):
    made = json.loads(zipfile.ZipFile(archive).read("provenance.json"))
    assert (made["weights"], made["task"]) == (kind, "image-classification")
    assert made["architecture"] == KINDS[kind][1]
    names = json.loads((shared_data / "imagenet_index_to_name.json").read_text())
    photos = labeled_photos(shared_data)
    with Client(endpoints=server.endpoints) as connection:
        connection.register("packed-net.mar")
        try:
            metadata = connection.describe("packed-net", customized=True).metadata
            assert metadata["version"] == made["version"]
            answers = [connection.classify("packed-net", path.read_bytes(), top_k=3) for path, _ in photos]
            for protocol in ("grpc", "open-inference", "open-inference-grpc"):
                with Client(protocol=protocol, endpoints=server.endpoints) as other:
                    again = [other.classify("packed-net", path.read_bytes(), top_k=3) for path, _ in photos]
                assert labels_of(again) == labels_of(answers)
        finally:
            connection.unregister("packed-net")
        with pytest.raises(ModelNotFound):
            connection.describe("packed-net")
    expected = [names[str(index)][1] for _, index in photos]
    predicted = labels_of(answers)
    assert sum(name == labels[0] for name, labels in zip(expected, predicted, strict=True)) >= len(photos) - 2
    assert sum(name in labels for name, labels in zip(expected, predicted, strict=True)) >= len(photos) - 1
