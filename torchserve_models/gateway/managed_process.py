"""One supervised process, the gateway or nginx: started, checked, and ended with all of its children."""

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from torchserve_models.gateway.nginx import NginxError
from torchserve_models.serving.system.process_state import is_stopped, processes_of_session

RESTART_REASONS = ("died", "stopped", "hung", "not started", "worker stopped")
START_TIMEOUT_S = 20.0
STOPPED_LIMIT_S = 3.0
PROBE_INTERVAL_S = 2.0
PROBE_TIMEOUT_S = 2.0
START_PROBE_TIMEOUT_S = 0.2
MAX_PROBE_FAILURES = 3
_KILL_TIMEOUT_S = 3.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ManagedProcess:
    """Starts are from the main thread: the kernel ends the child when the thread that started it ends."""

    def __init__(self, name: str, address: str, probe: tuple[str, str], stop_signal: signal.Signals) -> None:
        """`probe`: the address and path that are asked whether it still answers; any answer will do."""
        self.name = name
        self._address = address
        self.listener: socket.socket | None = None
        """A listening socket at its address, from which the process takes its connections. It stays open while the
        process is started again, so that connections wait instead of being refused."""
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._stopped_since: dict[int, float] = {}
        self._next_scan = 0.0
        self._ready = False
        self._probe = Probe(*probe)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_ready(self) -> bool:
        """Whether it has listened since its last start, and was not found dead since."""
        return self._ready

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Raises NginxError where something else listens on its address, OSError where it cannot be started."""
        if self.listener is None and listens(self._address):
            raise NginxError(f"{self._address} is taken")
        self._process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[self.listener.fileno()] if self.listener else [],
            start_new_session=True,  # a terminal's Ctrl-C is for us; and its children are found by the session
            preexec_fn=_end_with_parent,
        )
        self._started = time.monotonic()
        self._ready = False
        self._stopped_since.clear()

    def problem(self) -> str | None:
        """Why it has to be started again: died, not started, stopped or hung. None while it is well."""
        if self._process is None:
            return "not started"
        if self._process.poll() is not None:
            return "died"
        if self.pid in self.stopped_for_long():
            return "stopped"
        if not self._ready:
            if self._answers():
                self._ready = True
                self._probe.reset()
            elif time.monotonic() - self._started > START_TIMEOUT_S:
                return "not started"
            return None
        return "hung" if self._probe.failures >= MAX_PROBE_FAILURES else None

    def _answers(self) -> bool:
        """Whether it has begun to serve."""
        return self._probe.answers(START_PROBE_TIMEOUT_S) if self.listener else listens(self._address)

    def stopped_for_long(self) -> list[int]:
        """It and its children, of which some may be stopped (SIGSTOP) for longer than STOPPED_LIMIT_S."""
        now = time.monotonic()
        if self.pid is not None and now >= self._next_scan:
            self._next_scan = now + 1.0
            stopped = [pid for pid in processes_of_session(self.pid) if is_stopped(pid)]
            self._stopped_since = {pid: self._stopped_since.get(pid, now) for pid in stopped}
        return [pid for pid, since in self._stopped_since.items() if now - since >= STOPPED_LIMIT_S]

    def kill_stopped_children(self) -> int:
        """Kill children that are stopped, which their parent then replaces. Return how many there were."""
        children = [pid for pid in self.stopped_for_long() if pid != self.pid]
        for pid in children:
            del self._stopped_since[pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(children)

    def kill(self) -> None:
        """End it and its children at once. Those of a dead parent hold its port, and live on without it."""
        if self._process is None:
            return
        process, self._process, self._ready = self._process, None, False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        end = time.monotonic() + _KILL_TIMEOUT_S
        while processes_of_session(process.pid) and time.monotonic() < end:
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def ask_to_end(self) -> None:
        self.send(self._stop_signal)

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def close(self) -> None:
        self._probe.close()


class Probe:
    """Asks one address again and again, in a thread, and counts the failures in a row.

    What matters is that the process does something: an error status or a closed connection is an answer.
    """

    def __init__(self, address: str, path: str) -> None:
        self._host, self._port = parts(address)
        self._path = path
        self._failures = 0
        self._generation = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe {address}", daemon=True)

    @property
    def failures(self) -> int:
        return self._failures

    def reset(self) -> None:
        """Begin anew, with a process that was just started."""
        self._generation += 1
        self._failures = 0
        if not self._thread.ident:
            self._thread.start()

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(PROBE_INTERVAL_S):
            generation = self._generation
            answered = self.answers(PROBE_TIMEOUT_S)
            if generation == self._generation:
                self._failures = 0 if answered else self._failures + 1

    def answers(self, timeout_s: float) -> bool:
        """Ask once."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            with contextlib.closing(connection):
                connection.request("GET", self._path)
                connection.getresponse()
        except (TimeoutError, ConnectionRefusedError):
            return False
        except (OSError, http.client.HTTPException):
            return True
        return True


def listens(address: str) -> bool:
    try:
        socket.create_connection(parts(address), 1.0).close()
    except OSError:
        return False
    return True


def parts(address: str) -> tuple[str, int]:
    """Host and port to connect to, of the address that is listened on."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)


def _end_with_parent() -> None:
    """Runs in the child: when we are killed, the kernel sends it a SIGTERM."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
