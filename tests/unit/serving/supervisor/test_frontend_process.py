"""The front end's command and environment, and the end of a whole session."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from tests.live_server import alive
from torchserve_models.serving.run_config.run_plan import plan
from torchserve_models.serving.run_config.state import Identity
from torchserve_models.serving.supervisor import frontend_process
from torchserve_models.serving.system.process_state import is_waiting

# A leader that starts a child and ignores SIGTERM; both have the folder in their command lines or not.
LEADER = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
wait = "import time; print(flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", wait, sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def session(tmp_path):
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    leader.stdout.readline()
    identity = Identity.of(leader.pid)
    yield leader, identity
    frontend_process.kill(identity, tmp_path)
    leader.wait()
    leader.stdout.close()


def test_nothing_of_the_callers_python_reaches_the_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("TS_CONFIG_FILE", "/another")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made = plan(["a"], tmp_path, tmp_path)
    environment = frontend_process.environment(made.run, tmp_path / "tmp")
    assert "PYTHONPATH" not in environment
    assert "TS_CONFIG_FILE" not in environment
    assert "HF_TOKEN" not in environment
    assert environment["WORKER_ACTIVITY_DIR"] == str(tmp_path / "activity")
    assert environment["EDGE_EVENTS_DIR"] == str(tmp_path / "edge")
    assert environment["OMP_NUM_THREADS"] == "3"
    assert int(environment["GOMP_SPINCOUNT"]) > 0
    assert environment["THP_MEM_ALLOC_ENABLE"] == "1"
    assert environment["TMPDIR"] == environment["TEMP"] == str(tmp_path / "tmp")
    assert environment["LOG_LOCATION"] == str(tmp_path / "logs")


def test_what_torch_is_told_can_be_said_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    environment = frontend_process.environment(plan(["a"], tmp_path, tmp_path).run, tmp_path)
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert environment["THP_MEM_ALLOC_ENABLE"] == "0"
    assert "GOMP_SPINCOUNT" not in environment


def test_the_command_names_this_python_and_this_runs_configuration(tmp_path):
    made = plan(["a"], tmp_path, tmp_path)
    command = frontend_process.command(
        made.run, {**made.settings, "vmargs": "-Xmx1g -Xss1m"}, tmp_path / "tmp"
    )
    assert os.access(command[0], os.X_OK)
    assert command[command.index("--python") + 1] == sys.executable
    assert command[command.index("-f") + 1] == str(made.run.config)
    assert "-ncs" in command
    assert {"-Xmx1g", "-Xss1m", f"-Djava.io.tmpdir={tmp_path / 'tmp'}"} <= set(command)
    assert "-XX:+ExitOnOutOfMemoryError" in command
    assert [option for option in command if option.startswith("-Xmx")] == ["-Xmx1g"]
    assert frontend_process.LOG_CONFIG.is_file()


def test_the_end_takes_every_process_of_the_session(tmp_path, session):
    leader, identity = session
    session_processes = frontend_process.session_processes(identity, tmp_path)
    assert len(session_processes) == 2
    start = time.monotonic()
    frontend_process.end(identity, tmp_path, timeout_s=0.3)
    assert time.monotonic() - start >= 0.3
    assert frontend_process.session_processes(identity, tmp_path) == []
    leader.wait()
    assert not any(alive(member) for member in session_processes)


def test_orphans_of_a_killed_leader_are_found_and_those_of_others_are_not(tmp_path, session):
    leader, identity = session
    leader.kill()
    leader.wait()
    (orphan,) = frontend_process.session_processes(identity, tmp_path)
    assert frontend_process.session_processes(identity, tmp_path / "of another run") == []
    frontend_process.kill(identity, tmp_path)
    psutil.wait_procs([orphan], timeout=5)
    assert frontend_process.session_processes(identity, tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_process_at_its_socket_waits_and_one_that_works_does_not():
    code = "import socket; a, b = socket.socketpair(); print(flush=True); {}"
    for doing, waiting in (("a.recv(1)", True), ("__import__('time').sleep(60)", False)):
        child = subprocess.Popen([sys.executable, "-c", code.format(doing)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.2)
        if waiting or _kernel_tells(child.pid):
            assert is_waiting(child.pid) is waiting
        child.kill()
        child.communicate()
        assert is_waiting(child.pid)


def _kernel_tells(pid):
    with open(f"/proc/{pid}/wchan") as file:
        return file.read() not in ("", "0")
