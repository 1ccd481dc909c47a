"""Progress output: a live line on a terminal, otherwise a line at each change."""

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

_REMINDER_INTERVAL_S = 10.0


class Progress:
    """Progress display on stderr. `info` prints a message; `update` shows the current step."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._start = time.monotonic()
        self._last_message = ""
        self._last_print_time = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            with suppress(OSError, ValueError):
                self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            with suppress(OSError, ValueError):  # a closed terminal must not end the server
                self._status.stop()
            self._status = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def info(self, message: str) -> None:
        if self._status is not None:
            self._console.print(message, markup=False)
        else:
            print(message, file=sys.stderr, flush=True)

    def update(self, message: str) -> None:
        if self._status is not None:
            self._status.update(f"{message} ({self.seconds:.0f} s)".replace("[", "\\["))
            return
        now = time.monotonic()
        if message != self._last_message or now - self._last_print_time >= _REMINDER_INTERVAL_S:
            self._last_message, self._last_print_time = message, now
            print(f"{message} ({self.seconds:.0f} s)", file=sys.stderr, flush=True)
