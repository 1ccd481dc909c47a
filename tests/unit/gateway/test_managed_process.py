"""A supervised process: what is wrong with it is found, and all of it is ended."""

import os
import signal
import socket
import sys
import time

import pytest

from torchserve_models.gateway import managed_process
from torchserve_models.gateway.managed_process import ManagedProcess, listens
from torchserve_models.gateway.nginx import NginxError
from torchserve_models.serving.system.process_state import processes_of_session

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /proc")

ANSWERING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
HANGING = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(60)
"""
WITH_CHILDREN = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
time.sleep(60)
"""


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture
def started(address, monkeypatch):
    monkeypatch.setattr(managed_process, "PROBE_INTERVAL_S", 0.05)
    monkeypatch.setattr(managed_process, "PROBE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(managed_process, "STOPPED_LIMIT_S", 0.5)
    process = ManagedProcess("it", address, (address, "/"), signal.SIGTERM)

    def start(program, *arguments):
        port = address.rpartition(":")[2]
        process.start([sys.executable, "-c", program, port, *arguments], {})
        return process

    yield start
    process.kill()
    process.close()


def problem_of(process, seconds=15):
    end = time.monotonic() + seconds
    while (problem := process.problem()) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return problem


def until_ready(process):
    end = time.monotonic() + 15
    while not process.is_ready:
        assert process.problem() is None
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_process_that_answers_is_well(started):
    process = started(ANSWERING)
    until_ready(process)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert process.problem() is None
        time.sleep(0.05)
    process.ask_to_end()
    assert problem_of(process) == "died"


def test_one_that_listens_and_does_not_answer_hangs(started):
    process = started(HANGING)
    until_ready(process)
    assert problem_of(process) == "hung"


def test_one_that_is_stopped(started):
    process = started(ANSWERING)
    until_ready(process)
    os.kill(process.pid, signal.SIGSTOP)
    assert problem_of(process) in ("stopped", "hung")
    process.kill()
    assert process.problem() == "not started"


def test_one_that_does_not_listen(started, monkeypatch):
    monkeypatch.setattr(managed_process, "START_TIMEOUT_S", 0.5)
    assert problem_of(started("import time; time.sleep(60)")) == "not started"


def test_orphans_are_ended_with_it(started, address):
    process = started(WITH_CHILDREN, HANGING)
    until_ready(process)
    session = process.pid
    os.kill(session, signal.SIGKILL)
    assert problem_of(process) == "died"
    assert listens(address)  # its child holds the port
    process.kill()
    assert processes_of_session(session) == []
    assert not listens(address)


def test_a_stopped_child_is_killed(started):
    process = started(WITH_CHILDREN, ANSWERING)
    until_ready(process)
    (child,) = set(processes_of_session(process.pid)) - {process.pid}
    os.kill(child, signal.SIGSTOP)
    end = time.monotonic() + 10
    while not process.kill_stopped_children():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert process.kill_stopped_children() == 0
    assert process.pid in processes_of_session(process.pid)


def test_a_taken_address_is_refused(started, address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))), pytest.raises(NginxError, match="is taken"):
        started(ANSWERING)
