"""Start a supervisor in the background and follow it until its models answer or it fails."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from torchserve_models.paths import ROOT
from torchserve_models.serving.commands.progress import Progress
from torchserve_models.serving.errors import AlreadyRunning, FrontendFailed, Interrupted, RunError
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.run_plan import RunPlan
from torchserve_models.serving.run_config.state import RunState


def start_detached(plan: RunPlan, progress: Progress) -> None:
    """Start a detached server and return when it is ready. Raises RunError, with nothing left running."""
    run = plan.run
    run.make()
    run.lock().close()  # fails at once if a server is running; the supervisor takes the lock itself
    with open(run.supervisor_log, "ab") as log:
        offset = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "torchserve_models.serving.detached_supervisor"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert child.stdin is not None
        with (
            suppress(BrokenPipeError),
            child.stdin as stdin,
        ):  # every user can read a command line, and settings may hold a password
            stdin.write(plan.as_json().encode())
        _follow(child, run, progress, offset)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise Interrupted("stopped during startup") from None


def _follow(child: "subprocess.Popen[bytes]", run: RunDir, progress: Progress, offset: int) -> None:
    while True:
        code = child.poll()
        state = RunState.read(run.state)
        is_child_state = state is not None and state.supervisor.pid == child.pid
        if state is not None and is_child_state and state.phase == "ready" and code is None:
            child.returncode = 0  # the child continues in the background: suppresses a warning
            return
        if code is not None:
            if state is not None and is_child_state and state.phase == "failed":
                raise RunError(state.message)
            raise _exit_error(run, offset)
        if state is not None and is_child_state and state.phase == "starting":
            progress.update(state.message)
        time.sleep(0.2)


def _exit_error(run: RunDir, offset: int) -> RunError:
    """Return the error for a supervisor that ended without writing its state, based on its output."""
    with open(run.supervisor_log, "rb") as log:
        log.seek(offset)
        printed = log.read().decode(errors="replace").strip()
    if "already running" in printed:
        return AlreadyRunning(printed.partition("error: ")[2] or printed)
    return FrontendFailed(
        f"the supervisor ended: {printed.splitlines()[-1] if printed else 'it printed no error message'}; "
        f"its log: {run.supervisor_log}"
    )
