"""The hub as a source: the first pack, the lock, resuming, and every way in which a hub can fail."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.packing.conftest import HUB_ID, Bench, content_of
from tests.unit.packing.fake_hub import FakeHub, Fault, oid_of
from torchserve_models.packing import errors, read_provenance

WEIGHTS = "model.safetensors"


def lock_of(bench: Bench) -> dict:
    return json.loads(bench.layout.lock.read_text())


@pytest.mark.full
def test_first_pack_takes_the_branch_and_locks_what_it_saw(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path
) -> None:
    packed = bench.pack(weights="pretrained")
    head = fake_hub.repositories[HUB_ID].head
    entry = lock_of(bench)[HUB_ID]
    assert entry["revision"] == head
    assert set(entry["files"]) == {"config.json", WEIGHTS, "preprocessor_config.json"}
    for name, file in entry["files"].items():
        assert file["oid"] == oid_of(name, (resnet_folder / name).read_bytes())
    provenance = read_provenance(packed.path)
    assert (provenance.weights, provenance.source, provenance.revision) == ("pretrained", HUB_ID, head)
    assert provenance.license == "mit"
    assert packed.version.startswith("pretrained-")
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.read(f"model/{WEIGHTS}") == (resnet_folder / WEIGHTS).read_bytes()


def test_only_needed_files_are_downloaded(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    files = {**content_of(resnet_folder), "pytorch_model.bin": b"pickle", "tf_model.h5": b"h5"}
    fake_hub.add(HUB_ID, files)
    bench.pack(weights="pretrained")
    assert fake_hub.requests[0].path == f"/api/models/{HUB_ID}"
    fetched = {request.path.rsplit("/resolve/", 1)[1].split("/")[1] for request in fake_hub.requests[1:]}
    assert fetched == {"config.json", WEIGHTS, "preprocessor_config.json"}


@pytest.mark.full
def test_a_moved_branch_changes_nothing_until_update(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    first = bench.pack(weights="pretrained")
    changed = content_of(resnet_folder)
    changed["preprocessor_config.json"] = changed["preprocessor_config.json"].replace(b"32", b"64")
    fake_hub.add(HUB_ID, changed)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other cache"))  # as on another machine
    again = bench.pack(weights="pretrained")
    assert again.sha256 == first.sha256

    moved = bench.pack(weights="pretrained", update=True)
    assert moved.sha256 != first.sha256
    assert lock_of(bench)[HUB_ID]["revision"] == fake_hub.repositories[HUB_ID].head
    assert read_provenance(moved.path).revision == fake_hub.repositories[HUB_ID].head


def test_a_locked_commit_that_is_gone_fails(
    bench: Bench, fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    bench.pack(weights="pretrained")
    fake_hub.repositories[HUB_ID].commits = {"f" * 40: {}}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other cache"))
    with pytest.raises(errors.HubNotFound, match=r"no longer has the commit.*--update"):
        bench.pack(weights="pretrained")


def test_cache_and_lock_need_no_network(bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]) -> None:
    first = bench.pack(weights="pretrained")
    fake_hub.requests.clear()
    assert bench.pack().sha256 == first.sha256
    offline()
    assert bench.pack(weights="pretrained").sha256 == first.sha256
    assert bench.pack(weights="auto").weights == "pretrained"
    assert fake_hub.requests == []


@pytest.mark.full
def test_two_sources_of_one_name_have_two_locks(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    other = content_of(resnet_folder)
    other["preprocessor_config.json"] = other["preprocessor_config.json"].replace(b"32", b"48")
    fake_hub.add("somebody/else", other)
    first = bench.pack(weights="pretrained")
    given = bench.pack(source="somebody/else")
    assert read_provenance(given.path).source == "somebody/else"
    assert given.sha256 != first.sha256
    assert set(lock_of(bench)) == {HUB_ID, "somebody/else"}
    assert bench.pack(weights="pretrained").sha256 == first.sha256


def test_a_body_that_breaks_off_is_resumed(bench: Bench, fake_hub: FakeHub) -> None:
    fake_hub.faults = [Fault(f"resolve/.*{WEIGHTS}", cut_at=1000, times=1)]
    packed = bench.pack(weights="pretrained")
    assert [request.range for request in fake_hub.downloads(WEIGHTS)] == [None, "bytes=1000-"]
    assert packed.weights == "pretrained"


def test_the_next_run_goes_on_where_the_last_one_stopped(bench: Bench, fake_hub: FakeHub) -> None:
    fake_hub.faults = [
        Fault(f"resolve/.*{WEIGHTS}", cut_at=1000, times=1),
        Fault(f"resolve/.*{WEIGHTS}", status=503),
    ]
    with pytest.raises(errors.HubUnreachable, match=r"503.*goes on where it stopped"):
        bench.pack(weights="pretrained")
    assert not bench.store.exists()
    fake_hub.faults.clear()
    fake_hub.requests.clear()
    bench.pack(weights="pretrained")
    assert [request.range for request in fake_hub.downloads(WEIGHTS)] == ["bytes=1000-"]


def test_a_bad_beginning_is_not_kept(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    """What an earlier run left may be wrong: the file is then fetched once more from its first byte."""
    from torchserve_models.packing.sources import hub

    blobs = hub.cache_folder(HUB_ID) / "blobs"
    blobs.mkdir(parents=True)
    oid = oid_of(WEIGHTS, (resnet_folder / WEIGHTS).read_bytes())
    (blobs / f"{oid}.incomplete").write_bytes(b"x" * 500)
    bench.pack(weights="pretrained")
    assert [request.range for request in fake_hub.downloads(WEIGHTS)] == ["bytes=500-", None]


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_wrong_content_is_refused(bench: Bench, fake_hub: FakeHub, resnet_folder: Path, name: str) -> None:
    data = bytearray((resnet_folder / name).read_bytes())
    data[-2] ^= 1
    fake_hub.repositories[HUB_ID].served[name] = bytes(data)
    with pytest.raises(errors.WrongContent, match=f"{name} of {HUB_ID}"):
        bench.pack(weights="pretrained")
    assert not bench.layout.lock.exists()
    assert not bench.store.exists()
    del fake_hub.repositories[HUB_ID].served[name]
    assert bench.pack(weights="pretrained").weights == "pretrained"


def test_a_damaged_cache_is_noticed_and_mended(
    bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]
) -> None:
    from torchserve_models.packing.sources import download

    first = bench.pack(weights="pretrained")
    cached = download.cached(HUB_ID, lock_of(bench)[HUB_ID]["revision"], WEIGHTS)
    assert cached is not None
    good = cached.read_bytes()
    cached.resolve().write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert bench.pack(weights="pretrained").sha256 == first.sha256
    assert any("damaged" in line for line in bench.said)
    cached.resolve().write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    offline()
    with pytest.raises(errors.WrongContent, match="HF_HUB_OFFLINE"):
        bench.pack(weights="pretrained")


def test_a_changed_lock_is_refused(bench: Bench, fake_hub: FakeHub) -> None:
    bench.pack(weights="pretrained")
    lock = lock_of(bench)
    lock[HUB_ID]["files"]["config.json"]["sha256"] = "0" * 64
    bench.layout.lock.write_text(json.dumps(lock))
    with pytest.raises(errors.WrongContent, match=r"lock\.json"):
        bench.pack(weights="pretrained")


@pytest.mark.parametrize(
    "content", ["not json", "[]", f'{{"{HUB_ID}": {{}}}}', f'{{"{HUB_ID}": 3}}'], ids=range(4)
)
def test_a_broken_lock_is_said(bench: Bench, fake_hub: FakeHub, content: str) -> None:
    bench.layout.lock.write_text(content)
    with pytest.raises(errors.BadLock, match=r"lock\.json"):
        bench.pack(weights="pretrained")


@pytest.mark.parametrize("name", ["../../escape", ".hidden", "folder/model.safetensors"])
def test_a_lock_cannot_name_files_elsewhere(bench: Bench, fake_hub: FakeHub, name: str) -> None:
    bench.pack(weights="pretrained")
    lock = lock_of(bench)
    lock[HUB_ID]["files"][name] = {"size": 1, "oid": "0" * 40, "sha256": "0" * 64}
    bench.layout.lock.write_text(json.dumps(lock))
    with pytest.raises(errors.BadLock, match="outside"):
        bench.pack(weights="pretrained")


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault("/api/models", 401), errors.HubRefused, "401.*HF_TOKEN"),
        (Fault("/api/models", 403), errors.HubRefused, "403.*HF_TOKEN"),
        (Fault("/api/models", 403, {"X-Error-Code": "GatedRepo"}), errors.HubRefused, "gated: accept"),
        (Fault("/api/models", 404, {"X-Error-Code": "RepoNotFound"}), errors.HubNotFound, "404"),
        (Fault("/api/models", 500), errors.HubUnreachable, "500"),
        (Fault("/api/models", 200, body=b"<html>Sign in</html>"), errors.HubUnreachable, "sign-in page"),
        (Fault("/api/models", 200, body=b"{}"), errors.HubUnreachable, "as a hub does"),
        (Fault("/api/models", hang=True), errors.HubUnreachable, "in time"),
        (Fault(f"resolve/.*{WEIGHTS}", 403, {"X-Error-Code": "GatedRepo"}), errors.HubRefused, "gated"),
        (Fault(f"resolve/.*{WEIGHTS}", 404), errors.HubNotFound, "404"),
        (Fault(f"resolve/.*{WEIGHTS}", hang=True), errors.HubUnreachable, "in time"),
        (Fault(f"resolve/.*{WEIGHTS}", cut_at=0), errors.HubUnreachable, "run the same command again"),
    ],
    ids=lambda value: f"{value.path}-{value.status}-{value.hang}" if isinstance(value, Fault) else None,
)
def test_each_fault_is_one_clear_error(
    bench: Bench, fake_hub: FakeHub, fault: Fault, error: type[errors.PackingError], words: str
) -> None:
    fake_hub.faults = [fault]
    with pytest.raises(error, match=words) as caught:
        bench.pack(weights="pretrained")
    assert "\n" not in str(caught.value)
    assert not bench.layout.lock.exists()
    assert not bench.store.exists()


def test_an_unknown_architecture_costs_no_download(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path
) -> None:
    files = content_of(resnet_folder)
    files["config.json"] = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    fake_hub.add("owner/llama", files)
    with pytest.raises(errors.UnknownArchitecture, match="LlamaForCausalLM"):
        bench.pack("chat", source="owner/llama")
    assert fake_hub.downloads(WEIGHTS) == []


def test_pickled_weights_are_refused(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    files = content_of(resnet_folder)
    files["pytorch_model.bin"] = files.pop(WEIGHTS)
    fake_hub.add("owner/pickled", files)
    with pytest.raises(errors.NoSafetensors, match=r"pytorch_model\.bin"):
        bench.pack("net", source="owner/pickled")
    assert fake_hub.downloads("pytorch_model.bin") == []


@pytest.mark.full
def test_a_sharded_summarizer_by_its_hub_id(bench: Bench, fake_hub: FakeHub, t5_folder: Path) -> None:
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


def test_the_token_goes_to_the_hub_and_not_beyond(
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


def test_offline_without_a_cache(bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]) -> None:
    offline()
    with pytest.raises(errors.HubOffline, match="HF_HUB_OFFLINE"):
        bench.pack(weights="pretrained")
    assert fake_hub.requests == []


def test_offline_hints_do_not_contradict_each_other(
    bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]
) -> None:
    """Case 24: each names what helps there, and nothing else."""
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
        said = str(error.value)
        assert said.count("HF_HUB_OFFLINE is set") == 1
        assert {way for way in ("--weights starter", "--from FOLDER") if way in said} == {hint}, said
        assert "run the same command again" not in said
    assert fake_hub.requests == []
