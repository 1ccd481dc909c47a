"""Child processes in separate sessions, and modules that run in a separate process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.live_server import alive
from torchserve_models.processes import kill_processes, run_module, session_processes, start_session


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def session_pids(session):
    return {process.pid for process in session_processes(session)}


def test_process_leads_a_session_and_gets_its_environment_and_output_file(tmp_path):
    with open(tmp_path / "out", "wb") as output:
        process = start_session(
            ["sh", "-c", 'echo "$NAME $PWD"; echo error >&2'],
            {"NAME": "value", "PATH": os.environ["PATH"]},
            cwd=tmp_path,
            output=output,
        )
        assert os.getsid(process.pid) == process.pid
        assert process.wait(20) == 0
    assert (tmp_path / "out").read_text() == f"value {tmp_path}\nerror\n"


def test_file_descriptors_are_passed_on():
    read, write = os.pipe()
    code = f"import os; os.write({write}, b'text')"
    process = start_session([sys.executable, "-c", code], os.environ, pass_fds=[write])
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "text"
    assert process.wait(20) == 0


def test_missing_program_is_an_error():
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        start_session(["no-such-program"], os.environ)


@pytest.mark.skipif(sys.platform != "linux", reason="the Linux kernel sends the signal")
def test_process_ends_when_its_parent_is_killed():
    code = (
        "import os, time; from torchserve_models.processes import start_session\n"
        "print(start_session(['sleep', '600'], os.environ).pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        (child,) = session_processes(int(parent.stdout.readline()))
        until(lambda: child.name() == "sleep")
        parent.kill()
    until(lambda: not alive(child))


def test_orphans_stay_in_their_session_until_they_are_killed():
    leader = start_session(["sh", "-c", "sleep 600 & sleep 600 & wait"], os.environ)
    until(lambda: len(session_pids(leader.pid)) == 3)
    leader.kill()
    leader.wait()
    assert len(session_pids(leader.pid)) == 2
    kill_processes(lambda: session_processes(leader.pid))
    assert session_pids(leader.pid) == set()


@pytest.fixture
def module(tmp_path):
    def run(code):
        (tmp_path / "a_module.py").write_text(code)
        return run_module("a_module", ["one", "two"], os.environ | {"PYTHONPATH": str(tmp_path)}, tmp_path)

    return run


def test_module_result_has_the_output(module):
    result = module("import sys; print(sys.argv[1:])")
    assert (result.returncode, result.stdout, result.message) == (0, b"['one', 'two']\n", "")


def test_module_result_has_the_exit_code_and_the_last_line_of_stderr(module):
    result = module("import sys; print('first', file=sys.stderr); sys.exit('last')")
    assert (result.returncode, result.message) == (1, "last")


def test_module_result_names_the_signal_that_ended_it(module):
    result = module("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert result.returncode == -signal.SIGKILL
    assert result.message.startswith("the process was ended by SIGKILL")
