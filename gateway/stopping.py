"""Report "not ready" while the gateway is being shut down, so that load balancers stop sending requests."""

import re
import signal
from types import FrameType

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.answers import Raw

SIGNAL = signal.SIGUSR1
"""scripts/gateway sends it at the beginning of its drain delay."""
REASON = "the gateway is shutting down"
_READINESS = re.compile(r"/readyz(?:/.*)?|/v2/health/ready|/v2/models/[^/]+(?:/versions/[^/]+)?/ready")


class Stopping:
    """Whether a shutdown has begun. There is no way back."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        self.begun = True

    def on_signal(self) -> None:
        """Install the signal's handler, from the main thread."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            self.begin()

        signal.signal(SIGNAL, handle)


class StoppingMiddleware:
    """Answers readiness routes with 503 once a shutdown has begun. Everything else goes on as before."""

    def __init__(self, app: ASGIApp, stopping: Stopping) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stopping.begun and scope["type"] == "http":
            if scope["path"] == "/ping":
                await Raw({"status": "Unhealthy", "reason": REASON}, 503)(scope, receive, send)
                return
            if _READINESS.fullmatch(scope["path"]):
                await Raw({"ready": False, "reason": REASON}, 503)(scope, receive, send)
                return
        await self._app(scope, receive, send)
