"""Servers of ours that several systems share."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.errors import Unavailable
from benchmarks.systems import product
from benchmarks.systems.base import Workplace

PLACE = Workplace(Path(), Path(), (b"jpeg",), lambda _: None)


@pytest.fixture
def shared(monkeypatch):
    """Two systems on one server, of which gRPC does not answer; `events` is what happened to the server."""
    events = []
    server = SimpleNamespace(failure=None, stop=lambda: events.append("stopped"))

    def start(*_):
        events.append("started")
        return server, {}

    def wait(target, _alive):
        if target == "grpc":
            raise Unavailable("no answer")

    monkeypatch.setattr(product, "_start", start)
    monkeypatch.setattr(product, "rest", lambda *_: "rest")
    monkeypatch.setattr(product, "grpc", lambda *_: "grpc")
    monkeypatch.setattr(product, "wait_for_answer", wait)
    servers = product.Servers()
    systems = {kind: product.Product(kind, kind, kind, False, servers) for kind in ("rest", "grpc")}
    return systems, events


def test_a_failing_probe_leaves_the_server_to_the_other(shared):
    systems, events = shared
    running = systems["rest"].start(PLACE, None)
    with pytest.raises(Unavailable, match="no answer"):
        systems["grpc"].start(PLACE, None)
    assert events == ["started"]
    running.stop()
    running.stop()
    assert events == ["started", "stopped"]


def test_without_another_it_ends_and_the_failure_is_remembered(shared):
    systems, events = shared
    for _ in range(2):
        with pytest.raises(Unavailable, match="no answer"):
            systems["grpc"].start(PLACE, None)
    assert events == ["started", "stopped"]


def test_a_folder_whose_server_lives_is_not_removed(monkeypatch, tmp_path):
    alive = SimpleNamespace(pid=1, alive=lambda: True)
    monkeypatch.setattr(product.State, "read", lambda _path: SimpleNamespace(frontend=alive))
    with pytest.raises(Unavailable, match="process 1"):
        product.clear_run(tmp_path)
    assert tmp_path.exists()
