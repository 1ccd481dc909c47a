"""Tell load balancers that the gateway is being shut down, so that they stop sending requests."""

import signal
from types import FrameType

SIGNAL = signal.SIGUSR1
"""scripts/gateway sends it at the beginning of its drain delay."""


class Stopping:
    """Whether a shutdown has begun. There is no way back."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    @property
    def reason(self) -> str | None:
        """Why nothing is ready any more; None before the shutdown."""
        return "the gateway is shutting down" if self._begun else None

    def on_signal(self) -> None:
        """Install the signal's handler, from the main thread."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            self.begin()

        signal.signal(SIGNAL, handle)
