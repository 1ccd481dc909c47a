"""Tests of the guardian: restarts after signals, exit codes, stop requests, and the limit."""

import os
import signal
import subprocess
import sys
import time

import pytest

from torchserve_models import guardian
from torchserve_models.backoff import Backoff
from torchserve_models.guardian import PID_VARIABLE, RESTARTS_VARIABLE, Guardian
from torchserve_models.paths import ROOT

# Writes a line with its process id and the guardian's variables, then waits or ends as the argument says.
CHILD = """
import os, signal, sys, time
from torchserve_models import guardian
def end(*_):
    print("stopping", flush=True)
    sys.exit(7)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, end)
print(os.getpid(), guardian.guardian_pid() == os.getppid(), guardian.is_restart(), flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def guarded():
    """Start guardians of CHILD as processes, and kill what remains of them."""
    started = []

    def start(seconds, code):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "torchserve_models.guardian"]
            + [sys.executable, "-P", "-c", CHILD, str(seconds), str(code)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_killed_command_is_started_again_until_it_is_stopped(guarded, number):
    process = guarded(60, 0)
    first, *described = process.stdout.readline().split()
    assert described == ["True", "False"]
    os.kill(int(first), signal.SIGKILL)
    second, *described = process.stdout.readline().split()
    assert second != first
    assert described == ["True", "True"]
    process.send_signal(number)
    assert process.wait(timeout=30) == 7
    output, errors = process.communicate()
    assert output == "stopping\n"
    assert "killed by signal 9; starting it again" in errors


def test_exit_code_of_the_command_is_passed_on(guarded):
    assert guarded(0, 3).wait(timeout=30) == 3


def test_command_that_is_killed_too_often_is_not_started_again():
    messages = []
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    backoff = Backoff(initial_delay_s=0.0, max_restarts=2)
    assert Guardian(command, backoff, messages.append).run() == 128 + signal.SIGKILL
    assert backoff.count == 3
    assert "too often" in messages[-1]


def test_stop_during_the_delay_ends_the_guardian():
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    stopped = []

    def stop(_message):
        stopped.append(time.monotonic())
        watched.on_signal(signal.SIGTERM)

    watched = Guardian(command, Backoff(initial_delay_s=600.0), stop)
    assert watched.run() == 128 + signal.SIGTERM
    assert len(stopped) == 1


def test_process_without_a_guardian_has_none(monkeypatch):
    monkeypatch.delenv(PID_VARIABLE, raising=False)
    assert guardian.guardian_pid() is None
    monkeypatch.setenv(PID_VARIABLE, str(os.getpid()))  # inherited from a process that is not the parent
    monkeypatch.setenv(RESTARTS_VARIABLE, "3")
    assert guardian.guardian_pid() is None
    assert not guardian.is_restart()
    monkeypatch.setenv(PID_VARIABLE, str(os.getppid()))
    assert guardian.guardian_pid() == os.getppid()
    assert guardian.is_restart()
