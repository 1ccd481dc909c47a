"""Tests of the state file, process identities, and the run folder with its lock."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from torchserve_models.client import Endpoints
from torchserve_models.paths import ROOT
from torchserve_models.serving.commands.status import get_status
from torchserve_models.serving.commands.stop_command import stop
from torchserve_models.serving.errors import AlreadyRunning, ConfigError, RunError
from torchserve_models.serving.run_config import state
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.run_plan import plan_run
from torchserve_models.serving.run_config.state import ProcessIdentity, RunState

STATE = RunState(
    phase="ready",
    message="every model answers",
    supervisor=ProcessIdentity.of(os.getpid()),
    frontend=ProcessIdentity(2**22 + 1, "once"),
    endpoints=Endpoints(),
    models=("a", "b"),
    store="/store",
    temporary="/nowhere/at/all",
)


def test_state_is_read_as_written(tmp_path):
    path = tmp_path / "state.json"
    STATE.write(path)
    read = RunState.read(path)
    assert read is not None
    assert replace(read, updated=0.0) == STATE
    assert read.updated > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_message_with_a_path_that_is_not_utf8_is_written(tmp_path):
    replace(STATE, message="no such file: /tmp/\udce9").write(tmp_path / "state.json")
    read = RunState.read(tmp_path / "state.json")
    assert read is not None
    assert read.message == "no such file: /tmp/?"


def test_folder_whose_name_is_not_utf8_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="not valid UTF-8"):
        plan_run([], tmp_path / "\udce9", tmp_path / "run")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"frontend": 1}', "[" * 200_000, "null", "\ufffd\x00"]
)
def test_invalid_file_is_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    assert RunState.read(tmp_path / "state.json") is None


def test_full_disk_leaves_the_old_state_or_writes_in_place(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    STATE.write(path)

    def fail(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(state, "write_atomic", fail)
    replace(STATE, phase="stopping").write(path)
    assert RunState.read(path).phase == "stopping"
    with pytest.raises(OSError):  # noqa: PT011
        replace(STATE, phase="stopped", message="x" * 2**20).write(path)
    assert RunState.read(path).phase == "stopping"


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
def test_state_with_invalid_value_is_none(tmp_path, name, value):
    path = tmp_path / "state.json"
    STATE.write(path)
    assert RunState.read(path) is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert RunState.read(path) is None
    assert stop(RunDir(tmp_path)) == f"nothing runs in {tmp_path}"
    assert get_status(RunDir(tmp_path)).exit_code == 3


def test_process_is_distinguished_from_a_later_one_with_the_same_id():
    me = ProcessIdentity.of(os.getpid())
    assert me.alive()
    assert not replace(me, started=me.started + "0").alive()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_identity_does_not_depend_on_the_clock(monkeypatch):
    me = ProcessIdentity.of(os.getpid())
    monkeypatch.setattr(psutil, "boot_time", lambda: 1e9)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 2e9)
    assert ProcessIdentity.of(os.getpid()) == me
    assert me.alive()


def test_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(child.pid)
    assert identity.alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.alive()
    child.communicate()


def test_run_folder_is_locked_by_one_server(tmp_path):
    run = RunDir(tmp_path)
    run.make()
    STATE.write(run.state)
    with run.lock(), pytest.raises(AlreadyRunning, match=rf"process {os.getpid()}, ready"):
        run.lock()
    run.lock().close()


def test_long_path_has_its_temporary_folder_elsewhere(tmp_path):
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


def test_run_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="--run-dir"):
        RunDir(tmp_path / "file" / "run").make()


def test_unusable_run_folder_is_an_error(tmp_path):
    run = RunDir(tmp_path / "run")
    run.make()
    (run.path / "lock").mkdir()
    with pytest.raises(RunError, match="--run-dir"):
        run.lock()
    (run.path / "tmp").write_text("")
    with pytest.raises(RunError, match="--run-dir"):
        run.temporary()


def test_run_folder_is_accessible_to_its_owner_only(tmp_path):
    run = RunDir(tmp_path / "of" / "a" / "run")
    run.make()
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700


@pytest.mark.parametrize("phase", ["stopped", "failed"])
def test_program_that_has_stopped_serving_is_not_ended(tmp_path, phase):
    program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = RunDir(tmp_path)
    run.make()
    replace(STATE, phase=phase, supervisor=ProcessIdentity.of(program.pid)).write(run.state)
    assert stop(run) == f"nothing runs in {tmp_path}"
    assert program.poll() is None
    program.kill()
    program.communicate()


def test_hanging_supervisor_is_ended(tmp_path):
    """The supervisor does not end after SIGTERM within the time limit of the shutdown."""
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
    replace(STATE, supervisor=ProcessIdentity.of(program.pid), frontend=None, stop_seconds=0.1).write(
        run.state
    )
    assert stop(run).startswith("stopped")
    program.communicate(timeout=30)
    assert program.returncode == -signal.SIGKILL


HANGS = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
signal.pause()
"""


def test_hanging_supervisor_is_ended_with_its_guardian(tmp_path):
    """The guardian would start a killed supervisor again."""
    run = RunDir(tmp_path)
    run.make()
    python = [sys.executable, "-P", "-m"]
    guardian = subprocess.Popen(
        [*python, "torchserve_models.guardian", sys.executable, "-c", HANGS],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert guardian.stdout is not None
    supervisor = ProcessIdentity.of(int(guardian.stdout.readline()))
    identity = ProcessIdentity.of(guardian.pid)
    hanging = replace(STATE, supervisor=supervisor, guardian=identity, frontend=None, stop_seconds=0.1)
    assert hanging.leader == identity
    hanging.write(run.state)
    assert stop(run).startswith("stopped")
    output, _ = guardian.communicate(timeout=30)
    assert output == ""
    assert guardian.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while supervisor.alive() and time.monotonic() < deadline:  # it has closed its files and is about to end
        time.sleep(0.01)
    assert not supervisor.alive()
    assert hanging.leader == supervisor  # the guardian has ended


def test_state_without_a_guardian_is_read(tmp_path):
    """As written before a guardian existed."""
    STATE.write(tmp_path / "state.json")
    content = json.loads((tmp_path / "state.json").read_text())
    del content["guardian"]
    (tmp_path / "state.json").write_text(json.dumps(content))
    read = RunState.read(tmp_path / "state.json")
    assert read is not None
    assert read.guardian is None
    assert read.leader == read.supervisor


def test_server_of_another_user_is_an_error(tmp_path, monkeypatch):
    def kill(_pid, _number):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    STATE.write(RunDir(tmp_path).state)
    with pytest.raises(RunError, match=rf"process {os.getpid()} belongs to another user"):
        stop(RunDir(tmp_path))


def test_status_and_stop_report_an_unused_run_folder(tmp_path):
    run = RunDir(tmp_path)
    result = get_status(run)
    assert (result.running, result.ready, result.exit_code) == (False, False, 3)
    assert "scripts/serve" in str(result.problem)
    assert stop(run) == f"nothing runs in {tmp_path}"


def test_run_with_killed_processes_is_not_running(tmp_path):
    run = RunDir(tmp_path)
    run.make()
    gone = ProcessIdentity(2**22 + 2, "once")
    replace(STATE, supervisor=gone).write(run.state)
    result = get_status(run)
    assert result.exit_code == 3
    assert "the server's processes were killed" in str(result.problem)
