"""Starts one front end, waits until its models truly answer, watches it, ends it: the heart of scripts/serve.

`python -m serving.supervise` does it in the background for scripts/serve --detach, with the plan on its stdin.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from serving import process
from serving.config import write
from serving.drain import drain
from serving.errors import FrontendFailed, Interrupted, RunError
from serving.health_monitor import HealthMonitor
from serving.plan import Plan
from serving.ports import check_free
from serving.startup import Start
from serving.state import Identity, Phase, State

GRACE = 5.0
"""Seconds that requests in flight get to be answered before the end."""
SHUTDOWN = 3.0
"""Seconds that the front end gets to shut down; it needs a good two of them for itself, by netty's default."""
END = 9.0
"""Seconds from the wish for the end to the end, of which GRACE and SHUTDOWN are parts."""
_KILLING = 0.5
_STEP = 0.2

Report = Callable[[str], None]


class Supervisor:
    """One run. Call `start`, then `watch`, and `stop` in any case.

    `say` gets each event for a person, `progress` what is being waited for.
    """

    def __init__(self, plan: Plan, say: Report, progress: Report | None = None) -> None:
        self.plan = plan
        self._deadline: float | None = None
        self._say = say
        self._progress = progress or (lambda _: None)
        self._lock: IO[str] | None = None
        self._java: subprocess.Popen[bytes] | None = None
        self._state: State | None = None
        self._monitor: HealthMonitor | None = None

    def start(self) -> None:
        """Returns when every model has answered a request. Raises RunError, with everything ended again."""
        run = self.plan.run
        run.make()
        self._lock = run.lock()
        try:
            clean_up(State.read(run.state), self._say)
            self._begin()
            check_free(self.plan.settings)
            self._monitor = HealthMonitor(self.plan, self._say)
            self._monitor.start()
            write(run.config, self.plan.settings)
            start = Start(self.plan, self._check, self._now_at)
            assert self._state is not None
            self._java = process.start(run, self.plan.settings, self._temporary)
            self._state = replace(self._state, frontend=Identity.of(self._java.pid))
            self._now_at("starting TorchServe")
            models = start.wait()
            self._monitor.serve(models)
            self._set("ready", "every model answers")
        except BaseException as error:
            self.stop("failed" if isinstance(error, Exception) else "stopped", str(error))
            raise

    def ask_to_stop(self) -> None:
        """From any thread, or a signal handler, where an Event could wait for itself. The end takes END seconds."""
        if self._monitor is not None:
            self._monitor.phase = "stopping"
        if self._deadline is None:
            self._deadline = time.monotonic() + END

    def watch(self) -> None:
        """Until somebody asks to stop. Raises FrontendFailed when the front end ends by itself."""
        assert self._monitor is not None
        while True:
            time.sleep(_STEP)
            if self._deadline is not None:
                return
            if self._java is not None and self._java.poll() is not None:
                raise FrontendFailed(
                    f"TorchServe's front end has ended by itself ({_ending(self._java.returncode)}); "
                    f"its log: {self.plan.run.server_log}"
                )
            problem = self._monitor.problem()
            message = problem or "every model answers"
            if self._state is not None and message != self._state.message:
                self._say(f"not ready: {problem}" if problem else "ready again")
                self._set("not ready" if problem else "ready", message)

    def stop(self, phase: Phase = "stopped", message: str = "ended as asked") -> None:
        """Lets requests in flight be answered, within GRACE; then ends every process. Twice does no harm."""
        if self._lock is None:
            return
        self.ask_to_stop()
        if self._java is not None and self._state is not None and self._state.frontend is not None:
            running = self._state.phase in ("ready", "not ready") and self._java.poll() is None
            self._set("stopping", message)
            if running:
                drain(self.plan.endpoints, self._at_most(GRACE, SHUTDOWN + _KILLING))
            process.end(self._state.frontend, self._temporary, self._at_most(SHUTDOWN) if running else 0.0)
            self._java.wait()
        if self._monitor is not None:
            self._monitor.close()
        if self._state is not None:
            process.remove(self._temporary)
            self._set(phase, message)
        self._lock.close()
        self._lock = None

    def _at_most(self, seconds: float, reserve: float = _KILLING) -> float:
        """Those seconds, or what the deadline leaves of them when `reserve` is kept back."""
        assert self._deadline is not None
        return max(0.0, min(seconds, self._deadline - time.monotonic() - reserve))

    def _begin(self) -> None:
        self._temporary = self.plan.run.temporary()
        self._state = State(
            phase="starting",
            message="starting",
            supervisor=Identity.of(os.getpid()),
            frontend=None,
            endpoints=self.plan.endpoints,
            models=self.plan.models,
            store=str(self.plan.store),
            temporary=str(self._temporary),
        )
        self._set("starting", "starting")

    def _set(self, phase: Phase, message: str) -> None:
        assert self._state is not None
        self._state = replace(self._state, phase=phase, message=message)
        try:
            self._state.write(self.plan.run.state)
        except OSError as error:  # a full disk is no reason to leave processes behind
            self._say(f"{self.plan.run.state} cannot be written: {error.strerror}")

    def _now_at(self, message: str) -> None:
        self._set("starting", message)
        self._progress(message)

    def _check(self) -> None:
        """Called while a start waits."""
        if self._deadline is not None:
            raise Interrupted("stopped before the start was over")
        if self._java is not None and self._java.poll() is not None:
            raise FrontendFailed(
                f"TorchServe's front end did not start ({_ending(self._java.returncode)}): "
                f"{_last_line(self.plan)}\nIts output: {self.plan.run.output}"
            )


def clean_up(state: State | None, say: Report, patience: float = SHUTDOWN) -> None:
    """Ends what a supervisor left behind that was killed. Only for the holder of the run folder's lock."""
    if state is None:
        return
    temporary = Path(state.temporary)
    if state.frontend is not None and process.members(state.frontend, temporary):
        say("ending the processes of a run whose supervisor was killed")
        process.end(state.frontend, temporary, patience)
    process.remove(temporary)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _last_line(plan: Plan) -> str:
    """The last thing that Java printed which is no warning of its own."""
    lines = plan.run.output.read_text(errors="replace").splitlines()
    told = [
        line for line in lines if line.strip() and not line.startswith(("WARNING:", "\tat ", "nvidia-smi"))
    ]
    return told[-1] if told else "it printed nothing"


def main() -> int:
    """In the background: what it says goes to the supervisor's log, how it goes to the state file."""
    supervisor = Supervisor(Plan.from_json(sys.stdin.read()), _log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.ask_to_stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        supervisor.start()
        _log("ready")
        supervisor.watch()
    except (RunError, OSError) as error:
        _log(f"error: {error}")
        supervisor.stop("failed", str(error))
        return error.exit_code if isinstance(error, RunError) else RunError.exit_code
    except Exception as error:  # a mistake of ours: its traceback goes to the log, but no process stays
        supervisor.stop("failed", repr(error))
        raise
    finally:
        supervisor.stop()
    _log("ended")
    return 0


def _log(message: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
