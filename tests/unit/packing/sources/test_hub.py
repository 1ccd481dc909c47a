"""Packing from the hub: first pack, lock file, resumed downloads and hub failures."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.unit.packing.conftest import HUB_ID, Bench, content_of
from tests.unit.packing.fake_hub import FakeHub, Fault
from tests.unit.packing.sources.hub_repository import WEIGHTS
from torchserve_models.packing import errors, read_provenance


def test_only_needed_files_are_downloaded(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    files = {**content_of(resnet_folder), "pytorch_model.bin": b"pickle", "tf_model.h5": b"h5"}
    fake_hub.add(HUB_ID, files)
    bench.pack(weights="pretrained")
    assert fake_hub.requests[0].path == f"/api/models/{HUB_ID}"
    fetched = {request.path.rsplit("/resolve/", 1)[1].split("/")[1] for request in fake_hub.requests[1:]}
    assert fetched == {"config.json", WEIGHTS, "preprocessor_config.json"}


def test_locked_and_cached_model_needs_no_network(
    bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]
) -> None:
    first = bench.pack(weights="pretrained")
    fake_hub.requests.clear()
    assert bench.pack().sha256 == first.sha256
    offline()
    assert bench.pack(weights="pretrained").sha256 == first.sha256
    assert bench.pack(weights="auto").weights == "pretrained"
    assert fake_hub.requests == []


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault("/api/models", 401), errors.HubAccessDenied, "401.*HF_TOKEN"),
        (Fault("/api/models", 403), errors.HubAccessDenied, "403.*HF_TOKEN"),
        (Fault("/api/models", 403, {"X-Error-Code": "GatedRepo"}), errors.HubAccessDenied, "gated: accept"),
        (Fault("/api/models", 404, {"X-Error-Code": "RepoNotFound"}), errors.HubNotFound, "404"),
        (Fault("/api/models", 500), errors.HubUnreachable, "500"),
        (Fault("/api/models", 200, body=b"<html>Sign in</html>"), errors.HubUnreachable, "sign-in page"),
        (Fault("/api/models", 200, body=b"{}"), errors.HubUnreachable, "Invalid response"),
        (Fault("/api/models", hang=True), errors.HubUnreachable, "timed out"),
        (Fault(f"resolve/.*{WEIGHTS}", 403, {"X-Error-Code": "GatedRepo"}), errors.HubAccessDenied, "gated"),
        (Fault(f"resolve/.*{WEIGHTS}", 404), errors.HubNotFound, "404"),
        (Fault(f"resolve/.*{WEIGHTS}", hang=True), errors.HubUnreachable, "timed out"),
        (Fault(f"resolve/.*{WEIGHTS}", cut_at=0), errors.HubUnreachable, "run the same command again"),
    ],
    ids=lambda value: f"{value.path}-{value.status}-{value.hang}" if isinstance(value, Fault) else None,
)
def test_hub_failure_raises_its_error_class(
    bench: Bench,
    fake_hub: FakeHub,
    fault: Fault,
    error: type[errors.PackingError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_hub.faults = [fault]
    if fault.hang:
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    with pytest.raises(error, match=words) as caught:
        bench.pack(weights="pretrained")
    assert "\n" not in str(caught.value)
    assert not bench.layout.lock.exists()
    assert not bench.store.exists()


def test_unknown_architecture_is_rejected_before_the_download(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path
) -> None:
    files = content_of(resnet_folder)
    files["config.json"] = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    fake_hub.add("owner/llama", files)
    with pytest.raises(errors.UnknownArchitecture, match="LlamaForCausalLM"):
        bench.pack("chat", source="owner/llama")
    assert fake_hub.downloads(WEIGHTS) == []


def test_pickled_weights_are_rejected(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    files = content_of(resnet_folder)
    files["pytorch_model.bin"] = files.pop(WEIGHTS)
    fake_hub.add("owner/pickled", files)
    with pytest.raises(errors.NoSafetensors, match=r"pytorch_model\.bin"):
        bench.pack("net", source="owner/pickled")
    assert fake_hub.downloads("pytorch_model.bin") == []


@pytest.mark.full
def test_sharded_summarizer_is_packed_by_its_hub_id(bench: Bench, fake_hub: FakeHub, t5_folder: Path) -> None:
    fake_hub.add("owner/t5", content_of(t5_folder))
    packed = bench.pack("any-name", source="owner/t5")
    shards = sorted(path.name for path in t5_folder.glob("*.safetensors"))
    assert len(shards) > 1
    with zipfile.ZipFile(packed.path) as archive:
        names = archive.namelist()
    assert {f"model/{shard}" for shard in shards} < set(names)
    assert "model/model.safetensors.index.json" in names
    assert "summarizer.py" in names
    assert read_provenance(packed.path).task == "summarization"


def test_token_is_sent_to_the_hub_only(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with FakeHub() as storage:
        storage.add(HUB_ID, content_of(resnet_folder))
        fake_hub.files_from = storage.url
        bench.pack(weights="pretrained")
        assert {request.authorization for request in fake_hub.requests} == {"Bearer hf_secret"}
        assert [request.authorization for request in storage.requests] == [None]
    assert b"hf_secret" not in bench.layout.lock.read_bytes()


def test_offline_mode_without_cache_is_an_error(
    bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]
) -> None:
    offline()
    with pytest.raises(errors.HubOffline, match="HF_HUB_OFFLINE"):
        bench.pack(weights="pretrained")
    assert fake_hub.requests == []


def test_offline_hints_do_not_contradict_each_other(
    bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]
) -> None:
    bare = bench.layout.models / "bare"
    bare.mkdir()
    (bare / "source.yaml").write_text(f"task: image-classification\nhub: {HUB_ID}\nlicense: mit\n")
    offline()
    for arguments, hint in (
        ({"weights": "pretrained"}, "--weights starter"),
        ({"source": HUB_ID}, "--from FOLDER"),
        ({"name": "bare"}, "--from FOLDER"),
        ({"name": "another", "source": HUB_ID}, "--from FOLDER"),
    ):
        with pytest.raises(errors.HubOffline) as error:
            bench.pack(**arguments)
        message = str(error.value)
        assert message.count("HF_HUB_OFFLINE is set") == 1
        assert {way for way in ("--weights starter", "--from FOLDER") if way in message} == {hint}, message
        assert "run the same command again" not in message
    assert fake_hub.requests == []
