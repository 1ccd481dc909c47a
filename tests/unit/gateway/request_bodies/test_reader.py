"""Request bodies are read within limits on one body, on all bodies together, and on time."""

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from handlers.core.errors import TooLarge
from torchserve_models.client import Overloaded
from torchserve_models.gateway.metrics import GatewayMetrics
from torchserve_models.gateway.request_bodies.reader import SMALL_BODY_BYTES, BodyReader

KIB = 2**10


def request(*chunks, headers=(), pause=0.0):
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive():
        await asyncio.sleep(pause)
        return messages.pop(0)

    incoming = Request({"type": "http", "method": "POST", "headers": list(headers)}, receive)
    incoming.unread = messages
    return incoming


def rejected_bodies(metrics, reason):
    return metrics.registry.get_sample_value("gateway_refused_bodies_total", {"reason": reason})


@pytest.fixture
def metrics():
    return GatewayMetrics()


async def test_body_uses_the_budget_until_its_response(metrics):
    reader = BodyReader(metrics)
    async with reader.read(request(b"abc", b"def"), 100, copies=6) as body:
        assert body == b"abcdef"
        assert reader.used_bytes == 36
        assert metrics.registry.get_sample_value("gateway_body_bytes") == 36
    assert reader.used_bytes == 0


async def test_reading_stops_when_the_limit_is_exceeded(metrics):
    incoming = request(*[b"x" * KIB] * 100)
    with pytest.raises(TooLarge, match="larger than 4096 bytes"):
        async with BodyReader(metrics).read(incoming, 4 * KIB, copies=1):
            pass
    assert len(incoming.unread) > 90
    assert rejected_bodies(metrics, "too_large") == 1


async def test_too_large_declared_length_is_rejected_unread(metrics):
    incoming = request(b"x", headers=[(b"content-length", b"5000")])
    with pytest.raises(TooLarge):
        async with BodyReader(metrics).read(incoming, 4 * KIB, copies=1):
            pass
    assert len(incoming.unread) == 2


async def test_body_beyond_the_budget_is_rejected_at_once(metrics):
    reader = BodyReader(metrics, budget_bytes=400 * KIB)
    large = b"x" * 200 * KIB
    async with reader.read(request(large), KIB * KIB, copies=1):
        with pytest.raises(Overloaded) as error:
            async with reader.read(request(large), KIB * KIB, copies=1):
                pass
        assert error.value.code == 429
        assert reader.used_bytes == len(large)
        # A quarter is reserved for small bodies.
        async with reader.read(request(b"x" * 64 * KIB), KIB * KIB, copies=3):
            assert reader.used_bytes > 300 * KIB
            with pytest.raises(Overloaded):
                async with reader.read(request(b"x" * (SMALL_BODY_BYTES + 1)), KIB * KIB, copies=1):
                    pass
    assert reader.used_bytes == 0
    assert rejected_bodies(metrics, "busy") == 2
    async with reader.read(request(large), KIB * KIB, copies=1) as body:
        assert len(body) == len(large)


async def test_memory_for_parsing_uses_the_budget(metrics):
    reader = BodyReader(metrics, budget_bytes=400 * KIB)
    with pytest.raises(Overloaded):
        async with reader.read(request(b"x" * 100 * KIB), KIB * KIB, copies=4):
            pass
    assert reader.used_bytes == 0


async def test_slow_body_times_out(metrics):
    reader = BodyReader(metrics, read_timeout_s=0.05)
    with pytest.raises(HTTPException) as error:
        async with reader.read(request(b"a", b"b", b"c", pause=0.04), 100, copies=1):
            pass
    assert error.value.status_code == 408
    assert reader.used_bytes == 0
    assert rejected_bodies(metrics, "slow") == 1


async def test_waiting_for_the_response_does_not_time_out(metrics):
    async with BodyReader(metrics, read_timeout_s=0.05).read(request(b"a"), 100, copies=1):
        await asyncio.sleep(0.1)


async def test_number_of_requests_is_bounded(metrics):
    reader = BodyReader(metrics, max_requests=1)
    async with reader.read(request(b"a"), 100, copies=1):
        with pytest.raises(Overloaded):
            async with reader.read(request(b"a"), 100, copies=1):
                pass
    async with reader.read(request(b"a"), 100, copies=1) as body:
        assert body == b"a"


async def test_chunked_reading_uses_the_requested_budget(metrics):
    reader = BodyReader(metrics, budget_bytes=400 * KIB)
    async with reader.open(request(b"x" * 200 * KIB, b"y"), KIB * KIB) as body:
        sizes = []
        async for chunk in body.chunks():
            sizes.append(len(chunk))
            body.hold(100 * len(sizes) * KIB)
        assert sizes == [200 * KIB, 1, 0]
        assert reader.used_bytes == 300 * KIB
        body.hold(KIB)
        assert reader.used_bytes == KIB
        with pytest.raises(Overloaded):
            body.hold(301 * KIB)
    assert reader.used_bytes == 0


async def test_parsing_time_does_not_count_against_the_client(metrics):
    async with BodyReader(metrics, read_timeout_s=0.2).open(request(b"a", b"b", b"c"), 100) as body:
        async for _ in body.chunks():
            await asyncio.sleep(0.15)
