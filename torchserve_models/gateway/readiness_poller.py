"""Poll the readiness of TorchServe and its models in the background, so that probes are answered at once.

The poller reads the state that the supervisor of scripts/serve reports. If no supervisor responds, such as with a
plain TorchServe, it derives the state from the management API by the same rules (client/readiness.py).
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator

import httpx

from torchserve_models.client import (
    AsyncClient,
    ModelNotFound,
    TorchServeError,
    TransportError,
    Unavailable,
    readiness,
)
from torchserve_models.client.readiness import ServerState, VersionState
from torchserve_models.client.readiness_report import ServerReport
from torchserve_models.gateway.shutdown import ShutdownFlag

POLL_INTERVAL_S = 0.5
MANAGEMENT_INTERVAL_S = 1.0
POLL_TIMEOUT_S = 2.0
STATE_LIMIT_S = 5.0
"""A state that is older than this is not used."""


class ReadinessPoller:
    """Poller of one server. Call `run` as a background task; the other methods return the last polled state.

    Methods that return a problem return None if there is no problem.
    """

    def __init__(
        self,
        health: str,
        client: AsyncClient,
        *,
        strict: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        shutdown: ShutdownFlag | None = None,
    ) -> None:
        """Create a poller. Every problem is reported until the first poll.

        Args:
            health: URL of the supervisor.
            client: Client of TorchServe's management API.
            strict: Whether readiness requires every worker of every version.
            transport: Replaces httpx's transport to the supervisor in tests.
            shutdown: Whether the gateway is being shut down.
        """
        self._health = health
        self._client = client
        self._strict = strict
        self._shutdown = shutdown or ShutdownFlag()
        self._http = httpx.AsyncClient(transport=transport, timeout=POLL_TIMEOUT_S, trust_env=False)
        self._report = ServerReport(None, None, ())
        self._at: float | None = None
        self._ready_at = -math.inf
        self._is_live = True
        self._is_stopping = False
        self._supervised = False
        self._error = "TorchServe has not been polled yet"

    async def run(self) -> None:
        """Poll until canceled."""
        while True:
            interval_s = POLL_INTERVAL_S
            try:
                interval_s = await self.poll()
            except Exception as error:  # polling must continue
                self._error = f"TorchServe cannot be polled: {error!r}"
            await asyncio.sleep(interval_s)

    async def poll(self) -> float:
        """Poll once; return the seconds until the next poll."""
        try:
            await self._ask_supervisor()
            self._supervised = True
            return POLL_INTERVAL_S
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            if self._supervised and self._at and time.monotonic() - self._at < STATE_LIMIT_S / 2:
                return POLL_INTERVAL_S  # keep the state after one missing response
        self._supervised = False
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                report = readiness.judge(await self._describe_server())
            self._update(report, is_live=True, is_stopping=False)
        except (TorchServeError, TimeoutError) as error:
            self._error = f"TorchServe does not answer: {getattr(error, 'message', 'no answer in time')}"
        return MANAGEMENT_INTERVAL_S

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def live_problem(self) -> str | None:
        """Return why TorchServe's front end does not answer; None if it does."""
        stale = self._stale_problem()
        if stale or self._is_live:
            return stale
        return "TorchServe's front end does not answer"

    def server_problem(self, strict: bool = False) -> str | None:
        """Return why the server is not ready or that the gateway is shutting down; None if it is ready."""
        return self._shutdown.reason or self._server_problem(strict)

    def model_names(self) -> list[str]:
        """Return the names of all served models. Raises Unavailable before the first successful poll."""
        if self._at is None:
            raise Unavailable(self._error)
        return sorted({version.name for version in self._report.versions})

    def model_problem(self, name: str, version: str | None = None, strict: bool = False) -> str | None:
        """Return why a model's version, by default its default version, is not ready. Raises ModelNotFound."""
        problem = self._model_problem(name, version, strict)
        return self._shutdown.reason or problem

    def can_answer(self, name: str, version: str | None) -> bool:
        """Return whether this model or every model can answer, even during a shutdown of the gateway."""
        try:
            return self._server_problem() is None or (
                bool(name) and self._model_problem(name, version) is None
            )
        except ModelNotFound:
            return False

    @property
    def polled_at(self) -> float:
        """Time of the last successful poll, in `time.monotonic()` seconds."""
        return -math.inf if self._at is None else self._at

    def was_ready_within(self, limit_s: float) -> bool:
        """Return whether a model was ready within the last `limit_s` seconds and the server is not stopping."""
        return not self._is_stopping and time.monotonic() - self._ready_at < limit_s

    def _server_problem(self, strict: bool = False) -> str | None:
        return self._stale_problem() or self._report.problem(strict or self._strict)

    def _model_problem(self, name: str, version: str | None, strict: bool = False) -> str | None:
        if self._at is None:
            return self._error
        problem = self._report.model_problem(name, version, strict or self._strict)
        return self._stale_problem() or problem

    def _stale_problem(self) -> str | None:
        if self._at is None:
            return self._error
        age_s = time.monotonic() - self._at
        return f"TorchServe has not answered for {age_s:.0f} s" if age_s > STATE_LIMIT_S else None

    def _update(self, report: ServerReport, *, is_live: bool, is_stopping: bool) -> None:
        self._report, self._is_live, self._is_stopping = report, is_live, is_stopping
        self._at = time.monotonic()
        if any(version.reason is None for version in report.versions):
            self._ready_at = self._at

    async def _ask_supervisor(self) -> None:
        """Read the state that the supervisor reports.

        Raises:
            httpx.HTTPError: The supervisor does not answer with status 200.
            ValueError: The answer is not JSON.
            KeyError, TypeError: The answer does not come from a supervisor.
        """
        response = await self._http.get(f"{self._health}/state")
        state = response.raise_for_status().json()
        self._update(
            ServerReport.from_json(state), is_live=state["live"], is_stopping=state["phase"] == "stopping"
        )

    async def _describe_server(self) -> ServerState:
        """Return the state of all models. Raises TorchServeError if TorchServe does not answer."""
        names = sorted(entry.name for entry in await self._client.list_models())
        versions: list[VersionState] = []
        undescribed: dict[str, str] = {}
        for name in names:
            try:
                versions += [model.state for model in await self._client.describe_versions(name)]
            except TransportError:
                raise
            except TorchServeError as error:
                undescribed[name] = error.message
        return ServerState(versions, undescribed)


@contextlib.asynccontextmanager
async def run_in_background(poller: ReadinessPoller) -> AsyncIterator[None]:
    """Poll in the background within this context, after waiting up to POLL_TIMEOUT_S for the first answer."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(poller.poll(), POLL_TIMEOUT_S)
    task = asyncio.create_task(poller.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await poller.close()
