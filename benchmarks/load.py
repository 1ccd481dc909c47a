"""The load generator: a closed loop of N clients, counted by the clock or whole, or an open loop of Poisson arrivals.

It shares the machine with the server that it measures, so it does nothing that can be done beforehand or afterwards.
"""

import asyncio
import gc
import itertools
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from benchmarks.outcomes import Outcome
from benchmarks.wire import Connection, Target

_REFUSED = (
    0.01  # seconds of rest after an error: a server that refuses at once is not to be drowned in repetitions
)
_CROSSING = 0.02  # seconds in which a request and the closing of its idle connection may pass each other


class Client(Protocol):
    """`ask` sends the target's request of that number; it returns what was wrong with the answer, None if nothing."""

    async def ask(self, number: int) -> str | None: ...

    async def close(self) -> None: ...


class HttpClient:
    """As many connections as requests are under way; kept alive and used again, the last one first."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._idle: list[Connection] = []

    async def ask(self, number: int) -> str | None:
        try:
            async with asyncio.timeout(self._target.timeout):
                return await self._ask(number)
        except TimeoutError:
            return "timeout"
        except OSError:  # refused, reset, no descriptor left
            return "connection lost"

    async def _ask(self, number: int) -> str | None:
        request = self._target.requests[number]
        connection = await self._connection()
        sent = time.perf_counter()
        try:
            reply = await connection.ask(request)
        except ConnectionResetError:
            if not connection.used or time.perf_counter() - sent > _CROSSING:
                raise
            connection = await self._new()  # closed as idle while this was on its way: not its fault
            reply = await connection.ask(request)
        except asyncio.CancelledError:
            connection.close()
            raise
        if connection.alive:
            self._idle.append(connection)
        return self._target.problem(number, reply.body) if reply.status == 200 else f"HTTP {reply.status}"

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return await self._new()

    async def _new(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._target.host, self._target.port)
        return connection

    async def close(self) -> None:
        for connection in self._idle:
            connection.close()


class GrpcClient:
    """One channel; messages are bytes already, and stay bytes."""

    def __init__(self, target: Target) -> None:
        import grpc

        self._target = target
        self._error = grpc.aio.AioRpcError
        self._channel = grpc.aio.insecure_channel(f"{target.host}:{target.port}")
        self._call = self._channel.unary_unary(target.path, None, None)

    async def ask(self, number: int) -> str | None:
        request = self._target.requests[number]
        try:
            return self._target.problem(number, await self._call(request, timeout=self._target.timeout))
        except self._error as error:
            return str(error.code().name).lower().replace("_", " ")

    async def close(self) -> None:
        await self._channel.close(None)


@dataclass(frozen=True)
class Closed:
    """`connections` clients, each sends as soon as it has its answer."""

    connections: int


@dataclass(frozen=True)
class Whole:
    """`connections` clients; once the seconds are over and `least` requests are sent, none sends another.

    What is under way then is answered and counts like the rest, and so does the time until the last answer: nothing
    counts in part. For answers that take seconds each, of which a window by the clock would cut off most.
    """

    connections: int
    least: int = 1


@dataclass(frozen=True)
class Open:
    """`rate` requests a second on the average, whether answers come or not; `seed` decides when."""

    rate: float
    seed: int = 1

    def arrivals(self, seconds: float) -> Iterator[float]:
        """Seconds from the start at which a request is due: exponential gaps."""
        draw = random.Random(self.seed)
        due = draw.expovariate(self.rate)
        while due < seconds:
            yield due
            due += draw.expovariate(self.rate)


@dataclass(frozen=True)
class Job:
    """One measurement: `seconds` are counted after `ramp` seconds of the same load, of which `Whole` has none."""

    target: Target
    load: Closed | Whole | Open
    seconds: float
    ramp: float = 1.0
    first: int = 0
    """Which of the target's requests is sent first; the others follow in turn."""


def run(job: Job, begin: float | None = None) -> Outcome:
    """Does the job, beginning at `time.time()` = `begin`. Runs its own event loop."""
    if begin is not None:
        time.sleep(max(0.0, begin - time.time()))
    gc.collect()
    gc.freeze()
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = asyncio.run(_run(job))
    outcome.cpu = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return outcome


async def _run(job: Job) -> Outcome:
    client: Client = HttpClient(job.target) if job.target.protocol == "http" else GrpcClient(job.target)
    count = len(job.target.requests)
    numbers = (number % count for number in itertools.count(job.first))
    try:
        if isinstance(job.load, Closed):
            return await _closed(client, job, job.load, numbers)
        if isinstance(job.load, Whole):
            return await _whole(client, job, job.load, numbers)
        return await _open(client, job, job.load, numbers)
    finally:
        with suppress(Exception):
            await client.close()


async def _closed(client: Client, job: Job, load: Closed, numbers: Iterator[int]) -> Outcome:
    outcome = Outcome(job.seconds)
    start = time.perf_counter() + job.ramp
    end = start + job.seconds

    async def one() -> None:
        while (sent := time.perf_counter()) < end:
            problem = await client.ask(next(numbers))
            now = time.perf_counter()
            if start <= now and (now < end or problem is not None):  # an error counts however late it is told
                _note(outcome, problem, now - sent)
                outcome.completed += problem is None
            if problem is not None:
                await asyncio.sleep(_REFUSED)

    await asyncio.gather(*(one() for _ in range(load.connections)))
    return outcome


async def _whole(client: Client, job: Job, load: Whole, numbers: Iterator[int]) -> Outcome:
    """Latencies of the first request of each of several clients are left out where there are enough others.

    They all arrive at once, where later ones queue behind those of all other clients.
    """
    outcome = Outcome(job.seconds)
    answered: list[tuple[bool, float, int]] = []  # one of the first, seconds, new tokens
    begin = last = time.perf_counter()
    sent = 0

    async def one() -> None:
        nonlocal last, sent
        while sent < load.least or time.perf_counter() - begin < job.seconds:
            first = sent < load.connections and load.connections > 1
            number, at = next(numbers), time.perf_counter()
            sent += 1
            problem = await client.ask(number)
            last = time.perf_counter()
            if problem is None:
                answered.append((first, last - at, job.target.tokens[number] if job.target.tokens else 0))
            else:
                _note(outcome, problem, last - at)
                await asyncio.sleep(_REFUSED)

    await asyncio.gather(*(one() for _ in range(load.connections)))
    outcome.seconds = last - begin
    outcome.completed = len(answered)
    outcome.tokens = sum(tokens for _, _, tokens in answered)
    later = [each for each in answered if not each[0]]
    settled = later if len(later) >= load.connections else answered
    outcome.latencies = [seconds for _, seconds, _ in settled]
    outcome.per_token = [seconds / tokens for _, seconds, tokens in settled if tokens]
    return outcome


async def _open(client: Client, job: Job, load: Open, numbers: Iterator[int]) -> Outcome:
    """Latency counts from when a request was due, so that a generator or server that lags cannot hide it."""
    outcome = Outcome(job.seconds)
    begin = time.perf_counter()
    whole = job.ramp + job.seconds

    async def one(due: float) -> None:
        problem = await client.ask(next(numbers))
        now = time.perf_counter() - begin
        if job.ramp <= due:
            _note(outcome, problem, now - due)
        outcome.completed += problem is None and job.ramp <= now < whole

    async with asyncio.TaskGroup() as group:
        for due in load.arrivals(whole):
            await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
            group.create_task(one(due))
    return outcome


def _note(outcome: Outcome, problem: str | None, seconds: float) -> None:
    if problem is None:
        outcome.latencies.append(seconds)
    else:
        outcome.failures.append(seconds)
        outcome.errors[problem] += 1
