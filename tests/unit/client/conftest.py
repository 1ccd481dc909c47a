"""A pretended TorchServe, and the sync and the async client as one kind of thing."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.unit.client.fake_grpc import over_grpc
from tests.unit.client.fake_torchserve import FakeTorchServe
from torchserve_models.client import AsyncClient, Client, Endpoints

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
    """The clients' arguments that lead to the fake, by whatever protocol."""
    with over_grpc(fake) as endpoints:
        yield {"endpoints": endpoints, "transport": httpx.MockTransport(fake.rest)}


@pytest.fixture
def nowhere() -> Endpoints:
    """Addresses where nothing listens: port 1 is reserved, and no test server takes it."""
    return Endpoints.at(
        inference_port=1, management_port=1, metrics_port=1, grpc_port=1, grpc_management_port=1
    )
