"""Deliver messages asynchronously, so that a slow or closed log cannot block or end the supervisor."""

import queue
import threading
import time
from collections.abc import Callable

from torchserve_models.serving.metrics import MESSAGES_LOST

Sink = Callable[[str], None]

_MAX_WAITING = 1000


class AsyncReporter:
    """Reporter that calls message sinks from a separate thread.

    A message is lost (and counted in MESSAGES_LOST) if its sink fails, for example on a full disk, or if the queue is
    full. A sink that blocks, for example a pipe that is not read, blocks only this thread.
    """

    def __init__(self) -> None:
        self._messages: queue.Queue[tuple[Sink, str]] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._deliver, name="reporter", daemon=True)
        self._thread.start()

    def wrap(self, sink: Sink) -> Sink:
        """Return a function that calls `sink` asynchronously and never raises."""

        def send(message: str) -> None:
            try:
                self._messages.put_nowait((sink, message))
            except queue.Full:
                MESSAGES_LOST.inc()

        return send

    def flush(self, timeout: float = 1.0) -> None:
        """Wait until every message is delivered, for `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        while self._messages.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)

    def _deliver(self) -> None:
        while True:
            sink, message = self._messages.get()
            try:
                sink(message)
            except Exception:
                MESSAGES_LOST.inc()
            finally:
                self._messages.task_done()
