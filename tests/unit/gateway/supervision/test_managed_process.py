"""Problems of a supervised process, and the end of its children."""

import os
import signal
import socket
import sys
import time

import pytest

from torchserve_models.gateway.nginx.config import NginxError
from torchserve_models.gateway.supervision import managed_process
from torchserve_models.gateway.supervision.addresses import is_listening
from torchserve_models.gateway.supervision.managed_process import ManagedProcess
from torchserve_models.processes import session_processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /proc")

RESPONDING = """
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
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def start_process(address, monkeypatch):
    monkeypatch.setattr(managed_process, "PROBE_INTERVAL_S", 0.05)
    monkeypatch.setattr(managed_process, "PROBE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(managed_process, "STOPPED_LIMIT_S", 0.5)
    process = ManagedProcess("process", address, (address, "/"), signal.SIGTERM)

    def start(program, *arguments):
        port = address.rpartition(":")[2]
        process.start([sys.executable, "-c", program, port, *arguments], {})
        return process

    yield start
    process.kill()
    process.close()


def wait_for_problem(process, seconds=15):
    deadline = time.monotonic() + seconds
    while (problem := process.problem()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return problem


def wait_until_ready(process):
    deadline = time.monotonic() + 15
    while not process.is_ready:
        assert process.problem() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_responding_process_has_no_problem(start_process):
    process = start_process(RESPONDING)
    wait_until_ready(process)
    deadline = time.monotonic() + 0.8  # longer than each limit
    while time.monotonic() < deadline:
        assert process.problem() is None
        time.sleep(0.05)
    process.request_stop()
    assert wait_for_problem(process) == "died"


def test_process_that_does_not_respond_is_reported_as_hung(start_process):
    process = start_process(HANGING)
    wait_until_ready(process)
    assert wait_for_problem(process) == "hung"


def test_stopped_process_is_reported(start_process):
    process = start_process(RESPONDING)
    wait_until_ready(process)
    os.kill(process.pid, signal.SIGSTOP)
    assert wait_for_problem(process) in ("stopped", "hung")
    process.kill()
    assert process.problem() == "not started"


def test_process_that_does_not_listen_is_not_started(start_process, monkeypatch):
    monkeypatch.setattr(managed_process, "START_TIMEOUT_S", 0.5)
    assert wait_for_problem(start_process("import time; time.sleep(60)")) == "not started"


def test_orphaned_children_are_killed(start_process, address):
    process = start_process(WITH_CHILDREN, HANGING)
    wait_until_ready(process)
    session = process.pid
    os.kill(session, signal.SIGKILL)
    assert wait_for_problem(process) == "died"
    assert is_listening(address)  # the child holds the port
    process.kill()
    assert session_processes(session) == []
    assert not is_listening(address)


def test_stopped_child_is_killed(start_process):
    process = start_process(WITH_CHILDREN, RESPONDING)
    wait_until_ready(process)
    (child,) = {member.pid for member in session_processes(process.pid)} - {process.pid}
    os.kill(child, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while not process.kill_stopped_children():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.kill_stopped_children() == 0
    assert process.pid in [member.pid for member in session_processes(process.pid)]


def test_address_in_use_is_an_error(start_process, address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))), pytest.raises(NginxError, match="is already in use"):
        start_process(RESPONDING)
