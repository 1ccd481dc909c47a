"""A supervised process, the gateway or nginx, with all of its children."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from torchserve_models.gateway.nginx.config import NginxError
from torchserve_models.gateway.supervision.addresses import connect_address, is_listening
from torchserve_models.processes import kill_processes, session_processes, start_session
from torchserve_models.serving.system.process_state import is_stopped

RESTART_REASONS = ("died", "stopped", "hung", "not started", "worker stopped")
START_TIMEOUT_S = 20.0
STOPPED_LIMIT_S = 3.0
PROBE_INTERVAL_S = 2.0
PROBE_TIMEOUT_S = 2.0
START_PROBE_TIMEOUT_S = 0.2
MAX_PROBE_FAILURES = 3


class ManagedProcess:
    """A process that can be started again.

    Start it from the main thread: the kernel terminates the child when the thread that started it ends.
    """

    def __init__(self, name: str, address: str, probe: tuple[str, str], stop_signal: signal.Signals) -> None:
        """
        Args:
            name: The process's name in messages.
            address: The address that it listens on.
            probe: An address and a path on which any response shows that the process is alive.
            stop_signal: The signal for a graceful stop.
        """
        self.name = name
        self._address = address
        self.listener: socket.socket | None = None
        """A listening socket for the process to inherit. It stays open during a restart, so that connections wait
        instead of being refused."""
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._stopped_since: dict[int, float] = {}
        self._next_scan = 0.0
        self._ready = False
        self._probe = LivenessProbe(*probe)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_ready(self) -> bool:
        """Whether the process has started to listen and has not been killed since."""
        return self._ready

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process.

        Raises:
            NginxError: Another program listens on the address.
            OSError: The command cannot be run.
        """
        if self.listener is None and is_listening(self._address):
            raise NginxError(f"the address {self._address} is already in use")
        self._process = start_session(
            command,
            os.environ | environment,
            pass_fds=[self.listener.fileno()] if self.listener else [],
        )
        self._started = time.monotonic()
        self._ready = False
        self._stopped_since.clear()

    def problem(self) -> str | None:
        """Return why the process must be restarted (one of RESTART_REASONS); None if it works."""
        if self._process is None:
            return "not started"
        if self._process.poll() is not None:
            return "died"
        if self.pid in self.find_stopped():
            return "stopped"
        if not self._ready:
            if self._has_started():
                self._ready = True
                self._probe.reset()
            elif time.monotonic() - self._started > START_TIMEOUT_S:
                return "not started"
            return None
        return "hung" if self._probe.failures >= MAX_PROBE_FAILURES else None

    def _has_started(self) -> bool:
        """Return whether the process serves requests."""
        return self._probe.responds(START_PROBE_TIMEOUT_S) if self.listener else is_listening(self._address)

    def find_stopped(self) -> list[int]:
        """Return the IDs of the processes, this one or its children, stopped (SIGSTOP) for STOPPED_LIMIT_S."""
        now = time.monotonic()
        if self.pid is not None and now >= self._next_scan:
            self._next_scan = now + 1.0
            stopped = [process.pid for process in session_processes(self.pid) if is_stopped(process.pid)]
            self._stopped_since = {pid: self._stopped_since.get(pid, now) for pid in stopped}
        return [pid for pid, since in self._stopped_since.items() if now - since >= STOPPED_LIMIT_S]

    def kill_stopped_children(self) -> int:
        """Kill stopped children, which their parent then replaces, and return the number of killed children."""
        children = [pid for pid in self.find_stopped() if pid != self.pid]
        for pid in children:
            del self._stopped_since[pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(children)

    def kill(self) -> None:
        """Kill the process and its children, which could otherwise outlive it and keep its port."""
        if self._process is None:
            return
        process, self._process, self._ready = self._process, None, False
        kill_processes(lambda: session_processes(process.pid))
        process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is running."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def request_stop(self) -> None:
        self.send(self._stop_signal)

    def has_exited(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def close(self) -> None:
        self._probe.close()


class LivenessProbe:
    """A thread that probes an address periodically and counts consecutive failures.

    The probe only checks that the process is alive: an error status or a closed connection is a success.
    """

    def __init__(self, address: str, path: str) -> None:
        self._host, self._port = connect_address(address)
        self._path = path
        self._failures = 0
        self._generation = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe {address}", daemon=True)

    @property
    def failures(self) -> int:
        return self._failures

    def reset(self) -> None:
        """Reset the failure count after a start."""
        self._generation += 1
        self._failures = 0
        if not self._thread.ident:
            self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(PROBE_INTERVAL_S):
            generation = self._generation
            responded = self.responds(PROBE_TIMEOUT_S)
            if generation == self._generation:
                self._failures = 0 if responded else self._failures + 1

    def responds(self, timeout_s: float) -> bool:
        """Return whether the process responds to one request."""
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
