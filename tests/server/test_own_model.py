"""A folder with real weights, packed by one command, registered while serving, is right on real photos."""

import json
import subprocess
import zipfile

import pytest

from client import Client, ModelNotFound
from tests.conftest import ROOT
from tests.real_models import labelled_photos, mobilenet_folder


@pytest.fixture
def archive(server, shared_data, tmp_path):
    """Packed by the command, as an operator would, into the store of the running server."""
    folder = mobilenet_folder(shared_data, tmp_path / "my weights, with a comma")
    command = [ROOT / "scripts" / "pack", "own-net", "--from", folder, "--store", server.store]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    path = server.store / "own-net.mar"
    yield path
    path.unlink()


def test_it_labels_real_photos(server, shared_data, archive):
    made = json.loads(zipfile.ZipFile(archive).read("provenance.json"))
    assert (made["weights"], made["task"]) == ("folder", "image-classification")
    assert made["architecture"] == "MobileNetV2ForImageClassification"
    names = json.loads((shared_data / "imagenet_index_to_name.json").read_text())
    photos = labelled_photos(shared_data)
    with Client(endpoints=server.endpoints) as connection:
        connection.register("own-net.mar")
        try:
            metadata = connection.describe("own-net", customized=True).metadata
            assert metadata["version"] == made["version"]
            answers = [connection.classify("own-net", path.read_bytes(), top_k=3) for path, _ in photos]
        finally:
            connection.unregister("own-net")
        with pytest.raises(ModelNotFound):
            connection.describe("own-net")
    wanted = [names[str(index)][1] for _, index in photos]
    found = [[label.label for label in answer] for answer in answers]
    assert sum(name == labels[0] for name, labels in zip(wanted, found, strict=True)) >= len(photos) - 2
    assert sum(name in labels for name, labels in zip(wanted, found, strict=True)) >= len(photos) - 1
