"""`map` of the sync and the async client: call a function with many inputs, several at a time."""

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

from torchserve_models.client.concurrency import AdaptiveConcurrencyLimit
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.results import InputT, MapResult, OutputT

ITEM_ERRORS = (TorchServeError, OSError)
"""Errors that are reported as the result of one input. Any other error, such as TypeError, ends the map."""
MAX_AHEAD = 4
"""Maximum number of inputs that are read ahead of the yielded results, as a multiple of the concurrency."""


class BoundedResultBuffer(Generic[InputT, OutputT]):
    """Buffer that bounds the number of inputs whose results have not been yielded."""

    def __init__(self, concurrency_limit: AdaptiveConcurrencyLimit, ordered: bool) -> None:
        self._concurrency_limit = concurrency_limit
        self._ordered = ordered
        self._running = 0
        self._started = 0
        self._next = 0
        self._finished: deque[MapResult[InputT, OutputT]] = deque()
        self._out_of_order: dict[int, MapResult[InputT, OutputT]] = {}

    def has_room(self) -> bool:
        """Return whether a further input may be read and sent."""
        ahead = self._running + len(self._out_of_order) + len(self._finished)
        return (
            self._running < self._concurrency_limit.limit
            and ahead < MAX_AHEAD * self._concurrency_limit.maximum
        )

    def start(self) -> int:
        """Record that an input is sent; return its index."""
        self._running += 1
        self._started += 1
        return self._started - 1

    def finish(self, result: MapResult[InputT, OutputT]) -> None:
        self._running -= 1
        if not self._ordered:
            self._finished.append(result)
            return
        self._out_of_order[result.index] = result
        while self._next in self._out_of_order:
            self._finished.append(self._out_of_order.pop(self._next))
            self._next += 1

    def take(self) -> Iterator[MapResult[InputT, OutputT]]:
        """Yield and remove the results that are ready, in order if `ordered` is set."""
        while self._finished:
            yield self._finished.popleft()


class MapMethods:
    """`map` of the sync client."""

    _concurrency_limit: AdaptiveConcurrencyLimit

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
            function: Called with each input, in several threads; typically a method of this client.
            inputs: The inputs, for example paths; a generator is read in the thread that iterates over the results.
            ordered: Yield the results in the order of the inputs; if False, in the order of completion.

        Yields:
            MapResult: The input, and its output, or its error if that is a TorchServeError or an OSError.

        Raises:
            Exception: Any other error of `function`; and an error of reading `inputs`, after the results of the
                inputs that were read before.

        Example:
            for result in client.map(partial(client.classify, "resnet-50"), Path("photos").glob("*.jpg")):
                print(result.name, result.error or result.output)
        """
        buffer: BoundedResultBuffer[InputT, OutputT] = BoundedResultBuffer(self._concurrency_limit, ordered)
        source = iter(inputs)
        futures: set[Future[MapResult[InputT, OutputT]]] = set()
        end: Exception | None = None
        executor = ThreadPoolExecutor(self._concurrency_limit.maximum, "client-map")
        try:
            while True:
                while end is None and buffer.has_room():
                    try:
                        item = next(source)
                    except Exception as error:  # StopIteration, or an error of reading the inputs
                        end = error
                    else:
                        futures.add(executor.submit(_apply, function, buffer.start(), item))
                yield from buffer.take()
                if not futures:
                    if end is not None and not isinstance(end, StopIteration):
                        raise end
                    return
                done, futures = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    buffer.finish(future.result())
        finally:
            executor.shutdown(cancel_futures=True)


class AsyncMapMethods:
    """`map` of the async client."""

    _concurrency_limit: AdaptiveConcurrencyLimit

    async def map(
        self,
        function: Callable[[InputT], Awaitable[OutputT]],
        inputs: Iterable[InputT] | AsyncIterable[InputT],
        *,
        ordered: bool = True,
    ) -> AsyncGenerator[MapResult[InputT, OutputT], None]:
        """Call an async function with each input, for `async for`; `inputs` may be async. See `Client.map`."""
        buffer: BoundedResultBuffer[InputT, OutputT] = BoundedResultBuffer(self._concurrency_limit, ordered)
        source = _as_async(inputs)
        tasks: set[asyncio.Task[MapResult[InputT, OutputT]]] = set()
        reading: asyncio.Task[tuple[InputT, ...]] | None = None
        is_exhausted = False
        failure: Exception | None = None
        try:
            while True:
                if reading is None and not is_exhausted and buffer.has_room():
                    reading = asyncio.create_task(_read_next(source))
                for result in buffer.take():
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
                        tasks.add(asyncio.create_task(_apply_async(function, buffer.start(), item)))
                for task in tasks & done:
                    tasks.remove(task)
                    buffer.finish(task.result())
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
    """Return the next input, or an empty tuple at the end."""
    async for item in source:
        return (item,)
    return ()
