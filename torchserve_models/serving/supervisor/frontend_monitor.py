"""Detect a hung front end and keep the snapshot of what it serves."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from handlers.core.activity import read_activity
from torchserve_models.serving.health.model_poller import ModelPoller
from torchserve_models.serving.health.model_states import Key, Survey
from torchserve_models.serving.lifecycle import frontend_logs
from torchserve_models.serving.lifecycle.snapshot import ServedVersion, SnapshotFilter
from torchserve_models.serving.metrics import STATE_WRITE_ERRORS, WATCH_ERRORS
from torchserve_models.serving.run_config.run_dir import RunDir

PING_TIMEOUT_S = 2.0
NO_ANSWER_S = 12.0
"""A front end that has answered no new connection for this long is hung."""
WORKING_NO_ANSWER_S = 60.0
"""The same limit while workers still finish batches: then the front end is slow, not hung."""
MEMORY_QUIET_S = 2.0
MEMORY_MAX_WAIT_S = 8.0
_MIN_FAILURES = 4
_STEP_S = 0.1
_CHANGES = (" ModelManager - ", " ModelVersionedRefs - ")
"""Front-end log lines for registrations, removals, worker counts and new default versions."""
_NEW_DEFAULT = re.compile(r" ModelVersionedRefs - Setting default version to .* for model (?P<model>.+)$")
_OUT_OF_MEMORY = re.compile(
    r"^(?:Caused by: )?(?:java\.lang\.OutOfMemoryError|io\.netty\S+\.OutOfDirectMemoryError)\b"
)

Save = Callable[[SnapshotFilter], None]


class AnswerClock:
    """Decide from successive attempts whether the front end is hung.

    Counts attempts besides time, so that a supervisor that was itself suspended does not blame the front end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answered_at = self._worked_at = clock()
        self._failures = 0
        self._batches = 0

    def record(self, *, answered: bool, batches: int) -> None:
        """Record one attempt; `batches` is the number of batches that all workers have finished."""
        now = self._clock()
        if answered:
            self._answered_at, self._failures = now, 0
        else:
            self._failures += 1
        if batches != self._batches:
            self._batches, self._worked_at = batches, now

    @property
    def hung_for(self) -> float | None:
        """Seconds without an answer if the front end counts as hung, otherwise None."""
        now = self._clock()
        silent_s = now - self._answered_at
        if self._failures < _MIN_FAILURES or silent_s <= NO_ANSWER_S:
            return None
        is_working = now - self._worked_at <= NO_ANSWER_S
        return None if is_working and silent_s <= WORKING_NO_ANSWER_S else silent_s


class MemoryFailures:
    """Detector of OutOfMemoryError in direct memory, which does not make Java exit as a full heap does.

    Requests that it hits on their way to a worker are lost until `responseTimeout`, one after the other, so the front
    end has to be replaced. A burst of requests should cost one restart: it waits until the errors have stopped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._last = 0.0

    def record(self, lines: Iterable[str]) -> None:
        """Record new lines of the front end's log."""
        if any(_OUT_OF_MEMORY.match(line) for line in lines):
            self._last = self._clock()
            if self._first is None:
                self._first = self._last

    @property
    def demand_restart(self) -> bool:
        if self._first is None:
            return False
        now = self._clock()
        return now - self._last > MEMORY_QUIET_S or now - self._first > MEMORY_MAX_WAIT_S


class FrontendMonitor:
    """Thread that keeps the snapshot of one front-end process and detects whether it hangs.

    It works on what `poller` learns, and asks it to hurry when the front end logs a change. Only when the management
    API does not answer, inference is pinged.
    """

    def __init__(
        self, poller: ModelPoller, inference: str, run: RunDir, served: SnapshotFilter, save: Save
    ) -> None:
        """Ping `inference`; call `save` with the updated `served` after each survey."""
        self._poller = poller
        self._inference = inference
        self._activity = run.activity
        self._served = served
        self._save = save
        self._clock = AnswerClock()
        self._memory = MemoryFailures()
        self._log = frontend_logs.Tail(run.server_log)
        self._began = time.monotonic()
        self._last_poll = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="frontend-monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def problem(self) -> tuple[str, str] | None:
        """Why the front end must be replaced, as (metric label, message); None if it is healthy."""
        if (silent_s := self._clock.hung_for) is not None:
            return "no_answer", f"it has answered neither inference nor management for {silent_s:.0f} s"
        if self._memory.demand_restart:
            return "out_of_memory", "it ran out of direct memory, and requests may be stuck in it"
        return None

    def close(self) -> None:
        """Stop the thread; nothing is saved afterwards."""
        self._over.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * PING_TIMEOUT_S)

    def step(self) -> None:
        """Process new log lines and the latest poll."""
        lines = self._log.lines()
        self._memory.record(lines)
        for line in lines:
            if match := _NEW_DEFAULT.search(line):
                self._served.note_default(match["model"])
        if any(change in line for line in lines for change in _CHANGES):
            self._poller.ask_soon()
        poll = self._poller.latest
        if poll is None or poll.number == self._last_poll or poll.started < self._began:
            return
        self._last_poll = poll.number
        if poll.survey is not None:
            self._update(poll.survey, poll.repairing)
            self._poller.recorded = poll.wall_time
        answered = poll.survey is not None or is_answering(self._inference, "/ping", PING_TIMEOUT_S)
        self._clock.record(answered=answered, batches=finished_batches(self._activity))

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.step()
            except Exception:  # what watches must go on
                WATCH_ERRORS.inc()
            self._over.wait(_STEP_S)

    def _update(self, survey_result: Survey, repairing: frozenset[Key]) -> None:
        if self._over.is_set():
            return
        versions = [ServedVersion.of(model) for model in survey_result.models]
        try:
            self._served.update(versions, {*survey_result.undescribed, *survey_result.unreached}, repairing)
            self._save(self._served)
        except Exception:
            STATE_WRITE_ERRORS.inc()


def is_answering(url: str, path: str, timeout: float) -> bool:
    """Return whether any byte arrives over a new connection within `timeout` seconds."""
    parts = urlsplit(url)
    deadline = time.monotonic() + timeout
    with (
        suppress(OSError),
        socket.create_connection((parts.hostname, parts.port), timeout) as connection_socket,
    ):
        connection = _over_tls(connection_socket) if parts.scheme == "https" else connection_socket
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        return bool(connection.recv(1))
    return False


def finished_batches(activity: Path) -> int:
    """Return the number of batches that all reporting workers have finished."""
    with suppress(OSError):
        return sum(
            survey_result.batches for path in activity.iterdir() if (survey_result := read_activity(path))
        )
    return 0


def _over_tls(connection_socket: socket.socket) -> ssl.SSLSocket:
    """Wrap the socket in TLS without verifying the certificate: only liveness is checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection_socket)
