"""`--weights auto`: pretrained weights if the hub responds, otherwise starter weights with a warning."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.packing.conftest import HUB_ID, Bench, content_of, point_library_at
from tests.unit.packing.fake_hub import FakeHub, Fault
from torchserve_models.packing import errors, read_provenance
from torchserve_models.packing.sources import hub

HANG_GUARD = 15
"""Limit in seconds: three times the documented one, because the machine may be busy. A hang lasts minutes."""


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Accept connections without responding, like a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_auto_uses_pretrained_weights_if_the_hub_responds(bench: Bench, fake_hub: FakeHub) -> None:
    packed = bench.pack()
    assert packed.weights == "pretrained"
    assert any("pretrained" in line and HUB_ID in line for line in bench.messages)


@pytest.mark.full
def test_auto_uses_starter_weights_if_packets_are_dropped(
    bench: Bench, black_hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_library_at(black_hole, tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(hub, "DECISION_TIMEOUT_S", 0.5)
    began = time.monotonic()
    packed = bench.pack()
    assert time.monotonic() - began < HANG_GUARD
    assert packed.weights == "starter"
    assert packed.version.startswith("starter-")
    provenance = read_provenance(packed.path)
    assert (provenance.source, provenance.revision) == ("models/small-net/starter", None)
    assert any("STARTER" in line and "did not respond within" in line for line in bench.messages)
    assert not bench.layout.lock.exists()


def test_timeout_of_the_hub_is_cached(
    bench: Bench, black_hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_library_at(black_hole, tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(hub, "DECISION_TIMEOUT_S", 0.3)
    bench.pack()
    monkeypatch.setattr(hub, "_request_weights", lambda *_: pytest.fail("asked again"))
    bench.messages.clear()
    assert bench.pack().weights == "starter"
    assert any("STARTER" in line and "did not respond within" in line for line in bench.messages)


def test_auto_uses_starter_weights_if_name_resolution_hangs(
    bench: Bench, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(60))
    monkeypatch.setattr(hub, "DECISION_TIMEOUT_S", 0.3)
    began = time.monotonic()
    try:
        assert bench.pack().weights == "starter"
        assert time.monotonic() - began < HANG_GUARD
    finally:
        release.set()


def test_auto_uses_starter_weights_if_the_weights_are_blocked(
    bench: Bench, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings and weights come from different hosts, so a firewall may block only one of them."""
    monkeypatch.setattr(hub, "DECISION_TIMEOUT_S", 1.0)
    fake_hub.faults = [Fault(r"resolve/.*safetensors", hang=True)]
    assert bench.pack().weights == "starter"
    assert len(fake_hub.downloads("model.safetensors")) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_auto_uses_starter_weights_if_the_hub_rejects_the_request(
    bench: Bench, fake_hub: FakeHub, status: int
) -> None:
    fake_hub.faults = [Fault("/api/models", status)]
    assert bench.pack().weights == "starter"
    assert any("STARTER" in line and str(status) in line for line in bench.messages)


def test_auto_uses_starter_weights_if_the_connection_is_refused(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    point_library_at(f"http://127.0.0.1:{port}", tmp_path / "cache", monkeypatch)
    assert bench.pack().weights == "starter"
    with pytest.raises(errors.HubUnreachable, match="--weights starter"):
        bench.pack(weights="pretrained")


def test_offline_mode_is_reported(bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]) -> None:
    offline()
    assert bench.pack().weights == "starter"
    assert any("HF_HUB_OFFLINE" in line for line in bench.messages)
    assert fake_hub.requests == []


def test_checksum_mismatch_has_no_fallback(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    wrong = bytearray((resnet_folder / "model.safetensors").read_bytes())
    wrong[-1] ^= 1
    fake_hub.repositories[HUB_ID].served["model.safetensors"] = bytes(wrong)
    with pytest.raises(errors.ChecksumMismatch):
        bench.pack()


def test_named_source_has_no_fallback(bench: Bench, fake_hub: FakeHub) -> None:
    fake_hub.faults = [Fault("/api/models", 503)]
    with pytest.raises(errors.HubUnreachable):
        bench.pack(source=HUB_ID)


def test_update_has_no_fallback(bench: Bench, fake_hub: FakeHub) -> None:
    bench.pack(weights="pretrained")
    fake_hub.faults = [Fault("/api/models", 503)]
    with pytest.raises(errors.HubUnreachable):
        bench.pack(update=True)


def test_starter_weights_need_no_hub(bench: Bench, fake_hub: FakeHub) -> None:
    assert bench.pack(weights="starter").weights == "starter"
    assert fake_hub.requests == []


def test_auto_uses_the_locked_commit(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    first = bench.pack()
    changed = {**content_of(resnet_folder), "preprocessor_config.json": b"{}"}
    fake_hub.add(HUB_ID, changed)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other cache"))
    assert bench.pack().sha256 == first.sha256
