"""`auto`: pretrained where the hub answers, otherwise the starter, said loudly and decided within seconds."""

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
"""Seconds: three times what is promised, because the machine may be busy; a hang would take minutes."""


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Takes connections and never says a word, as a firewall that swallows packets."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_pretrained_where_the_hub_answers(bench: Bench, fake_hub: FakeHub) -> None:
    packed = bench.pack()
    assert packed.weights == "pretrained"
    assert any("pretrained" in line and HUB_ID in line for line in bench.said)


def test_starter_where_the_network_swallows_packets(
    bench: Bench, black_hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_library_at(black_hole, tmp_path / "cache", monkeypatch)
    began = time.monotonic()
    packed = bench.pack()
    assert time.monotonic() - began < HANG_GUARD
    assert packed.weights == "starter"
    assert packed.version.startswith("starter-")
    provenance = read_provenance(packed.path)
    assert (provenance.source, provenance.revision) == ("models/small-net/starter", None)
    assert any("STARTER" in line and "no answer" in line for line in bench.said)
    assert not bench.layout.lock.exists()


def test_silence_is_waited_for_once(
    bench: Bench, black_hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_library_at(black_hole, tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(hub, "DECISION_SECONDS", 0.3)
    bench.pack()
    monkeypatch.setattr(hub, "_ask", lambda *_: pytest.fail("asked again"))
    bench.said.clear()
    assert bench.pack().weights == "starter"
    assert any("STARTER" in line and "no answer" in line for line in bench.said)


def test_starter_where_a_name_lookup_hangs(
    bench: Bench, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(60))
    monkeypatch.setattr(hub, "DECISION_SECONDS", 0.3)
    began = time.monotonic()
    try:
        assert bench.pack().weights == "starter"
        assert time.monotonic() - began < HANG_GUARD
    finally:
        release.set()


def test_starter_where_only_the_weights_are_blocked(
    bench: Bench, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings and weights come from different hosts; a firewall may let the one through and not the other."""
    monkeypatch.setattr(hub, "DECISION_SECONDS", 1.0)
    fake_hub.faults = [Fault(r"resolve/.*safetensors", hang=True)]
    assert bench.pack().weights == "starter"
    assert len(fake_hub.downloads("model.safetensors")) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_starter_where_the_hub_refuses(bench: Bench, fake_hub: FakeHub, status: int) -> None:
    fake_hub.faults = [Fault("/api/models", status)]
    assert bench.pack().weights == "starter"
    assert any("STARTER" in line and str(status) in line for line in bench.said)


def test_starter_where_nobody_listens(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    point_library_at(f"http://127.0.0.1:{port}", tmp_path / "cache", monkeypatch)
    assert bench.pack().weights == "starter"
    with pytest.raises(errors.HubUnreachable, match="--weights starter"):
        bench.pack(weights="pretrained")


def test_offline_is_said(bench: Bench, fake_hub: FakeHub, offline: Callable[[], None]) -> None:
    offline()
    assert bench.pack().weights == "starter"
    assert any("HF_HUB_OFFLINE" in line for line in bench.said)
    assert fake_hub.requests == []


def test_a_wrong_file_is_never_a_reason_for_the_starter(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path
) -> None:
    wrong = bytearray((resnet_folder / "model.safetensors").read_bytes())
    wrong[-1] ^= 1
    fake_hub.repositories[HUB_ID].served["model.safetensors"] = bytes(wrong)
    with pytest.raises(errors.WrongContent):
        bench.pack()


def test_a_named_source_has_no_stand_in(bench: Bench, fake_hub: FakeHub) -> None:
    fake_hub.faults = [Fault("/api/models", 503)]
    with pytest.raises(errors.HubUnreachable):
        bench.pack(source=HUB_ID)


def test_update_has_no_stand_in(bench: Bench, fake_hub: FakeHub) -> None:
    bench.pack(weights="pretrained")
    fake_hub.faults = [Fault("/api/models", 503)]
    with pytest.raises(errors.HubUnreachable):
        bench.pack(update=True)


def test_the_starter_never_asks_the_hub(bench: Bench, fake_hub: FakeHub) -> None:
    assert bench.pack(weights="starter").weights == "starter"
    assert fake_hub.requests == []


def test_the_lock_binds_auto_as_well(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    first = bench.pack()
    changed = {**content_of(resnet_folder), "preprocessor_config.json": b"{}"}
    fake_hub.add(HUB_ID, changed)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other cache"))
    assert bench.pack().sha256 == first.sha256
