"""The state file, the identity of processes, and the run folder with its lock."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from client import Endpoints
from serving.errors import AlreadyRunning, RunError
from serving.rundir import RunDir
from serving.state import Identity, State
from serving.status import look
from serving.stop import stop

STATE = State(
    phase="ready",
    message="every model answers",
    supervisor=Identity.of(os.getpid()),
    frontend=Identity(2**22 + 1, 1.0),
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


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"frontend": 1}'])
def test_a_file_that_is_no_state_is_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    assert State.read(tmp_path / "state.json") is None


def test_a_process_is_told_from_a_later_one_of_the_same_number():
    me = Identity.of(os.getpid())
    assert me.alive()
    assert not replace(me, started=me.started - 100).alive()


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


def test_where_nothing_was_started_status_and_stop_say_so(tmp_path):
    run = RunDir(tmp_path)
    found = look(run)
    assert (found.running, found.ready, found.exit_code) == (False, False, 3)
    assert "scripts/serve" in str(found.problem)
    assert stop(run) == f"nothing runs in {tmp_path}"


def test_a_run_whose_processes_were_killed_is_not_running(tmp_path):
    run = RunDir(tmp_path)
    run.make()
    gone = Identity(2**22 + 2, 1.0)
    replace(STATE, supervisor=gone).write(run.state)
    found = look(run)
    assert found.exit_code == 3
    assert "its processes were killed" in str(found.problem)
