"""Retry a request that lost its connection to TorchServe or its worker, once the model is ready again.

The supervisor restarts a front end that has died within seconds. Predictions have no side effects, so sending one
twice is safe.
"""

import asyncio
import time

import httpx

from torchserve_models.client.retry import RetryBudget
from torchserve_models.gateway.readiness_poller import ReadinessPoller
from torchserve_models.gateway.upstream.unavailable_diagnosis import WORKER_DIED

MAX_WAIT_S = 25.0
MAX_WAITING = 512
MIN_STATE_DELAY_S = 0.5
"""The readiness state is only used if it was polled at least this long after the connection was lost."""
CHECK_INTERVAL_S = 0.1


class RecoveryWaiter:
    """Waiter for requests whose model is being restarted.

    At most `max_waiting` requests wait at a time; further ones are rejected at once.
    """

    def __init__(self, readiness: ReadinessPoller, max_waiting: int = MAX_WAITING) -> None:
        self._readiness = readiness
        self._max_waiting = max_waiting
        self._waiting = 0

    async def until_ready(self, model: str, version: str | None = None) -> bool:
        """Wait for a model, or for the whole server if `model` is empty.

        Returns:
            True once the model is ready. False after MAX_WAIT_S. False at once if no model has been ready for
            MAX_WAIT_S, if the server is stopping, or if too many requests already wait.
        """
        if self._waiting >= self._max_waiting:
            return False
        self._waiting += 1
        try:
            start = time.monotonic()
            while time.monotonic() - start < MAX_WAIT_S:
                if not self._readiness.was_ready_within(MAX_WAIT_S):
                    return False
                if self._readiness.polled_at > start + MIN_STATE_DELAY_S and self._readiness.can_answer(
                    model, version
                ):
                    return True
                await asyncio.sleep(CHECK_INTERVAL_S)
            return False
        finally:
            self._waiting -= 1


class RetryTransport(httpx.AsyncBaseTransport):
    """HTTP transport that retries a prediction once if its connection broke or its worker died.

    After a broken connection, the retry waits until the model is ready again. After the death of a worker, the retry
    is immediate, within a retry budget. The response to a retry has the header X-Retried.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, recovery: RecoveryWaiter) -> None:
        self._transport = transport
        self._recovery = recovery
        self._budget = RetryBudget()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._budget.add_call()
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            if not await self._recovery.until_ready(*_model_of(request.url.path)):
                raise
        else:
            if not _worker_died(response) or not self._budget.take():
                return response
            await response.aclose()
        response = await self._transport.handle_async_request(request)
        response.headers["x-retried"] = "1"
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


def _worker_died(response: httpx.Response) -> bool:
    """Return whether a response reports a dead worker. Its length identifies it, as in nginx."""
    length = response.headers.get("content-length")
    return response.status_code in (500, 507) and length == str(len(WORKER_DIED))


def _model_of(path: str) -> tuple[str, str | None]:
    """Return the model and version in the path of a prediction."""
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
