"""Tests of which archives are packed and which are served unchanged."""

import json
import zipfile
from dataclasses import asdict

import pytest

from torchserve_models.packing import PackedArchive, PackingError, Provenance
from torchserve_models.packing.errors import HubUnreachable
from torchserve_models.packing.sources import hub
from torchserve_models.serving.archives import preparation
from torchserve_models.serving.errors import RunError


@pytest.fixture
def packs(monkeypatch):
    """Replace packing; return the list of pack requests."""
    packed_models = []

    def pack(request, report):
        name = request.name
        if name == "broken":
            raise PackingError("the disk is full")
        packed_models.append((name, request.weights))
        return PackedArchive(request.store / f"{name}.mar", name, "starter-1", "starter", "0" * 64, 1, False)

    monkeypatch.setattr(preparation, "pack", pack)
    return packed_models


def put(store, name, weights="folder", source="x"):
    provenance = Provenance(name, "v", "summarization", weights, source, None, {}, None, {}, "auto", "A")
    with zipfile.ZipFile(store / f"{name}.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{}")
        archive.writestr("provenance.json", json.dumps(asdict(provenance)))


def test_default_is_every_model_with_starter_weights(tmp_path, packs):
    names = preparation.prepare_archives([], "starter", tmp_path, print)
    assert names == ["bart-large-cnn", "resnet-50", "t5-small"]
    assert packs == [(name, "starter") for name in names]


@pytest.mark.parametrize(("weights", "source"), [("folder", "mine"), ("pretrained", "example/other-model")])
def test_user_archive_stays_unless_weights_are_requested(tmp_path, packs, weights, source):
    put(tmp_path, "t5-small", weights, source)
    assert preparation.prepare_archives(["t5-small"], "auto", tmp_path, print) == ["t5-small"]
    assert packs == []
    preparation.prepare_archives(["t5-small"], "starter", tmp_path, print)
    assert packs == [("t5-small", "starter")]


def test_archive_of_known_source_is_packed_again(tmp_path, packs, monkeypatch):
    monkeypatch.setattr(hub, "check_available", lambda *_: None)
    put(tmp_path, "t5-small", "pretrained", "google-t5/t5-small")
    put(tmp_path, "resnet-50", "starter", "models/resnet-50/starter")
    preparation.prepare_archives(["t5-small", "resnet-50"], "auto", tmp_path, print)
    assert packs == [("t5-small", "pretrained"), ("resnet-50", "auto")]


def test_pretrained_archive_stays_if_the_hub_is_unreachable(tmp_path, packs, monkeypatch):
    monkeypatch.setattr(hub, "check_available", lambda *_: HubUnreachable("nobody answers. Try again."))
    put(tmp_path, "t5-small", "pretrained", "google-t5/t5-small")
    messages = []
    assert preparation.prepare_archives(["t5-small"], "auto", tmp_path, messages.append) == ["t5-small"]
    assert packs == []
    assert "unchanged" in messages[0]
    assert "nobody answers" in messages[0]


def test_pretrained_archive_stays_if_the_download_fails(tmp_path, packs, monkeypatch):
    def pack(*_, **__):
        raise HubUnreachable("the connection broke")

    monkeypatch.setattr(hub, "check_available", lambda *_: None)
    monkeypatch.setattr(preparation, "pack", pack)
    put(tmp_path, "t5-small", "pretrained", "google-t5/t5-small")
    assert preparation.prepare_archives(["t5-small"], "auto", tmp_path, print) == ["t5-small"]
    with pytest.raises(RunError, match="connection broke"):
        preparation.prepare_archives(["t5-small"], "pretrained", tmp_path, print)
    with pytest.raises(RunError, match="connection broke"):
        preparation.prepare_archives(["resnet-50"], "auto", tmp_path, print)


def test_invalid_archive_is_rejected_before_the_start(tmp_path, packs):
    (tmp_path / "mine.mar").write_bytes(b"no zip")
    with pytest.raises(RunError, match=r"mine\.mar is not a model archive"):
        preparation.prepare_archives(["mine"], "auto", tmp_path, print)


def test_packing_error_is_passed_on(tmp_path, packs):
    with pytest.raises(RunError, match="broken cannot be packed: the disk is full"):
        preparation.prepare_archives(["broken"], "starter", tmp_path, print)


def test_store_is_served_without_packing(tmp_path, packs):
    with pytest.raises(RunError, match="no model archives"):
        preparation.find_archives([], tmp_path)
    put(tmp_path, "b")
    put(tmp_path, "a")
    assert preparation.find_archives([], tmp_path) == ["a", "b"]
    assert preparation.find_archives(["b"], tmp_path) == ["b"]
    with pytest.raises(RunError, match=r"c\.mar is not a model archive"):
        preparation.find_archives(["c"], tmp_path)
    assert packs == []


def test_user_model_is_served_whatever_weights_are_requested(tmp_path, packs):
    """`--weights` selects a source in models/, which has no entry for a user's model."""
    put(tmp_path, "pets")
    for weights in ("auto", "pretrained", "starter"):
        messages = []
        assert preparation.prepare_archives(["pets"], weights, tmp_path, messages.append) == ["pets"]
        assert "unchanged" in messages[0]
        assert weights == "auto" or f"--weights {weights} is for models of models/" in messages[0]
    assert packs == []


def test_earlier_archives_are_not_served(tmp_path, packs):
    put(tmp_path, "pets")
    put(tmp_path, "pets-v")  # of a model that is called so, in the version v
    (tmp_path / "pets.mar").rename(tmp_path / "kept.mar")
    put(tmp_path, "pets")
    (tmp_path / "kept.mar").rename(tmp_path / "pets-v.mar")  # the version v of pets
    assert preparation.find_archives([], tmp_path) == ["pets"]
