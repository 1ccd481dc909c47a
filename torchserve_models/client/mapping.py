"""`map` of the sync and the async client: many inputs, several at a time, each with its output or its error."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic

from torchserve_models.client.concurrency import Slots
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.results import InputT, MapResult, OutputT

ITEM_ERRORS = (TorchServeError, OSError)
"""Errors of one input, such as a file that cannot be read. Others, such as TypeError, end the whole map."""
MAX_AHEAD = 4
"""Inputs that may be read beyond the results that were taken, as a multiple of the largest concurrency."""


class Window(Generic[InputT, OutputT]):
    """The inputs that were read and whose results were not handed out yet: a bounded number."""

    def __init__(self, slots: Slots, ordered: bool) -> None:
        self._slots = slots
        self._ordered = ordered
        self._running = 0
        self._started = 0
        self._next = 0
        self._finished: deque[MapResult[InputT, OutputT]] = deque()
        self._early: dict[int, MapResult[InputT, OutputT]] = {}

    def has_room(self) -> bool:
        """Whether a further input may be read and sent."""
        ahead = self._running + len(self._early) + len(self._finished)
        return self._running < self._slots.limit and ahead < MAX_AHEAD * self._slots.maximum

    def start(self) -> int:
        """Count an input that is sent; returns its index."""
        self._running += 1
        self._started += 1
        return self._started - 1

    def finish(self, result: MapResult[InputT, OutputT]) -> None:
        self._running -= 1
        if not self._ordered:
            self._finished.append(result)
            return
        self._early[result.index] = result
        while self._next in self._early:
            self._finished.append(self._early.pop(self._next))
            self._next += 1

    def take(self) -> Iterator[MapResult[InputT, OutputT]]:
        """The results that may be handed out, each once."""
        while self._finished:
            yield self._finished.popleft()


class MapMethods:
    """For a client with `_slots`."""

    _slots: Slots

    def map(
        self,
        function: Callable[[InputT], OutputT],
        inputs: Iterable[InputT],
        *,
        ordered: bool = True,
    ) -> Generator[MapResult[InputT, OutputT], None, None]:
        """Call a function with each input, several at a time, and yield an output or an error for each input.

        The number of calls in progress follows the server, up to `max_concurrency`. Inputs are read when they are
        needed, at most four times `max_concurrency` beyond the results that were taken.

        Args:
            function: What to do with one input, with a method of this client: it is called in several threads.
            inputs: For example paths; a generator is read as needed, in the thread that iterates over the results.
            ordered: Yield the results in the order of the inputs; False: as they come.

        Yields:
            MapResult: The input, and its output, or its error if that is a TorchServeError or an OSError.

        Raises:
            Exception: What `function` raises besides; and what reading `inputs` raises, after the results of the
                inputs that were read before.

        Example:
            for result in client.map(partial(client.classify, "resnet-50"), Path("photos").glob("*.jpg")):
                print(result.name, result.error or result.output)
        """
        window: Window[InputT, OutputT] = Window(self._slots, ordered)
        source = iter(inputs)
        futures: set[Future[MapResult[InputT, OutputT]]] = set()
        end: Exception | None = None
        executor = ThreadPoolExecutor(self._slots.maximum, "client-map")
        try:
            while True:
                while end is None and window.has_room():
                    try:
                        item = next(source)
                    except Exception as error:  # StopIteration, or what reading the inputs raises
                        end = error
                    else:
                        futures.add(executor.submit(_apply, function, window.start(), item))
                yield from window.take()
                if not futures:
                    if end is not None and not isinstance(end, StopIteration):
                        raise end
                    return
                done, futures = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    window.finish(future.result())
        finally:
            executor.shutdown(cancel_futures=True)


class AsyncMapMethods:
    """For a client with `_slots`."""

    _slots: Slots

    async def map(
        self,
        function: Callable[[InputT], Awaitable[OutputT]],
        inputs: Iterable[InputT] | AsyncIterable[InputT],
        *,
        ordered: bool = True,
    ) -> AsyncGenerator[MapResult[InputT, OutputT], None]:
        """As `Client.map`, for `async for`. `inputs` may be asynchronous as well."""
        window: Window[InputT, OutputT] = Window(self._slots, ordered)
        source = _as_async(inputs)
        tasks: set[asyncio.Task[MapResult[InputT, OutputT]]] = set()
        reading: asyncio.Task[tuple[InputT, ...]] | None = None
        is_exhausted = False
        failure: Exception | None = None
        try:
            while True:
                if reading is None and not is_exhausted and window.has_room():
                    reading = asyncio.create_task(_read_next(source))
                for result in window.take():
                    yield result
                if reading is None and not tasks:
                    if failure is not None:
                        raise failure
                    return
                pending = tasks if reading is None else {reading, *tasks}
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if reading in done:
                    assert reading is not None
                    items: tuple[InputT, ...] = ()
                    try:
                        items = reading.result()
                    except Exception as error:
                        failure = error
                    reading, is_exhausted = None, not items
                    for item in items:
                        tasks.add(asyncio.create_task(_apply_async(function, window.start(), item)))
                for task in tasks & done:
                    tasks.remove(task)
                    window.finish(task.result())
        finally:
            unfinished = [*tasks, *([reading] if reading else [])]
            for unfinished_task in unfinished:
                unfinished_task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
            await source.aclose()


def _apply(function: Callable[[InputT], OutputT], index: int, item: InputT) -> MapResult[InputT, OutputT]:
    try:
        return MapResult(index, item, output=function(item))
    except ITEM_ERRORS as error:
        return MapResult(index, item, error=error)


async def _apply_async(
    function: Callable[[InputT], Awaitable[OutputT]], index: int, item: InputT
) -> MapResult[InputT, OutputT]:
    try:
        return MapResult(index, item, output=await function(item))
    except ITEM_ERRORS as error:
        return MapResult(index, item, error=error)


async def _as_async(inputs: Iterable[InputT] | AsyncIterable[InputT]) -> AsyncGenerator[InputT, None]:
    if isinstance(inputs, AsyncIterable):
        async for item in inputs:
            yield item
    else:
        for item in inputs:
            yield item


async def _read_next(source: AsyncIterator[InputT]) -> tuple[InputT, ...]:
    """The next input, or nothing at the end."""
    async for item in source:
        return (item,)
    return ()
