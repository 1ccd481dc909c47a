"""Poll the management API for descriptions of all models, in one thread for all consumers.

Readiness, repairs, the detection of a hung front end and the snapshot for a restart all use these results.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.health.model_states import ServerDescription, describe_server
from torchserve_models.serving.metrics import WATCH_ERRORS

INTERVAL_S = 1.0
ALARM_INTERVAL_S = 0.5
"""Interval while the server is not fully ready, and after an unanswered attempt."""
ANSWER_TIMEOUT_S = 2.0
DESCRIBE_TIMEOUT_S = 4.0
MAX_PAUSE_S = 2.0
"""Maximum pause after a slow poll; up to this limit, the pause is as long as the poll. Polls of workers on GPUs are
slow, because TorchServe runs nvidia-smi for each."""
_MIN_PAUSE_S = 0.05


@dataclass(frozen=True)
class PollResult:
    """Result of one poll.

    Attributes:
        number: Number of the poll, from 1.
        started: Start of the poll in `time.monotonic()` seconds. Later changes may be missing from the result.
        wall_time: Start of the poll in `time.time()` seconds.
        server_description: Descriptions of the models; None if the front end did not list its models in time.
        repairing: Versions whose worker counts a repair had changed and not yet restored.
    """

    number: int
    started: float
    wall_time: float
    server_description: ServerDescription | None
    repairing: frozenset[Key] = frozenset()


class ModelPoller:
    """Polling thread, from `start` to `close`. Each poll opens new connections, as a new client would.

    Attributes:
        latest: The last completed poll; None before the first.
        answered_at: Time of the management API's last answer, in `time.monotonic()` seconds.
        repairing: Value of `repairing` for the next poll; set it in `on_poll`.
        recorded: Wall time of the latest poll that is part of the snapshot; set by the code that saves the snapshot.
    """

    def __init__(self, endpoints: Endpoints, info: Callable[[str], None]) -> None:
        self.latest: PollResult | None = None
        self.answered_at = time.monotonic()
        self.repairing: frozenset[Key] = frozenset()
        self.recorded = 0.0
        self._endpoints = endpoints
        self._info = info
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._number = 0
        self._last_error = ""
        self._thread: threading.Thread | None = None

    def start(self, on_poll: Callable[[PollResult], None], is_calm: Callable[[], bool]) -> None:
        """Start polling. `on_poll` receives each poll in the poller's thread and may use the management API.

        While `is_calm` returns False, polls are more frequent.
        """

        def run() -> None:
            while not self._closing.is_set():
                start = time.monotonic()
                poll = self.poll()
                try:
                    on_poll(poll)
                    calm = is_calm()
                except Exception as error:
                    self._note_error(f"a model description could not be processed: {error!r}")
                    calm = False
                self._wake.wait(pause_s(poll, time.monotonic() - start, calm))
                self._wake.clear()

        self._thread = threading.Thread(target=run, name="model-poller", daemon=True)
        self._thread.start()

    def ask_soon(self) -> None:
        """Poll again as soon as the current poll is done."""
        self._wake.set()

    def note_answer(self) -> None:
        """Record an answer of the front end."""
        self.answered_at = time.monotonic()

    def close(self) -> None:
        """Stop. May be called twice."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(DESCRIBE_TIMEOUT_S)

    def poll(self) -> PollResult:
        """Poll once; never raises."""
        started, wall_time = time.monotonic(), time.time()
        server_description = None
        try:
            with Client(endpoints=self._endpoints, timeout=ANSWER_TIMEOUT_S, retries=0) as connection:
                server_description = describe_server(
                    connection, DESCRIBE_TIMEOUT_S, self.note_answer, self._unreached
                )
        except client.TorchServeError:
            pass  # `answered_at` shows how long the front end has been silent
        except Exception as error:
            self._note_error(f"the models could not be described: {error!r}")
        self._number += 1
        self.latest = poll = PollResult(self._number, started, wall_time, server_description, self.repairing)
        return poll

    @property
    def _unreached(self) -> frozenset[str]:
        """Names of the models that the last poll had no time to describe."""
        if self.latest is None or self.latest.server_description is None:
            return frozenset()
        return self.latest.server_description.out_of_time

    def _note_error(self, message: str) -> None:
        """Count and log an error once; a failing log does not stop the poller."""
        WATCH_ERRORS.inc()
        if message != self._last_error:
            self._last_error = message
            with contextlib.suppress(Exception):
                self._info(message)


def pause_s(poll: PollResult, duration_s: float, calm: bool) -> float:
    """Return the seconds to wait after `poll`, which took `duration_s` seconds."""
    if poll.server_description is None:
        return max(ALARM_INTERVAL_S - duration_s, _MIN_PAUSE_S)
    interval = INTERVAL_S if calm else ALARM_INTERVAL_S
    return max(interval - duration_s, min(duration_s, MAX_PAUSE_S), _MIN_PAUSE_S)
