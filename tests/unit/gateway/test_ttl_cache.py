"""Answers that are kept for a while."""

import asyncio
import time

import pytest

from torchserve_models.gateway import ttl_cache
from torchserve_models.gateway.ttl_cache import TTLCache


class Source:
    def __init__(self, error=None):
        self.asked, self.error, self.go = [], error, asyncio.Event()
        self.go.set()

    async def __call__(self, key):
        self.asked.append(key)
        await self.go.wait()
        if self.error:
            raise self.error
        return f"{key}{len(self.asked)}"


async def test_who_asks_at_the_same_time_waits_for_the_same():
    source = Source()
    source.go.clear()
    kept = TTLCache(source, 0.0)
    waiting = [asyncio.ensure_future(kept("a")) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # one gives up
    await asyncio.sleep(0)
    source.go.set()
    assert await asyncio.gather(*waiting[1:]) == ["a1"] * 4
    assert source.asked == ["a"]


async def test_it_is_kept_for_its_time_and_by_key():
    source = Source()
    kept = TTLCache(source, 60.0)
    assert [await kept("a"), await kept("b"), await kept("a")] == ["a1", "b2", "a1"]
    short = TTLCache(source, 0.0)
    assert await short("a") != await short("a")


async def test_an_error_is_kept_as_well_but_not_for_long(monkeypatch):
    source = Source(ValueError("no"))
    kept = TTLCache(source, 60.0)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await kept("a")
    assert source.asked == ["a"]
    source.error = None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.5)
    assert await kept("a") == "a2"


async def test_clients_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr(ttl_cache, "MAX_ENTRIES", 10)
    kept = TTLCache(Source(), 60.0)
    for number in range(100):
        await kept(number)
    assert len(kept._tasks) <= 10
    assert len(kept._ends) <= 10
