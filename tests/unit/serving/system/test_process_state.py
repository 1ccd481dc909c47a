"""Tests of process states: running, stopped and ended."""

import os
import signal
import subprocess
import sys
import time

import pytest

from torchserve_models.serving.system.process_state import (
    is_running,
    is_stopped,
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


def test_stopped_process_is_detected_until_it_is_continued(sleeper):
    assert not is_stopped(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    until(lambda: is_stopped(sleeper.pid))
    assert is_running(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGCONT)
    until(lambda: not is_stopped(sleeper.pid))


def test_ended_process_is_not_running(sleeper):
    sleeper.kill()
    until(lambda: read_process_state(sleeper.pid) == "Z")
    assert not is_running(sleeper.pid)
    sleeper.wait()
    assert read_process_state(sleeper.pid) is None
    assert not is_running(sleeper.pid)
