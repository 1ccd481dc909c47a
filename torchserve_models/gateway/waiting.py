"""Requests that lost TorchServe or their worker on the way: when it is back, they are sent once more.

The supervisor starts a front end that has died again within seconds. A prediction changes nothing, so it may be sent
twice.
"""

import asyncio
import time

import httpx

from torchserve_models.client.retry import RetryBudget
from torchserve_models.gateway.readiness import Readiness
from torchserve_models.gateway.unavailable import WORKER_DIED

LONGEST_WAIT_S = 25.0
MAX_WAITING = 512
FRESH_S = 0.5
"""How much younger than the loss the knowledge about readiness has to be."""
STEP_S = 0.1


class Waiting:
    """`max_waiting`: requests that may wait at a time; the others are refused at once."""

    def __init__(self, readiness: Readiness, max_waiting: int = MAX_WAITING) -> None:
        self._readiness = readiness
        self._max_waiting = max_waiting
        self._waiting = 0

    async def until_ready(self, model: str, version: str | None = None) -> bool:
        """Wait for that model, or with an empty name for the server. False where waiting is of no use.

        That is after LONGEST_WAIT_S, where nothing has been ready for so long, where the server is stopping, or with
        too many requests waiting already.
        """
        if self._waiting >= self._max_waiting:
            return False
        self._waiting += 1
        try:
            start = time.monotonic()
            while time.monotonic() - start < LONGEST_WAIT_S:
                if not self._readiness.may_return(LONGEST_WAIT_S):
                    return False
                if self._readiness.known_at > start + FRESH_S and self._readiness.answers(model, version):
                    return True
                await asyncio.sleep(STEP_S)
            return False
        finally:
            self._waiting -= 1


class ResendingTransport(httpx.AsyncBaseTransport):
    """Sends a prediction once more: after a broken connection when its model is ready again, and at once when the
    worker died that had it, within a retry budget.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, waiting: Waiting) -> None:
        self._transport = transport
        self._waiting = waiting
        self._budget = RetryBudget()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._budget.add_call()
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            if not await self._waiting.until_ready(*_model_of(request.url.path)):
                raise
        else:
            if not _worker_died(response) or not self._budget.take():
                return response
            await response.aclose()
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()


def _worker_died(response: httpx.Response) -> bool:
    """By the length of the answer, as nginx does."""
    length = response.headers.get("content-length")
    return response.status_code in (500, 507) and length == str(len(WORKER_DIED))


def _model_of(path: str) -> tuple[str, str | None]:
    """Model and version of the path of a prediction."""
    match path.split("/")[1:]:
        case ["predictions", name]:
            return name, None
        case ["predictions", name, version]:
            return name, version
        case ["v2", "models", name, "infer"]:
            return name, None
        case ["v2", "models", name, "versions", version, "infer"]:
            return name, version
    return "", None
