"""REST and gRPC connections: servers that are silent, slow, missing or hang up."""

import asyncio
import socket
import time

import httpx
import pytest

from tests.unit.client.socket_server import classify, scale, socket_server
from torchserve_models import client
from torchserve_models.client import (
    Timeout,
    TooLarge,
    Unavailable,
)

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference", "open-inference-grpc"])
def test_silent_server_raises_timeout_at_deadline(call, protocol):
    with socket_server(lambda connection: None) as (endpoints, _), pytest.raises(Timeout, match=r"0\.3 s"):
        call(classify, endpoints=endpoints, protocol=protocol, timeout=0.3)


def test_trickling_server_raises_timeout_at_deadline(call):
    def trickle(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        try:
            for _ in range(1000):
                connection.sendall(b" ")
                time.sleep(0.01)
        except OSError:
            pass

    with socket_server(trickle) as (endpoints, accepted), pytest.raises(Timeout):
        call(classify, endpoints=endpoints, timeout=0.3)
    assert len(accepted) == 1


def test_change_is_not_resent_after_broken_connection(call):
    def hang_up(connection):
        connection.recv(65536)
        connection.shutdown(socket.SHUT_RDWR)

    with socket_server(hang_up) as (endpoints, accepted):
        with pytest.raises(Unavailable) as caught:
            call(scale, endpoints=endpoints, retries=3)
        assert caught.value.sent
        assert len(accepted) == 1
        with pytest.raises(Unavailable):
            call(classify, endpoints=endpoints, retries=3)
        assert len(accepted) == 1 + 4


@pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference", "open-inference-grpc"])
@pytest.mark.parametrize("operation", [classify, scale])
def test_missing_server_raises_unavailable_with_address(call, nowhere, protocol, operation):
    with pytest.raises(Unavailable, match=r"no server answers at .*127\.0\.0\.1:1 ") as caught:
        call(operation, endpoints=nowhere, protocol=protocol, retries=1)
    assert not caught.value.sent


def test_message_above_limit_is_rejected_before_sending(call, connection, fake):
    with pytest.raises(TooLarge):
        call(
            lambda c: c.classify("images", bytes(2000)),
            protocol="grpc",
            max_message_bytes=1000,
            **connection,
        )
    assert fake.received == []


async def test_async_operations_run_concurrently():
    """The server answers only once all requests have arrived."""
    barrier = asyncio.Barrier(20)

    async def answer(request):
        await barrier.wait()
        return httpx.Response(200, json=[{"label": "x", "score": 1}])

    async with client.AsyncClient(transport=httpx.MockTransport(answer), timeout=30) as async_client:
        answers = await asyncio.gather(*(classify(async_client) for _ in range(20)))
    assert len(answers) == 20
