"""`map`: an output or an error for each input, read lazily, ordered or unordered."""

import asyncio
import threading
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from torchserve_models.client import AsyncClient, Client, InvalidImage
from torchserve_models.client.bulk_map import MAX_AHEAD

pytestmark = pytest.mark.usefixtures("short_pauses")

COUNT = 300
orders = pytest.mark.parametrize("ordered", [True, False])


def map_sync(classify, inputs, ordered, **arguments):
    with Client(**arguments) as connection:
        return list(connection.map(partial(classify, connection), inputs, ordered=ordered))


def map_async(classify, inputs, ordered, **arguments):
    async def run():
        async with AsyncClient(**arguments) as connection:
            function = partial(classify, connection)
            return [result async for result in connection.map(function, inputs, ordered=ordered)]

    return asyncio.run(run())


both = pytest.mark.parametrize("map_all", [map_sync, map_async], ids=["sync", "async"])


@both
@orders
def test_map_over_many_images_loses_none(short_queue, map_all, ordered):
    answer = short_queue.answer if map_all is map_sync else short_queue.answer_async
    inputs = (str(number).encode() for number in range(COUNT))
    results = map_all(
        lambda c, image: c.classify("images", image),
        inputs,
        ordered,
        transport=httpx.MockTransport(answer),
    )
    assert [result.error for result in results] == [None] * COUNT
    assert all(result.input.decode() == result.output[0].label == result.name for result in results)
    indexes = [result.index for result in results]
    assert sorted(indexes) == list(range(COUNT))
    assert not ordered or indexes == sorted(indexes)
    assert 0 < short_queue.refused < COUNT


@both
@orders
def test_map_reports_error_of_each_input(fake, map_all, ordered, tmp_path):
    good, bad, absent = (tmp_path / name for name in ("good.jpg", "bad.jpg", "absent.jpg"))
    good.write_bytes(b"good")
    bad.write_bytes(b"bad")
    results = map_all(
        lambda c, path: c.classify("images", path),
        [absent, bad, good],
        ordered,
        transport=httpx.MockTransport(fake.handle_rest),
    )
    by_name = {result.name: result for result in results}
    assert by_name.keys() == {str(path) for path in (good, bad, absent)}
    assert by_name[str(good)].result()[0].label == "4 bytes, 0.5"
    assert type(by_name[str(bad)].error) is InvalidImage
    with pytest.raises(FileNotFoundError):
        by_name[str(absent)].result()


@both
@pytest.mark.parametrize("inputs", [[], iter(())])
def test_map_without_inputs_yields_nothing(map_all, inputs):
    assert map_all(lambda c, image: c.classify("images", image), inputs, True) == []


@both
def test_other_exception_of_function_ends_map(map_all):
    with pytest.raises(ZeroDivisionError):
        map_all(lambda c, number: 1 / number, [0], True)


@orders
@pytest.mark.parametrize("kind", ["sync", "async", "async with asynchronous inputs"])
def test_failing_inputs_iterator_loses_no_result(fake, ordered, kind):
    """The results of inputs that were read before are yielded first."""

    def failing():
        yield from (b"0", b"1", b"2")
        raise LookupError("no further inputs")

    async def failing_later():
        for image in (b"0", b"1", b"2"):
            yield image
        raise LookupError("no further inputs")

    indices = []
    transport = httpx.MockTransport(fake.handle_rest)

    async def run():
        async with AsyncClient(transport=transport) as connection:
            function = partial(connection.classify, "images")
            inputs = failing() if kind == "async" else failing_later()
            async for result in connection.map(function, inputs, ordered=ordered):
                indices.append(result.index)

    def run_sync():
        with Client(transport=transport) as connection:
            function = partial(connection.classify, "images")
            for result in connection.map(function, failing(), ordered=ordered):
                indices.append(result.index)

    with pytest.raises(LookupError, match="no further inputs"):
        run_sync() if kind == "sync" else asyncio.run(run())
    assert sorted(indices) == [0, 1, 2]


def slow_first(release):
    def answer(request):
        if request.content == b"0":
            release.wait(20)
        return httpx.Response(200, json=[{"label": request.content.decode(), "score": 1}])

    return answer


def numbers(read, end):
    for number in range(end):
        read.append(number)
        yield str(number).encode()


def test_ordered_map_reads_inputs_as_needed():
    """While the first input is slow, a limited number of further inputs is read."""
    read, release = [], threading.Event()
    transport = httpx.MockTransport(slow_first(release))
    with Client(transport=transport, max_concurrency=4) as connection:
        results = connection.map(partial(connection.classify, "images"), numbers(read, 10_000))
        assert read == []
        threading.Timer(1.0, release.set).start()
        with closing(results):
            assert next(results).index == 0
            assert 4 < len(read) <= MAX_AHEAD * 4


def test_unordered_map_reads_inputs_as_needed():
    read, release = [], threading.Event()
    transport = httpx.MockTransport(slow_first(release))
    with Client(transport=transport, max_concurrency=4) as connection:
        results = connection.map(partial(connection.classify, "images"), numbers(read, 10_000), ordered=False)
        with closing(results):
            taken = [next(results).index for _ in range(100)]
            assert 0 not in taken
            assert len(read) <= 100 + MAX_AHEAD * 4
            release.set()


@orders
async def test_async_map_reads_inputs_as_needed(ordered):
    read = []

    def answer(request):
        return httpx.Response(200, json=[])

    async with AsyncClient(transport=httpx.MockTransport(answer), max_concurrency=4) as connection:
        function = partial(connection.classify, "images")
        async with aclosing(connection.map(function, numbers(read, 10_000), ordered=ordered)) as results:
            async for result in results:
                if result.index == 20:
                    break
        assert len(read) <= 21 + MAX_AHEAD * 4


async def test_map_yields_results_while_waiting_for_next_input():
    """Inputs may arrive over time, such as lines of a pipe."""
    inputs: asyncio.Queue = asyncio.Queue()

    async def arriving():
        while True:
            yield await inputs.get()

    def answer(request):
        return httpx.Response(200, json=[])

    async with (
        AsyncClient(transport=httpx.MockTransport(answer)) as connection,
        aclosing(connection.map(partial(connection.classify, "m"), arriving())) as results,
    ):
        for index in range(5):
            await inputs.put(b"x")
            result = await asyncio.wait_for(anext(results), 10)
            assert result.index == index


async def test_leaving_map_early_cancels_calls_in_progress():
    cancelled = []

    async def answer(request):
        if request.content != b"0":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(request.content)
                raise
        return httpx.Response(200, json=[])

    async with AsyncClient(transport=httpx.MockTransport(answer), max_concurrency=4) as connection:
        function = partial(connection.classify, "images")
        async with aclosing(connection.map(function, numbers([], 100))) as results:
            assert (await anext(results)).index == 0
            await asyncio.sleep(0.01)
    assert cancelled


def test_map_result_is_named_by_its_path(fake, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    with Client(transport=httpx.MockTransport(fake.handle_rest)) as connection:
        classify = partial(connection.classify, "images", top_k=1)
        assert [result.name for result in connection.map(classify, [path, b"y"])] == [str(path), "1"]
        assert [result.name for result in connection.map(classify, [Path("absent.jpg")])] == ["absent.jpg"]
