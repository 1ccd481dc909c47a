"""Downloads: resuming, checksums, and the cache."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.packing.conftest import HUB_ID, Bench
from tests.unit.packing.fake_hub import FakeHub, Fault, oid_of
from tests.unit.packing.sources.hub_repository import WEIGHTS, lock_of
from torchserve_models.packing import errors


def test_interrupted_body_is_resumed(bench: Bench, fake_hub: FakeHub) -> None:
    fake_hub.faults = [Fault(f"resolve/.*{WEIGHTS}", cut_at=1000, times=1)]
    packed = bench.pack(weights="pretrained")
    assert [request.range for request in fake_hub.downloads(WEIGHTS)] == [None, "bytes=1000-"]
    assert packed.weights == "pretrained"


def test_next_run_resumes_the_download(bench: Bench, fake_hub: FakeHub) -> None:
    fake_hub.faults = [
        Fault(f"resolve/.*{WEIGHTS}", cut_at=1000, times=1),
        Fault(f"resolve/.*{WEIGHTS}", status=503),
    ]
    with pytest.raises(errors.HubUnreachable, match=r"503.*download resumes"):
        bench.pack(weights="pretrained")
    assert not bench.store.exists()
    fake_hub.faults.clear()
    fake_hub.requests.clear()
    bench.pack(weights="pretrained")
    assert [request.range for request in fake_hub.downloads(WEIGHTS)] == ["bytes=1000-"]


def test_corrupt_partial_file_is_discarded(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    """The file is then downloaded again from the first byte."""
    from torchserve_models.packing.sources import hub

    blobs = hub.cache_folder(HUB_ID) / "blobs"
    blobs.mkdir(parents=True)
    oid = oid_of(WEIGHTS, (resnet_folder / WEIGHTS).read_bytes())
    (blobs / f"{oid}.incomplete").write_bytes(b"x" * 500)
    bench.pack(weights="pretrained")
    assert [request.range for request in fake_hub.downloads(WEIGHTS)] == ["bytes=500-", None]


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_wrong_content_is_rejected(bench: Bench, fake_hub: FakeHub, resnet_folder: Path, name: str) -> None:
    data = bytearray((resnet_folder / name).read_bytes())
    data[-2] ^= 1
    fake_hub.repositories[HUB_ID].served[name] = bytes(data)
    with pytest.raises(errors.ChecksumMismatch, match=f"{name} of {HUB_ID}"):
        bench.pack(weights="pretrained")
    assert not bench.layout.lock.exists()
    assert not bench.store.exists()
    del fake_hub.repositories[HUB_ID].served[name]
    assert bench.pack(weights="pretrained").weights == "pretrained"


def test_damaged_cache_is_downloaded_again(
    bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]
) -> None:
    from torchserve_models.packing.sources import download

    first = bench.pack(weights="pretrained")
    cached = download.find_cached(HUB_ID, lock_of(bench)[HUB_ID]["revision"], WEIGHTS)
    assert cached is not None
    good = cached.read_bytes()
    cached.resolve().write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert bench.pack(weights="pretrained").sha256 == first.sha256
    assert any("damaged" in line for line in bench.messages)
    cached.resolve().write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    offline()
    with pytest.raises(errors.ChecksumMismatch, match="HF_HUB_OFFLINE"):
        bench.pack(weights="pretrained")
