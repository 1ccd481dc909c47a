"""A call that several waiters share."""

import asyncio

import pytest

from torchserve_models.gateway.response_cache.shared_call import SharedCall


async def wait(call):
    with call.join():
        return await call.result()


async def test_all_waiters_get_one_result():
    calls = []

    async def run():
        calls.append(1)
        await asyncio.sleep(0)
        return "result"

    call = SharedCall(run())
    assert await asyncio.gather(*(wait(call) for _ in range(5))) == ["result"] * 5
    assert call.is_joinable
    assert await wait(call) == "result"
    assert calls == [1]


async def test_call_ends_only_when_the_last_waiter_leaves():
    ended = asyncio.Event()

    async def run():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    call = SharedCall(run())
    first, second = (asyncio.ensure_future(wait(call)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert call.is_joinable
    assert not ended.is_set()
    second.cancel()
    await asyncio.wait_for(ended.wait(), 10)
    assert not call.is_joinable


async def test_joining_counts_before_the_wait_begins():
    release = asyncio.Event()
    call = SharedCall(release.wait())
    first = asyncio.ensure_future(wait(call))
    await asyncio.sleep(0)
    with call.join():
        first.cancel()
        await asyncio.wait([first])
        assert call.is_joinable
        release.set()
        assert await call.result()


async def test_all_waiters_get_the_error():
    async def run():
        await asyncio.sleep(0)
        raise ValueError("failed")

    call = SharedCall(run())
    results = await asyncio.gather(*(wait(call) for _ in range(2)), return_exceptions=True)
    assert [str(error) for error in results] == ["failed", "failed"]
    with pytest.raises(ValueError, match="failed"):
        await wait(call)
    assert await call.end() is None


async def test_only_one_waiter_is_the_first():
    call = SharedCall(asyncio.sleep(0, "result"))
    for expected in (True, False, False):
        with call.join() as is_first:
            assert is_first is expected
    assert await call.end() is None  # canceled


async def test_end_returns_the_result_without_joining():
    call = SharedCall(asyncio.sleep(0, "result"))
    assert await call.end() == "result"
    with call.join() as is_first:
        assert is_first
