"""Run a command, and start it again if a signal kills it: python -m torchserve_models.guardian COMMAND [ARGUMENT ...]

The guardian is the parent of a supervisor that no service manager restarts. It uses only the standard library and
does nothing but wait, so that it outlives what it starts. If the command exits by itself, the guardian exits with the
same code, because the command has then reported why.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from torchserve_models.backoff import Backoff
from torchserve_models.signals import TERMINATING_SIGNALS

PID_VARIABLE = "TORCHSERVE_MODELS_GUARDIAN"
"""Environment variable with the guardian's process id."""
RESTARTS_VARIABLE = "TORCHSERVE_MODELS_GUARDIAN_RESTARTS"
"""Environment variable with the number of restarts so far."""
_SIGNAL_EXIT = 128
_STEP_S = 0.05


class Guardian:
    """Guardian of one command. `run` must be called in the main thread."""

    def __init__(self, command: Sequence[str], backoff: Backoff, log: Callable[[str], None]) -> None:
        self._command = command
        self._backoff = backoff
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._stop_signal: int | None = None

    def on_signal(self, number: int, _frame: FrameType | None = None) -> None:
        """Pass a signal on to the command, which is then not started again."""
        self._stop_signal = number
        if self._child is not None:
            self._child.send_signal(number)

    def run(self) -> int:
        """Run the command until it exits; return its exit code, or 128 plus the signal number that ended it."""
        while True:
            code = self._run_once()
            if code >= 0:
                return code
            if self._stop_signal is not None:
                return _SIGNAL_EXIT - code
            delay = self._backoff.next_delay()
            if delay is None:
                self._log(f"process killed by signal {-code} too often; not starting it again")
                return _SIGNAL_EXIT - code
            self._log(f"process killed by signal {-code}; starting it again in {delay:g} s")
            deadline = time.monotonic() + delay
            while time.monotonic() < deadline:
                time.sleep(_STEP_S)
                if self._stop_signal is not None:
                    return _SIGNAL_EXIT + self._stop_signal

    def _run_once(self) -> int:
        variables = {PID_VARIABLE: str(os.getpid()), RESTARTS_VARIABLE: str(self._backoff.count)}
        self._child = subprocess.Popen(self._command, env={**os.environ, **variables})
        if self._stop_signal is not None:  # it may have arrived before the process existed
            self._child.send_signal(self._stop_signal)
        return self._child.wait()


def guardian_pid() -> int | None:
    """Return the process id of this process's guardian; None if its parent is no guardian."""
    parent = os.getppid()
    return parent if os.environ.get(PID_VARIABLE) == str(parent) else None


def is_restart() -> bool:
    """Return whether the guardian has started this process again after it was killed."""
    return guardian_pid() is not None and os.environ.get(RESTARTS_VARIABLE, "0") != "0"


def main() -> int:
    guardian = Guardian(sys.argv[1:], Backoff(), _log)
    for number in TERMINATING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup requires
            signal.signal(number, guardian.on_signal)
    return guardian.run()


def _log(message: str) -> None:
    with suppress(OSError, ValueError):  # a full disk or a closed pipe must not end the guardian
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} guardian: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
