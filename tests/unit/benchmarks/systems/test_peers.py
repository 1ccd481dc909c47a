"""Processes of a peer, whose script is a file of the test."""

import sys
from pathlib import Path

import pytest

from benchmarks.report.results import Row
from benchmarks.scenarios.base import ImageScenario
from benchmarks.systems import peers
from benchmarks.systems.base import RunContext

SERVER = (
    "{python} -m http.server --bind 127.0.0.1 $PORT_2 & exec {python} -m http.server --bind 127.0.0.1 $PORT"
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that starts a script whose server counts as answering once it accepts connections."""
    monkeypatch.setattr(peers.environments, "PEERS", tmp_path)
    monkeypatch.setattr(peers, "STOP_TIMEOUT_S", 5.0)

    def start(script):
        (tmp_path / "run").write_text(f"#!/usr/bin/env bash\n{script.format(python=sys.executable)}\n")
        (tmp_path / "run").chmod(0o755)
        peer = peers.Peer("", [Row("a", "A")], peers.build_form_request, requirements=None)
        peer.start(RunContext(tmp_path / "work", ImageScenario(Path(), (b"",)), None, print))
        return peer

    return start


def test_failure_is_the_last_line_of_the_output(start):
    with pytest.raises(ConnectionError, match="ended during startup: no such model"):
        start("echo loading; echo no such model; exit 1")


def test_peer_is_stopped_with_its_descendants(start, monkeypatch):
    monkeypatch.setattr(peers, "wait_until_answering", lambda *_: None)
    peer = start(SERVER)
    while len(tree := peer.list_processes()) < 2:
        assert peer._find_failure() is None
    peer.stop()
    assert peer.root_processes() == []
    assert not [process for process in tree if process.is_running()]
