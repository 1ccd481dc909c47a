"""The state file, the identity of processes, and the run folder with its lock."""

import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from torchserve_models.client import Endpoints
from torchserve_models.serving.commands.status import get_status
from torchserve_models.serving.commands.stopping import stop
from torchserve_models.serving.errors import AlreadyRunning, RunError
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import Identity, State

STATE = State(
    phase="ready",
    message="every model answers",
    supervisor=Identity.of(os.getpid()),
    frontend=Identity(2**22 + 1, "once"),
    endpoints=Endpoints(),
    models=("a", "b"),
    store="/store",
    temporary="/nowhere/at/all",
)


def test_a_state_is_read_back(tmp_path):
    path = tmp_path / "state.json"
    STATE.write(path)
    read = State.read(path)
    assert read is not None
    assert replace(read, updated=0.0) == STATE
    assert read.updated > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"frontend": 1}', "[" * 200_000, "null", "\ufffd\x00"]
)
def test_a_file_that_is_no_state_is_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    assert State.read(tmp_path / "state.json") is None


def test_without_room_for_another_file_it_is_written_in_place_or_not_at_all(tmp_path):
    path = tmp_path / "state.json"
    STATE.write(path)
    path.with_suffix(f".{os.getpid()}.new").mkdir()  # as on a full disk, there can be no new file
    replace(STATE, phase="stopping").write(path)
    assert State.read(path).phase == "stopping"
    with pytest.raises(OSError):  # noqa: PT011
        replace(STATE, phase="stopped", message="x" * 2**20).write(path)
    assert State.read(path).phase == "stopping"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phase", "unheard of"),
        ("phase", []),
        ("message", None),
        ("supervisor", {"pid": "7", "started": "now"}),
        ("supervisor", {"pid": True, "started": "now"}),
        ("supervisor", {"pid": -1, "started": "now"}),  # as a signal's target, every process
        ("frontend", {"pid": 0, "started": "now"}),
        ("frontend", {"pid": 77, "started": 5}),
        ("endpoints", {"inference": 8080}),
        ("models", [1]),
        ("models", None),
        ("temporary", ""),
        ("temporary", "tmp"),
        ("temporary", ["/tmp"]),
        ("stop_seconds", "10"),
        ("updated", None),
        ("more", 1),
    ],
)
def test_a_damaged_state_is_none(tmp_path, name, value):
    path = tmp_path / "state.json"
    STATE.write(path)
    assert State.read(path) is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert State.read(path) is None
    assert stop(RunDir(tmp_path)) == f"nothing runs in {tmp_path}"
    assert get_status(RunDir(tmp_path)).exit_code == 3


def test_a_process_is_told_from_a_later_one_of_the_same_number():
    me = Identity.of(os.getpid())
    assert me.alive()
    assert not replace(me, started=me.started + "0").alive()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_process_stays_the_same_when_somebody_sets_the_clock(monkeypatch):
    me = Identity.of(os.getpid())
    monkeypatch.setattr(psutil, "boot_time", lambda: 1e9)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 2e9)
    assert Identity.of(os.getpid()) == me
    assert me.alive()


def test_an_ended_process_is_not_alive_even_before_it_is_waited_for():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = Identity.of(child.pid)
    assert identity.alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.alive()
    child.communicate()


def test_one_run_folder_is_for_one_server(tmp_path):
    run = RunDir(tmp_path)
    run.make()
    STATE.write(run.state)
    with run.lock(), pytest.raises(AlreadyRunning, match=rf"process {os.getpid()}, ready"):
        run.lock()
    run.lock().close()


def test_a_long_path_gets_temporary_files_elsewhere(tmp_path):
    here = RunDir(tmp_path / "run")
    here.make()
    far = RunDir(tmp_path / ("x" * 100))
    far.make()
    short = RunDir(tmp_path).temporary() if len(str(tmp_path)) < 80 else None
    assert short in (None, tmp_path / "tmp")
    elsewhere = far.temporary()
    assert elsewhere.is_dir()
    assert len(str(elsewhere)) < 90
    elsewhere.rmdir()


def test_a_run_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="--run-dir"):
        RunDir(tmp_path / "file" / "run").make()


def test_a_run_folder_that_cannot_be_used_is_explained(tmp_path):
    run = RunDir(tmp_path / "run")
    run.make()
    (run.path / "lock").mkdir()
    with pytest.raises(RunError, match="--run-dir"):
        run.lock()
    (run.path / "tmp").write_text("")
    with pytest.raises(RunError, match="--run-dir"):
        run.temporary()


def test_a_run_folder_is_for_its_owner(tmp_path):
    run = RunDir(tmp_path / "of" / "a" / "run")
    run.make()
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700


@pytest.mark.parametrize("phase", ["stopped", "failed"])
def test_a_program_that_once_served_is_not_ended_for_it(tmp_path, phase):
    program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = RunDir(tmp_path)
    run.make()
    replace(STATE, phase=phase, supervisor=Identity.of(program.pid)).write(run.state)
    assert stop(run) == f"nothing runs in {tmp_path}"
    assert program.poll() is None
    program.kill()
    program.communicate()


def test_a_supervisor_that_says_nothing_more_is_ended(tmp_path):
    """It does not answer SIGTERM with its own end within the time that the end may take: nobody waits longer."""
    run = RunDir(tmp_path)
    run.make()
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    program.stdout.readline()
    replace(STATE, supervisor=Identity.of(program.pid), frontend=None, stop_seconds=0.1).write(run.state)
    assert stop(run).startswith("stopped")
    program.communicate(timeout=30)
    assert program.returncode == -signal.SIGKILL


def test_somebody_elses_server_is_an_error_and_no_traceback(tmp_path, monkeypatch):
    def kill(_pid, _number):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    STATE.write(RunDir(tmp_path).state)
    with pytest.raises(RunError, match=rf"process {os.getpid()} belongs to another user"):
        stop(RunDir(tmp_path))


def test_where_nothing_was_started_status_and_stop_say_so(tmp_path):
    run = RunDir(tmp_path)
    found = get_status(run)
    assert (found.running, found.ready, found.exit_code) == (False, False, 3)
    assert "scripts/serve" in str(found.problem)
    assert stop(run) == f"nothing runs in {tmp_path}"


def test_a_run_whose_processes_were_killed_is_not_running(tmp_path):
    run = RunDir(tmp_path)
    run.make()
    gone = Identity(2**22 + 2, "once")
    replace(STATE, supervisor=gone).write(run.state)
    found = get_status(run)
    assert found.exit_code == 3
    assert "its processes were killed" in str(found.problem)
