"""Detect a hung front end, and update the snapshot of its models."""

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
from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.health.model_poller import ModelPoller
from torchserve_models.serving.health.model_states import ServerDescription
from torchserve_models.serving.lifecycle import frontend_logs
from torchserve_models.serving.lifecycle.snapshot import ServedVersion, SnapshotFilter
from torchserve_models.serving.metrics import STATE_WRITE_ERRORS, WATCH_ERRORS
from torchserve_models.serving.run_config.run_dir import RunDir

PING_TIMEOUT_S = 2.0
NO_ANSWER_S = 12.0
"""Time without an answer over a new connection after which the front end is hung."""
WORKING_NO_ANSWER_S = 60.0
"""Time without an answer after which the front end is hung although workers still finish batches."""
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


class HangDetector:
    """Detector of a hung front end, based on successive attempts.

    Both the time and the number of failed attempts must reach a limit, so that a suspended supervisor does not
    restart a front end that works.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answered_at = self._worked_at = clock()
        self._failures = 0
        self._batches = 0

    def record(self, *, answered: bool, batches: int) -> None:
        """Record one attempt. `batches` is the total number of batches that workers have finished."""
        now = self._clock()
        if answered:
            self._answered_at, self._failures = now, 0
        else:
            self._failures += 1
        if batches != self._batches:
            self._batches, self._worked_at = batches, now

    @property
    def hung_for(self) -> float | None:
        """Seconds without an answer if the front end is hung, otherwise None."""
        now = self._clock()
        silent_s = now - self._answered_at
        if self._failures < _MIN_FAILURES or silent_s <= NO_ANSWER_S:
            return None
        is_working = now - self._worked_at <= NO_ANSWER_S
        return None if is_working and silent_s <= WORKING_NO_ANSWER_S else silent_s


class DirectMemoryErrorDetector:
    """Detector of OutOfMemoryError in direct memory, which does not end Java, in contrast to a full heap.

    A request that fails this way on its way to a worker blocks the worker until `responseTimeout`, so the front end
    must be restarted. The restart waits until the errors have stopped, so that a burst of requests causes only one.
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
    """Thread that updates the snapshot of one front-end process and detects whether the process hangs.

    The monitor uses the results of `poller`, and requests a poll when the front end logs a change. It pings the
    inference API only if the management API does not answer.
    """

    def __init__(
        self, poller: ModelPoller, inference: str, run: RunDir, served: SnapshotFilter, save: Save
    ) -> None:
        """Create the monitor.

        Args:
            poller: Poller of the management API.
            inference: URL of the inference API.
            run: Run folder of the server.
            served: Filter that produces the snapshot.
            save: Called with the updated `served` after each poll.
        """
        self._poller = poller
        self._inference = inference
        self._activity = run.activity
        self._served = served
        self._save = save
        self._clock = HangDetector()
        self._memory = DirectMemoryErrorDetector()
        self._log = frontend_logs.LogTail(run.server_log)
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
            return "no_answer", f"the front end has not answered on any API for {silent_s:.0f} s"
        if self._memory.demand_restart:
            return "out_of_memory", "the front end ran out of direct memory, and requests may be stuck"
        return None

    def close(self) -> None:
        """Stop the thread; `save` is not called afterwards."""
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
        if poll.server_description is not None:
            self._update(poll.server_description, poll.repairing)
            self._poller.recorded = poll.wall_time
        answered = poll.server_description is not None or is_answering(
            self._inference, "/ping", PING_TIMEOUT_S
        )
        self._clock.record(answered=answered, batches=finished_batches(self._activity))

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.step()
            except Exception:  # monitoring must continue
                WATCH_ERRORS.inc()
            self._over.wait(_STEP_S)

    def _update(self, server_description: ServerDescription, repairing: frozenset[Key]) -> None:
        if self._over.is_set():
            return
        versions = [ServedVersion.of(model) for model in server_description.models]
        try:
            self._served.update(
                versions, {*server_description.undescribed, *server_description.unreached}, repairing
            )
            self._save(self._served)
        except Exception:
            STATE_WRITE_ERRORS.inc()


def is_answering(url: str, path: str, timeout: float) -> bool:
    """Return whether the server sends any byte over a new connection within `timeout` seconds."""
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
    """Return the total number of batches in the workers' activity files."""
    with suppress(OSError):
        return sum(
            server_description.batches
            for path in activity.iterdir()
            if (server_description := read_activity(path))
        )
    return 0


def _over_tls(connection_socket: socket.socket) -> ssl.SSLSocket:
    """Return a TLS connection over the socket. The certificate is not verified: only liveness is checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection_socket)
