"""What the gateway knows about readiness: polled in the background, so that a probe never waits for anything.

The supervisor of scripts/serve is asked for its state. Where none answers, as behind a plain TorchServe, the
management API is asked for the workers of each model instead.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx

from torchserve_models.client import (
    AsyncClient,
    Model,
    ModelNotFound,
    TorchServeError,
    TransportError,
    Unavailable,
)
from torchserve_models.gateway.stopping import Stopping

POLL_INTERVAL_S = 0.5
MANAGEMENT_INTERVAL_S = 1.0
POLL_TIMEOUT_S = 2.0
STATE_LIMIT_S = 5.0
"""A state that is older says nothing about now."""

State = Mapping[str, Any]


class Readiness:
    """Call `run` as a background task. The other methods answer from memory: None for ready, else the reason."""

    def __init__(
        self,
        health: str,
        client: AsyncClient,
        *,
        strict: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        stopping: Stopping | None = None,
    ) -> None:
        """`health` is the supervisor's URL. `strict`: whether probes ask for full strength by themselves."""
        self._health = health
        self._client = client
        self._strict = strict
        self._stopping = stopping or Stopping()
        self._http = httpx.AsyncClient(transport=transport, timeout=POLL_TIMEOUT_S, trust_env=False)
        self._state: State = {}
        self._at: float | None = None
        self._served_at = -math.inf
        self._supervised = False
        self._error = "TorchServe has not been asked yet"

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            interval = POLL_INTERVAL_S
            try:
                interval = await self.poll()
            except Exception as error:  # polling must go on
                self._error = f"TorchServe cannot be asked: {error!r}"
            await asyncio.sleep(interval)

    async def poll(self) -> float:
        """Ask once; the seconds until the next time."""
        try:
            self._keep(await self._ask_supervisor())
            self._supervised = True
            return POLL_INTERVAL_S
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            if self._supervised and self._at and time.monotonic() - self._at < STATE_LIMIT_S / 2:
                return POLL_INTERVAL_S  # one answer that is missing changes nothing yet
        self._supervised = False
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                self._keep(await self._ask_management())
        except (TorchServeError, TimeoutError) as error:
            self._error = f"TorchServe does not answer: {getattr(error, 'message', 'no answer in time')}"
        return MANAGEMENT_INTERVAL_S

    async def close(self) -> None:
        await self._http.aclose()

    def live(self) -> str | None:
        """Whether TorchServe's front end answers."""
        stale = self._stale()
        if stale or self._state.get("live", True):
            return stale
        return "TorchServe's front end does not answer"

    def server(self, strict: bool = False) -> str | None:
        return self._stopping.reason or self._server_problem(strict)

    def names(self) -> list[str]:
        """Of all models that are served. Raises Unavailable while that is not known."""
        if self._at is None:
            raise Unavailable(self._error)
        return sorted({model["name"] for model in self._state["models"]})

    def model(self, name: str, version: str | None = None, strict: bool = False) -> str | None:
        """The default version's where none is named. Raises ModelNotFound."""
        problem = self._model_problem(name, version, strict)
        return self._stopping.reason or problem

    def answers(self, name: str, version: str | None) -> bool:
        """Whether that model or every model can answer, also while the gateway is being shut down."""
        try:
            return self._server_problem() is None or (
                bool(name) and self._model_problem(name, version) is None
            )
        except ModelNotFound:
            return False

    def _server_problem(self, strict: bool = False) -> str | None:
        return self._stale() or _reason(self._state, strict or self._strict)

    def _model_problem(self, name: str, version: str | None, strict: bool = False) -> str | None:
        if self._at is None:
            return self._error
        unavailable = self._state.get("unavailable", {})
        if version is None and name in unavailable:
            return self._stale() or str(unavailable[name])
        models = [model for model in self._state["models"] if model["name"] == name]
        for model in models:
            if model["default"] if version is None else model["version"] == version:
                return self._stale() or _reason(model, strict or self._strict)
        if name in unavailable:
            return self._stale() or str(unavailable[name])
        if models:
            raise ModelNotFound(f"Model version: {str(version)[:60]} does not exist for model: {name}")
        raise ModelNotFound(f"Model not found: {name[:60]}", type="ModelNotFoundException")

    @property
    def known_at(self) -> float:
        """When TorchServe's state was last heard of, on the monotonic clock."""
        return -math.inf if self._at is None else self._at

    def may_return(self, limit_s: float) -> bool:
        """Whether a model was ready within the last `limit_s` seconds, and the server is not being stopped."""
        return self._state.get("phase") != "stopping" and time.monotonic() - self._served_at < limit_s

    def _stale(self) -> str | None:
        if self._at is None:
            return self._error
        age = time.monotonic() - self._at
        return f"nothing has been heard of TorchServe for {age:.0f} s" if age > STATE_LIMIT_S else None

    def _keep(self, state: State) -> None:
        self._state, self._at = state, time.monotonic()
        if any(model["ready"] for model in state["models"]):
            self._served_at = self._at

    async def _ask_supervisor(self) -> State:
        """Raises httpx.HTTPError, ValueError, KeyError or TypeError for what is not a supervisor's answer."""
        answer = await self._http.get(f"{self._health}/state")
        state: State = answer.raise_for_status().json()
        for model in state["models"]:
            _ = model["name"], model["version"], model["default"], model["ready"], model["strict"]
        _ = state["ready"], state["strict"]
        return state

    async def _ask_management(self) -> State:
        """A state like the supervisor's, judged by TorchServe's word on its workers."""
        names = sorted(entry.name for entry in await self._client.list_models())
        models: list[State] = []
        undescribed: dict[str, str] = {}
        for name in names:
            try:
                models += await self._describe(name)
            except TransportError:
                raise
            except TorchServeError as error:
                undescribed[name] = error.message
        return _state(models, undescribed)

    async def _describe(self, name: str) -> Sequence[State]:
        versions = await self._client.describe_versions(name)
        default = versions[0].version if len(versions) == 1 else (await self._client.describe(name)).version
        return [_model_state(version, version.version == default) for version in versions]


def _model_state(model: Model, default: bool) -> State:
    ready = sum(worker.ready for worker in model.workers)
    wanted = max(model.min_workers, 1)
    words = f"{ready} of {max(wanted, len(model.workers))} workers are READY"
    return {
        "name": model.name,
        "version": model.version,
        "default": default,
        "min_workers": model.min_workers,
        "ready": ready > 0,
        "strict": ready >= wanted,
        "reason": None if ready else words,
        "strict_reason": None if ready >= wanted else words,
    }


def _state(models: Sequence[State], undescribed: Mapping[str, str]) -> State:
    """Of the server: the default versions that should have workers, in strict mode every version."""
    serving = [model for model in models if model["min_workers"]]
    broken = [model for model in serving if model["default"] and not model["ready"]]
    weak = [model for model in serving if not model["strict"]]
    reason = "; ".join(f"{model['name']}: {model['reason']}" for model in broken) or None
    strict_reason = (
        "; ".join(f"{model['name']} {model['version']}: {model['strict_reason']}" for model in weak)
        or "; ".join(f"{name}: it cannot be described" for name in undescribed)
        or None
    )
    if not models:
        reason = strict_reason = "no model is registered"
    return {
        "live": True,
        "ready": reason is None,
        "strict": strict_reason is None,
        "reason": reason,
        "strict_reason": strict_reason,
        "models": models,
        "unavailable": {name: f"TorchServe cannot describe it: {why}" for name, why in undescribed.items()},
    }


def _reason(state: State, strict: bool) -> str | None:
    if not state["ready"]:
        return str(state.get("reason") or "not ready")
    if strict and not state["strict"]:
        return str(state.get("strict_reason") or "not at full strength")
    return None


@contextlib.asynccontextmanager
async def polling(readiness: Readiness) -> AsyncIterator[None]:
    """Polls in the background while the body runs; the first answer is waited for, for a short while."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(readiness.poll(), POLL_TIMEOUT_S)
    task = asyncio.create_task(readiness.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await readiness.close()
