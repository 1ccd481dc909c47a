"""Tests of the front end's command and environment, and of ending its session."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from tests.live_server import alive
from torchserve_models.serving.run_config.run_plan import plan_run
from torchserve_models.serving.run_config.state import ProcessIdentity
from torchserve_models.serving.supervisor import frontend_process
from torchserve_models.serving.supervisor.frontend import ProcessLauncher
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
    identity = ProcessIdentity.of(leader.pid)
    yield leader, identity
    frontend_process.kill(identity, tmp_path)
    leader.wait()
    leader.stdout.close()


def test_python_settings_of_the_caller_are_not_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("TS_CONFIG_FILE", "/another")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    plan = plan_run(["a"], tmp_path, tmp_path)
    environment = frontend_process.environment(plan.run, tmp_path / "tmp")
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


def test_torch_settings_can_be_overridden(tmp_path, monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    environment = frontend_process.environment(plan_run(["a"], tmp_path, tmp_path).run, tmp_path)
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert environment["THP_MEM_ALLOC_ENABLE"] == "0"
    assert "GOMP_SPINCOUNT" not in environment


def test_command_has_this_python_and_the_run_configuration(tmp_path):
    plan = plan_run(["a"], tmp_path, tmp_path)
    command = frontend_process.command(
        plan.run, {**plan.settings, "vmargs": "-Xmx1g -Xss1m"}, tmp_path / "tmp"
    )
    assert os.access(command[0], os.X_OK)
    assert command[command.index("--python") + 1] == sys.executable
    assert command[command.index("-f") + 1] == str(plan.run.config)
    assert "-ncs" in command
    assert {"-Xmx1g", "-Xss1m", f"-Djava.io.tmpdir={tmp_path / 'tmp'}"} <= set(command)
    assert "-XX:+ExitOnOutOfMemoryError" in command
    assert [option for option in command if option.startswith("-Xmx")] == ["-Xmx1g"]
    assert frontend_process.LOG_CONFIG.is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit cores")
@pytest.mark.parametrize("restarts", [0, 1])
def test_setting_limits_the_cores_of_the_front_end_only(tmp_path, monkeypatch, restarts):
    core = max(os.sched_getaffinity(0))
    print_cores = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
    monkeypatch.setattr(frontend_process, "command", lambda *_: print_cores)
    run = plan_run(["a"], tmp_path, tmp_path).run
    run.make()
    cores = os.sched_getaffinity(0)
    launcher = ProcessLauncher()
    for _ in range(1 + restarts):
        launcher.launch(
            lambda: frontend_process.start(run, {"cores": f"{core}-{core}"}, tmp_path / "tmp")
        ).wait()
    launcher.close()
    assert run.output.read_text().splitlines() == [str({core})] * (1 + restarts)
    assert os.sched_getaffinity(0) == cores


def test_end_kills_every_process_of_the_session(tmp_path, session):
    leader, identity = session
    session_processes = frontend_process.frontend_processes(identity, tmp_path)
    assert len(session_processes) == 2
    start = time.monotonic()
    frontend_process.end(identity, tmp_path, timeout_s=0.3)
    assert time.monotonic() - start >= 0.3
    assert frontend_process.frontend_processes(identity, tmp_path) == []
    leader.wait()
    assert not any(alive(member) for member in session_processes)


def test_only_orphans_of_this_run_are_found(tmp_path, session):
    leader, identity = session
    leader.kill()
    leader.wait()
    (orphan,) = frontend_process.frontend_processes(identity, tmp_path)
    assert frontend_process.frontend_processes(identity, tmp_path / "of another run") == []
    frontend_process.kill(identity, tmp_path)
    psutil.wait_procs([orphan], timeout=5)
    assert frontend_process.frontend_processes(identity, tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_process_that_reads_a_socket_is_waiting():
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
