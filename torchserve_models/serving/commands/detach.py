"""Start a supervisor in the background and follow it until its models answer or it fails."""

import os
import signal
import subprocess
import sys
import time

from torchserve_models.files import write_atomic
from torchserve_models.paths import ROOT
from torchserve_models.serving.commands.progress import Progress
from torchserve_models.serving.errors import AlreadyRunning, FrontendFailed, Interrupted, RunError
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.run_plan import RunPlan
from torchserve_models.serving.run_config.state import RunState


def start_detached(plan: RunPlan, progress: Progress) -> None:
    """Start a detached server and return when it is ready, or when only restored models are not.

    The supervisor has a guardian, which starts it again if it is killed.

    Raises:
        RunError: The server could not be started. Nothing is left running.
    """
    run = plan.run
    run.make()
    run.lock().close()  # fails at once if a server is running; the supervisor takes the lock itself
    # A file for the owner only: every user can read a command line, and settings may contain a password.
    write_atomic(run.plan, plan.as_json(), mode=0o600)
    python = [sys.executable, "-P", "-m"]
    with open(run.supervisor_log, "ab") as log:
        offset = log.tell()
        child = subprocess.Popen(
            [
                *(*python, "torchserve_models.guardian"),
                *(*python, "torchserve_models.serving.detached_supervisor", str(run.plan)),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _follow(child, run, progress, offset)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise Interrupted("stopped during startup") from None


def _follow(child: "subprocess.Popen[bytes]", run: RunDir, progress: Progress, offset: int) -> None:
    while True:
        code = child.poll()
        state = RunState.read(run.state)
        is_child_state = state is not None and state.guardian is not None and state.guardian.pid == child.pid
        if state is not None and is_child_state and state.phase in ("ready", "not ready") and code is None:
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
