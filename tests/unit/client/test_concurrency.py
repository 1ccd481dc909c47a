"""The concurrency limit adapts to the server, and no concurrent call is lost."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.unit.client.fake_queue import ShortQueue
from torchserve_models.client import AsyncClient, Client, Overloaded, Timeout
from torchserve_models.client.concurrency import INITIAL_CONCURRENCY, AdaptiveConcurrencyLimit
from torchserve_models.client.deadlines import Deadline
from torchserve_models.client.settings import Settings

pytestmark = pytest.mark.usefixtures("short_pauses")


def label(number):
    return str(number).encode()


@pytest.mark.full
async def test_gather_over_many_images_loses_none():
    short_queue = ShortQueue(queue_size=12, batch_size=12)
    async with AsyncClient(transport=httpx.MockTransport(short_queue.answer_async)) as connection:
        calls = (connection.classify("images", label(number)) for number in range(2000))
        answers = await asyncio.gather(*calls)
    assert [answer[0].label for answer in answers] == [str(number) for number in range(2000)]
    assert short_queue.refused > 0
    assert short_queue.sent < 2 * 2000  # most requests are accepted once the limit has adapted
    short_queue.close()


def test_many_threads_lose_none(short_queue):
    with (
        Client(transport=httpx.MockTransport(short_queue.answer)) as connection,
        ThreadPoolExecutor(100) as threads,
    ):
        answers = list(threads.map(lambda number: connection.classify("images", label(number)), range(500)))
    assert [answer[0].label for answer in answers] == [str(number) for number in range(500)]
    assert short_queue.refused > 0


async def test_gather_over_grpc_sends_bounded_number_at_once(connection, fake):
    calls_at_once = [0, 0]
    async with AsyncClient(
        protocol="grpc", max_concurrency=3, endpoints=connection["endpoints"]
    ) as grpc_client:
        send = grpc_client._grpc_transport.send

        async def counted(call, deadline):
            calls_at_once[0] += 1
            calls_at_once[1] = max(calls_at_once)
            try:
                return await send(call, deadline)
            finally:
                calls_at_once[0] -= 1

        grpc_client._grpc_transport.send = counted
        await asyncio.gather(*(grpc_client.classify("images", b"x") for _ in range(30)))
    assert calls_at_once == [0, 3]
    assert len(fake.inputs) == 30


async def test_gather_survives_temporary_overload(short_queue):
    short_queue.refusing = True

    async def recover():
        await asyncio.sleep(0.3)  # far longer than three retries take
        short_queue.refusing = False

    async with AsyncClient(transport=httpx.MockTransport(short_queue.answer_async)) as connection:
        calls = [connection.classify("images", label(number)) for number in range(100)]
        answers, _ = await asyncio.gather(asyncio.gather(*calls), recover())
        assert len(answers) == 100


def test_overloaded_server_raises_at_timeout(call, short_queue):
    short_queue.refusing = True
    transport = httpx.MockTransport(short_queue.answer)
    with pytest.raises((Overloaded, Timeout)):  # Timeout if the time was over when it was to be sent again
        call(lambda c: c.classify("images", b"x"), transport=transport, timeout=0.4)
    assert short_queue.sent > 4


async def test_retry_waits_for_retry_after(short_queue):
    short_queue.refusing, short_queue.retry_after = True, "1"
    async with AsyncClient(transport=httpx.MockTransport(short_queue.answer_async)) as connection:
        task = asyncio.create_task(connection.classify("images", b"x"))
        while not short_queue.times:
            await asyncio.sleep(0.01)
        short_queue.refusing = False
        await task
    first, second = short_queue.times
    assert second - first >= 1.0


@pytest.mark.full
async def test_wait_for_slot_does_not_count_toward_client_timeout():
    """Ten calls in sequence take longer than the timeout of each."""

    async def answer(request):
        await asyncio.sleep(0.1)
        return httpx.Response(200, json=[])

    transport = httpx.MockTransport(answer)
    async with AsyncClient(transport=transport, timeout=0.6, max_concurrency=1) as connection:
        await asyncio.gather(*(connection.classify("images", b"x") for _ in range(10)))
        calls = [connection.classify("images", b"x", timeout=0.6) for _ in range(10)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    late = [answer for answer in answers if isinstance(answer, Timeout)]
    assert 0 < len(late) < 10
    assert any("while it waited for other predictions" in str(error) for error in late)


async def test_image_is_read_only_with_a_slot(tmp_path):
    """Waiting calls would otherwise hold their images in memory."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"old")
    bodies, release = [], asyncio.Event()

    async def answer(request):
        bodies.append(request.content)
        await release.wait()
        return httpx.Response(200, json=[])

    async with AsyncClient(transport=httpx.MockTransport(answer), max_concurrency=1) as connection:
        calls = [asyncio.create_task(connection.classify("images", path)) for _ in range(2)]
        while not bodies:
            await asyncio.sleep(0.001)
        path.write_bytes(b"new")
        release.set()
        await asyncio.gather(*calls)
    assert bodies == [b"old", b"new"]


async def test_cancelled_call_releases_its_slot():
    release = asyncio.Event()

    async def answer(request):
        await release.wait()
        return httpx.Response(200, json=[])

    async with AsyncClient(transport=httpx.MockTransport(answer), max_concurrency=1) as connection:
        calls = [asyncio.create_task(connection.classify("images", b"x")) for _ in range(4)]
        await asyncio.sleep(0.01)
        calls[0].cancel()
        calls[1].cancel()
        calls[2].cancel()
        release.set()
        assert await asyncio.wait_for(calls[3], 5) == []
        assert await asyncio.wait_for(connection.classify("images", b"x"), 5) == []


async def test_all_calls_are_sent_at_once_without_limit():
    barrier = asyncio.Barrier(200)

    async def answer(request):
        await barrier.wait()
        return httpx.Response(200, json=[])

    async with AsyncClient(transport=httpx.MockTransport(answer), max_concurrency=None) as connection:
        answers = await asyncio.gather(*(connection.classify("images", b"x") for _ in range(200)))
    assert len(answers) == 200


def test_management_call_needs_no_slot(fake):
    """A management call must not wait for the predictions of a busy server."""
    release, answering = threading.Event(), threading.Event()

    def answer(request):
        if request.method == "POST":
            answering.set()
            release.wait(10)
        return fake.handle_rest(request)

    with (
        Client(transport=httpx.MockTransport(answer), max_concurrency=1) as connection,
        ThreadPoolExecutor(1) as threads,
    ):
        busy = threads.submit(connection.classify, "images", b"x")
        answering.wait(10)
        assert connection.ready("images")
        assert connection.describe("images").name == "images"
        release.set()
        busy.result()


def hold_free(concurrency_limit, held_slots):
    """Hold all free slots. Return all held slots."""
    held_slots = list(held_slots)
    while len(held_slots) < concurrency_limit.limit:
        held_slots.append(concurrency_limit.hold(None))
        held_slots[-1].__enter__()
    return held_slots


def test_concurrency_limit_doubles_then_halves_then_grows_by_one():
    concurrency_limit = AdaptiveConcurrencyLimit(Settings(max_concurrency=1000))
    assert concurrency_limit.limit == INITIAL_CONCURRENCY
    held_slots = hold_free(concurrency_limit, [])
    for _ in range(INITIAL_CONCURRENCY):
        concurrency_limit.on_success()
        held_slots = hold_free(concurrency_limit, held_slots)
    assert concurrency_limit.limit == 2 * INITIAL_CONCURRENCY
    decrease_count = concurrency_limit.decrease_count
    for _ in range(50):
        concurrency_limit.on_overload(decrease_count)  # several rejections are one overload
    assert concurrency_limit.limit == INITIAL_CONCURRENCY
    for _ in range(INITIAL_CONCURRENCY + 1):
        concurrency_limit.on_success()
    assert concurrency_limit.limit == INITIAL_CONCURRENCY + 1
    for _ in range(20):
        concurrency_limit.on_overload(concurrency_limit.decrease_count)
    assert concurrency_limit.limit == 1


def test_unused_concurrency_limit_does_not_grow():
    concurrency_limit = AdaptiveConcurrencyLimit(Settings())
    for _ in range(1000):
        with concurrency_limit.hold(None):
            concurrency_limit.on_success()
    assert concurrency_limit.limit == INITIAL_CONCURRENCY


def test_concurrency_limit_stays_within_max_connections():
    assert AdaptiveConcurrencyLimit(Settings(max_connections=5)).limit == 5
    assert AdaptiveConcurrencyLimit(Settings(max_connections=5, protocol="grpc")).limit == INITIAL_CONCURRENCY


def test_slots_are_granted_in_order_of_arrival():
    concurrency_limit, order = AdaptiveConcurrencyLimit(Settings(max_concurrency=1)), []

    def work(number):
        with concurrency_limit.hold(None):
            order.append(number)

    with concurrency_limit.hold(None):
        threads = []
        for number in range(20):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            while len(concurrency_limit._waiting) <= number:
                time.sleep(0.0005)
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_wait_for_slot_ends_at_deadline():
    concurrency_limit = AdaptiveConcurrencyLimit(Settings(max_concurrency=1))
    with concurrency_limit.hold(None):
        with (
            pytest.raises(Timeout, match=r"no answer within 0\.05 s while it waited"),
            concurrency_limit.hold(Deadline(0.05)),
        ):
            raise AssertionError("no slot is free")
        assert not concurrency_limit._waiting
    with concurrency_limit.hold(Deadline(0.05)):
        pass
