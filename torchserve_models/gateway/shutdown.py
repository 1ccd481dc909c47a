"""Report "not ready" during a shutdown, so that load balancers stop sending requests."""

import signal
from types import FrameType

DRAIN_SIGNAL = signal.SIGUSR1
"""Sent by scripts/gateway at the start of its shutdown."""


class ShutdownFlag:
    """A flag that is set once the shutdown has begun. A shutdown cannot be canceled."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    @property
    def reason(self) -> str | None:
        """The reason to report for every readiness probe; None before the shutdown."""
        return "the gateway is shutting down" if self._begun else None

    def install_signal_handler(self) -> None:
        """Begin the shutdown on DRAIN_SIGNAL. Call this from the main thread."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            self.begin()

        signal.signal(DRAIN_SIGNAL, handle)
