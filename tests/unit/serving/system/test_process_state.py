"""What /proc says of processes that run, are stopped, have ended, or outlive their parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from torchserve_models.serving.system.process_state import (
    is_running,
    is_stopped,
    processes_of_session,
    read_process_state,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /proc")


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_stopped_and_continued(sleeper):
    assert not is_stopped(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    until(lambda: is_stopped(sleeper.pid))
    assert is_running(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGCONT)
    until(lambda: not is_stopped(sleeper.pid))


def test_ended(sleeper):
    sleeper.kill()
    until(lambda: read_process_state(sleeper.pid) == "Z")
    assert not is_running(sleeper.pid)
    sleeper.wait()
    assert read_process_state(sleeper.pid) is None
    assert not is_running(sleeper.pid)


def test_orphans_stay_in_their_session():
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60 & wait"], start_new_session=True)
    until(lambda: len(processes_of_session(leader.pid)) == 3)
    leader.kill()
    leader.wait()
    orphans = processes_of_session(leader.pid)
    assert len(orphans) == 2
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    until(lambda: processes_of_session(leader.pid) == [])
