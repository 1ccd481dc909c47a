"""Fixtures: a fake TorchServe, and callers that run an operation with the sync or the async client."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.unit.client.fake_grpc import over_grpc
from tests.unit.client.fake_queue import ShortQueue
from tests.unit.client.fake_torchserve import FakeTorchServe
from torchserve_models.client import AsyncClient, Client, Endpoints, drain, retry, worker_waits

# Runs one operation of a client: (client's arguments, client -> result or awaitable) -> result.
Caller = Callable[..., Any]


def call_sync(operation: Callable[[Client], Any], **arguments: Any) -> Any:
    with Client(**arguments) as client:
        return operation(client)


def call_async(operation: Callable[[AsyncClient], Any], **arguments: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(**arguments) as client:
            return await operation(client)

    return asyncio.run(run())


@pytest.fixture(params=[call_sync, call_async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Caller:
    caller: Caller = request.param
    return caller


@pytest.fixture
def fake() -> FakeTorchServe:
    return FakeTorchServe()


@pytest.fixture
def connection(fake: FakeTorchServe) -> Iterator[dict[str, Any]]:
    """The client arguments that connect to the fake over every protocol."""
    with over_grpc(fake) as endpoints:
        yield {"endpoints": endpoints, "transport": httpx.MockTransport(fake.handle_rest)}


@pytest.fixture
def nowhere() -> Endpoints:
    """Endpoints on which no server listens, because port 1 is reserved."""
    return Endpoints.at(
        inference_port=1, management_port=1, metrics_port=1, grpc_port=1, grpc_management_port=1
    )


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll and pause for a millisecond in management operations."""
    for module, name in (
        (worker_waits, "POLL_INTERVAL_S"),
        (drain, "POLL_INTERVAL_S"),
        (drain, "STEP_INTERVAL_S"),
        (drain, "DISPATCH_MARGIN_S"),
    ):
        monkeypatch.setattr(module, name, 0.001)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause for milliseconds before a retry."""
    monkeypatch.setattr(retry, "INITIAL_PAUSE_S", 0.005)
    monkeypatch.setattr(retry, "MAX_PAUSE_S", 0.05)


@pytest.fixture
def short_queue() -> Iterator[ShortQueue]:
    server = ShortQueue()
    yield server
    server.close()
