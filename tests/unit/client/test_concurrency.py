"""The number of predictions in progress follows the server, and many calls at once lose none."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.unit.client.fake_queue import ShortQueue
from torchserve_models.client import AsyncClient, Client, Overloaded, Timeout, retry
from torchserve_models.client.concurrency import FIRST_LIMIT, Slots
from torchserve_models.client.deadlines import Deadline
from torchserve_models.client.settings import Settings


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def short_queue():
    server = ShortQueue()
    yield server
    server.close()


def label(number):
    return str(number).encode()


async def test_gather_over_many_images_loses_none():
    """Case 22."""
    short_queue = ShortQueue(queue_size=12, batch_size=12)
    async with AsyncClient(transport=httpx.MockTransport(short_queue.answer_async)) as connection:
        calls = (connection.classify("images", label(number)) for number in range(2000))
        answers = await asyncio.gather(*calls)
    assert [answer[0].label for answer in answers] == [str(number) for number in range(2000)]
    assert short_queue.refused > 0
    assert short_queue.sent < 2 * 2000  # most were not refused: the limit has found what the server takes
    short_queue.close()


def test_many_threads_lose_none(short_queue):
    with (
        Client(transport=httpx.MockTransport(short_queue.answer)) as connection,
        ThreadPoolExecutor(100) as threads,
    ):
        answers = list(threads.map(lambda number: connection.classify("images", label(number)), range(500)))
    assert [answer[0].label for answer in answers] == [str(number) for number in range(500)]
    assert short_queue.refused > 0


async def test_gather_over_grpc_sends_a_bounded_number_at_once(connection, fake):
    calls_at_once = [0, 0]
    async with AsyncClient(
        protocol="grpc", max_concurrency=3, endpoints=connection["endpoints"]
    ) as grpc_client:
        send = grpc_client._grpc.send

        async def counted(call, deadline):
            calls_at_once[0] += 1
            calls_at_once[1] = max(calls_at_once)
            try:
                return await send(call, deadline)
            finally:
                calls_at_once[0] -= 1

        grpc_client._grpc.send = counted
        await asyncio.gather(*(grpc_client.classify("images", b"x") for _ in range(30)))
    assert calls_at_once == [0, 3]
    assert len(fake.inputs) == 30


async def test_a_server_that_refuses_for_a_while_loses_none(short_queue):
    """Case 22."""
    short_queue.refusing = True

    async def recover():
        await asyncio.sleep(1.0)  # far longer than three retries take
        short_queue.refusing = False

    async with AsyncClient(transport=httpx.MockTransport(short_queue.answer_async)) as connection:
        calls = [connection.classify("images", label(number)) for number in range(100)]
        answers, _ = await asyncio.gather(asyncio.gather(*calls), recover())
        assert len(answers) == 100


def test_a_refusing_server_ends_at_the_timeout(call, short_queue):
    short_queue.refusing = True
    transport = httpx.MockTransport(short_queue.answer)
    with pytest.raises((Overloaded, Timeout)):  # Timeout if the time was over when it was to be sent again
        call(lambda c: c.classify("images", b"x"), transport=transport, timeout=1.0)
    assert short_queue.sent > 4


async def test_retry_after_is_waited_for(short_queue):
    """Case 22."""
    short_queue.refusing, short_queue.retry_after = True, "1"
    async with AsyncClient(transport=httpx.MockTransport(short_queue.answer_async)) as connection:
        task = asyncio.create_task(connection.classify("images", b"x"))
        while not short_queue.times:
            await asyncio.sleep(0.01)
        short_queue.refusing = False
        await task
    first, second = short_queue.times
    assert second - first >= 1.0


async def test_what_waits_for_a_slot_has_the_whole_timeout_of_the_client():
    """Ten calls one after the other take longer than the timeout of each."""

    async def answer(request):
        await asyncio.sleep(0.2)
        return httpx.Response(200, json=[])

    transport = httpx.MockTransport(answer)
    async with AsyncClient(transport=transport, timeout=1.2, max_concurrency=1) as connection:
        await asyncio.gather(*(connection.classify("images", b"x") for _ in range(10)))
        calls = [connection.classify("images", b"x", timeout=1.2) for _ in range(10)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    late = [answer for answer in answers if isinstance(answer, Timeout)]
    assert 0 < len(late) < 10
    assert any("while it waited for other predictions" in str(error) for error in late)


async def test_an_image_is_read_only_when_there_is_a_slot(tmp_path):
    """Otherwise a thousand paths would be a thousand images in memory."""
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


async def test_a_cancelled_call_gives_its_slot_back():
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


async def test_without_a_limit_all_are_sent_at_once():
    barrier = asyncio.Barrier(200)

    async def answer(request):
        await barrier.wait()
        return httpx.Response(200, json=[])

    async with AsyncClient(transport=httpx.MockTransport(answer), max_concurrency=None) as connection:
        answers = await asyncio.gather(*(connection.classify("images", b"x") for _ in range(200)))
    assert len(answers) == 200


def test_management_needs_no_slot(fake):
    """What looks at a busy server must not wait for it."""
    release, answering = threading.Event(), threading.Event()

    def answer(request):
        if request.method == "POST":
            answering.set()
            release.wait(10)
        return fake.rest(request)

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


def hold_free(slots, held):
    """Hold the slots that are free; all that are held."""
    held = list(held)
    while len(held) < slots.limit:
        held.append(slots.hold(None))
        held[-1].__enter__()
    return held


def test_the_limit_doubles_then_halves_then_grows_by_one():
    slots = Slots(Settings(max_concurrency=1000))
    assert slots.limit == FIRST_LIMIT
    held = hold_free(slots, [])
    for _ in range(FIRST_LIMIT):
        slots.answered()
        held = hold_free(slots, held)
    assert slots.limit == 2 * FIRST_LIMIT
    sent_in = slots.round
    for _ in range(50):
        slots.refused(sent_in)  # one overload, however many requests it refuses
    assert slots.limit == FIRST_LIMIT
    for _ in range(FIRST_LIMIT + 1):
        slots.answered()
    assert slots.limit == FIRST_LIMIT + 1
    for _ in range(20):
        slots.refused(slots.round)
    assert slots.limit == 1


def test_the_limit_does_not_grow_unused():
    slots = Slots(Settings())
    for _ in range(1000):
        with slots.hold(None):
            slots.answered()
    assert slots.limit == FIRST_LIMIT


def test_the_limit_stays_within_the_connections():
    assert Slots(Settings(max_connections=5)).limit == 5
    assert Slots(Settings(max_connections=5, protocol="grpc")).limit == FIRST_LIMIT


def test_slots_are_given_in_order_of_arrival():
    slots, order = Slots(Settings(max_concurrency=1)), []

    def work(number):
        with slots.hold(None):
            order.append(number)

    with slots.hold(None):
        threads = []
        for number in range(20):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            while len(slots._waiting) <= number:
                time.sleep(0.0005)
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_the_wait_for_a_slot_ends_at_the_deadline():
    slots = Slots(Settings(max_concurrency=1))
    with slots.hold(None):
        with (
            pytest.raises(Timeout, match=r"no answer within 0\.05 s while it waited"),
            slots.hold(Deadline(0.05)),
        ):
            raise AssertionError("there is no slot")
        assert not slots._waiting
    with slots.hold(Deadline(0.05)):
        pass
