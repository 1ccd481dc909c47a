"""Poll the management API for descriptions of all models, in one thread for all consumers.

Readiness, repairs, the detection of a front end that hangs, and the snapshot for a restart all work on these answers.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.serving.health.model_states import Key, Survey, survey
from torchserve_models.serving.metrics import WATCH_ERRORS

INTERVAL_S = 1.0
ALARM_INTERVAL_S = 0.5
"""Interval while the server is not fully ready, and after an unanswered attempt."""
ANSWER_TIMEOUT_S = 2.0
SURVEY_TIMEOUT_S = 4.0
MAX_PAUSE_S = 2.0
"""Surveys that take long, as with workers on GPUs, for each of which TorchServe runs nvidia-smi, are followed by
pauses that are as long, up to this one."""
_MIN_PAUSE_S = 0.05


@dataclass(frozen=True)
class Poll:
    """Result of one poll.

    Attributes:
        number: Counts the attempts, from 1.
        started: In `time.monotonic()` seconds: what happened later may not be part of it.
        wall_time: The same in `time.time()` seconds.
        survey: None when the front end did not list its models in time.
        repairing: Versions whose worker counts a repair had changed and not yet set back.
    """

    number: int
    started: float
    wall_time: float
    survey: Survey | None
    repairing: frozenset[Key] = frozenset()


class ModelPoller:
    """Polling thread, from `start` to `close`. Each attempt opens new connections, as another client would.

    Attributes:
        latest: The last attempt that is over; None before the first.
        answered_at: When the management API last answered anything, in `time.monotonic()` seconds.
        repairing: For the next attempt; set it in `on_poll`.
        recorded: The wall time of the latest attempt that the snapshot holds; who saves it sets this.
    """

    def __init__(self, endpoints: Endpoints, info: Callable[[str], None]) -> None:
        self.latest: Poll | None = None
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

    def start(self, on_poll: Callable[[Poll], None], is_calm: Callable[[], bool]) -> None:
        """Start polling. `on_poll` receives each poll in the poller's thread and may use the management API.

        While `is_calm` is false, the models are asked for more often.
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
        """Record that the front end has just answered."""
        self.answered_at = time.monotonic()

    def close(self) -> None:
        """Stop. May be called twice."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(SURVEY_TIMEOUT_S)

    def poll(self) -> Poll:
        """Poll once; never raises."""
        started, wall_time = time.monotonic(), time.time()
        survey_result = None
        try:
            with Client(endpoints=self._endpoints, timeout=ANSWER_TIMEOUT_S, retries=0) as connection:
                survey_result = survey(connection, SURVEY_TIMEOUT_S, self.note_answer, self._unreached)
        except client.TorchServeError:
            pass  # how long it lasts is what counts: answered_at
        except Exception as error:
            self._note_error(f"the models could not be described: {error!r}")
        self._number += 1
        self.latest = poll = Poll(self._number, started, wall_time, survey_result, self.repairing)
        return poll

    @property
    def _unreached(self) -> frozenset[str]:
        """Models for which the last poll had no time left."""
        if self.latest is None or self.latest.survey is None:
            return frozenset()
        return self.latest.survey.out_of_time

    def _note_error(self, message: str) -> None:
        """Count and log an error once; a failing log does not stop the poller."""
        WATCH_ERRORS.inc()
        if message != self._last_error:
            self._last_error = message
            with contextlib.suppress(Exception):
                self._info(message)


def pause_s(poll: Poll, duration_s: float, calm: bool) -> float:
    """Return the pause in seconds before the next poll, after one that took `duration_s` seconds."""
    if poll.survey is None:
        return max(ALARM_INTERVAL_S - duration_s, _MIN_PAUSE_S)
    interval = INTERVAL_S if calm else ALARM_INTERVAL_S
    return max(interval - duration_s, min(duration_s, MAX_PAUSE_S), _MIN_PAUSE_S)
