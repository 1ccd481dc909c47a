"""The cache with expiring entries."""

import asyncio
import time

import pytest

from torchserve_models.gateway import ttl_cache
from torchserve_models.gateway.ttl_cache import TTLCache


class Source:
    def __init__(self, error=None):
        self.calls, self.error, self.may_finish = [], error, asyncio.Event()
        self.may_finish.set()

    async def __call__(self, key):
        self.calls.append(key)
        await self.may_finish.wait()
        if self.error:
            raise self.error
        return f"{key}{len(self.calls)}"


async def test_concurrent_callers_share_one_call():
    source = Source()
    source.may_finish.clear()
    cache = TTLCache(source, 0.0)
    callers = [asyncio.ensure_future(cache("a")) for _ in range(5)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)
    source.may_finish.set()
    assert await asyncio.gather(*callers[1:]) == ["a1"] * 4
    assert source.calls == ["a"]


async def test_result_is_cached_by_key_until_it_expires():
    source = Source()
    cache = TTLCache(source, 60.0)
    assert [await cache("a"), await cache("b"), await cache("a")] == ["a1", "b2", "a1"]
    short = TTLCache(source, 0.0)
    assert await short("a") != await short("a")


async def test_error_expires_sooner_than_a_result(monkeypatch):
    source = Source(ValueError("no"))
    cache = TTLCache(source, 60.0)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await cache("a")
    assert source.calls == ["a"]
    source.error = None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.5)
    assert await cache("a") == "a2"


async def test_number_of_entries_is_bounded(monkeypatch):
    monkeypatch.setattr(ttl_cache, "MAX_ENTRIES", 10)
    cache = TTLCache(Source(), 60.0)
    for number in range(100):
        await cache(number)
    assert len(cache._tasks) <= 10
    assert len(cache._expires_at) <= 10
