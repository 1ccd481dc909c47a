"""Load patterns: a closed loop of N clients, a drained closed loop that waits for all answers, and an open loop."""

import asyncio
import gc
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from torchserve_models.loadgen.clients import LoadClient, create_client
from torchserve_models.loadgen.http import Target
from torchserve_models.loadgen.measurement import Measurement

ERROR_PAUSE_S = 0.01
"""Pause of a client after an error, so that a server that rejects at once is not flooded."""


@dataclass(frozen=True)
class ClosedLoop:
    """Load of `connections` clients, each of which sends a request as soon as its previous request is answered."""

    connections: int


@dataclass(frozen=True)
class DrainedClosedLoop:
    """Load of `connections` clients that stop sending after the job's time and at least `min_requests` requests.

    The measurement includes requests that are still in progress at that time, and ends with the last answer. Use this
    load for answers that take seconds, because a fixed window would exclude most of them.
    """

    connections: int
    min_requests: int = 1


@dataclass(frozen=True)
class OpenLoop:
    """Load with Poisson arrivals: `rate` requests per second on average, independent of the answers."""

    rate: float
    seed: int = 1

    def arrivals(self, seconds: float) -> Iterator[float]:
        """Yield the times at which requests are due, in seconds from the start; the gaps are exponential."""
        rng = random.Random(self.seed)
        due = rng.expovariate(self.rate)
        while due < seconds:
            yield due
            due += rng.expovariate(self.rate)


@dataclass(frozen=True)
class LoadJob:
    """A measurement of about `seconds` seconds.

    The load begins `ramp_s` seconds before the measured window, except for `DrainedClosedLoop`. The window of a
    `ClosedLoop` begins and ends with an answer. `first_request` is the index of the first request.
    """

    target: Target
    load: ClosedLoop | DrainedClosedLoop | OpenLoop
    seconds: float
    ramp_s: float = 1.0
    first_request: int = 0


def run_job(job: LoadJob, begin: float | None = None) -> Measurement:
    """Run a job in a new event loop, starting at the time `begin` (`time.time()`)."""
    if begin is not None:
        time.sleep(max(0.0, begin - time.time()))
    gc.collect()
    gc.freeze()
    wall, cpu = time.perf_counter(), time.process_time()
    measurement = asyncio.run(_run(job))
    measurement.cpu = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return measurement


def send_probe(target: Target) -> Measurement:
    """Send a few requests within 0.2 s and return the answers."""
    return run_job(LoadJob(target, OpenLoop(rate=20.0), seconds=0.2, ramp_s=0.0))


def wait_until_answering(target: Target, get_failure: Callable[[], str | None], timeout_s: float) -> None:
    """Wait until the target answers correctly.

    Args:
        get_failure: Returns why the server has failed; None if it has not.

    Raises:
        ConnectionError: The server failed.
        TimeoutError: The server gave no correct answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        failure = get_failure()
        answers = send_probe(target)
        if answers.latencies and not answers.errors:
            return
        if failure is not None:
            raise ConnectionError(failure)
        if time.monotonic() > deadline:
            kinds = ", ".join(answers.errors) or "no answer"
            raise TimeoutError(f"no correct answer within {timeout_s:.0f} s: {kinds}")
        time.sleep(0.5)


async def _run(job: LoadJob) -> Measurement:
    client = create_client(job.target)
    count = len(job.target.requests)
    indices = (number % count for number in itertools.count(job.first_request))
    try:
        if isinstance(job.load, ClosedLoop):
            return await _run_closed(client, job, job.load, indices)
        if isinstance(job.load, DrainedClosedLoop):
            return await _run_drained(client, job, job.load, indices)
        return await _run_open(client, job, job.load, indices)
    finally:
        with suppress(Exception):
            await client.close()


async def _run_closed(
    client: LoadClient, job: LoadJob, load: ClosedLoop, indices: Iterator[int]
) -> Measurement:
    """Run a closed loop, measured from answer to answer.

    Servers with batching answer many requests at once, so a window of a fixed length would contain one batch more or
    less, which is 10% of 3 s if a batch takes 0.3 s.
    """
    measurement = Measurement(job.seconds)
    start = time.perf_counter() + job.ramp_s
    end = start + job.seconds
    answers: list[tuple[float, float]] = []  # (time, latency)

    async def run_client() -> None:
        while (sent := time.perf_counter()) < end:
            problem = await client.send(next(indices))
            now = time.perf_counter()
            if problem is None:
                answers.append((now, now - sent))
                continue
            if now >= start:  # errors count even if they are reported after the end
                measurement.add_error(problem, now - sent)
            await asyncio.sleep(ERROR_PAUSE_S)

    await asyncio.gather(*(run_client() for _ in range(load.connections)))
    begin, last = find_window([now for now, _ in answers], start, end)
    measurement.latencies = [latency for now, latency in answers if begin < now <= last]
    measurement.completed = len(measurement.latencies)
    measurement.seconds = last - begin
    return measurement


def find_window(answers: Sequence[float], start: float, end: float) -> tuple[float, float]:
    """Return the times of the first answer from `start` on and of the first one from `end` on.

    Their difference is a number of whole batches. `start` and `end` replace answers that do not exist. If the first
    answer arrives after `end`, the window begins at `start`, so that it contains this answer.

    Args:
        answers: Times of the answers, in seconds.
        start: The earliest time at which the window may begin.
        end: The earliest time at which the window may end.
    """
    begin = min((now for now in answers if now >= start), default=start)
    last = min((now for now in answers if now >= end), default=end)
    return (begin if begin < last else start), last


async def _run_drained(
    client: LoadClient, job: LoadJob, load: DrainedClosedLoop, indices: Iterator[int]
) -> Measurement:
    """Run a drained closed loop. Latencies exclude each client's first request if there are enough other requests.

    All first requests arrive at the same time, whereas later requests queue behind those of other clients.
    """
    measurement = Measurement(job.seconds)
    answers: list[tuple[bool, float, int]] = []  # (whether it is a client's first, seconds, new tokens)
    begin = last = time.perf_counter()
    sent_count = 0

    async def run_client() -> None:
        nonlocal last, sent_count
        while sent_count < load.min_requests or time.perf_counter() - begin < job.seconds:
            is_first = sent_count < load.connections and load.connections > 1
            index, sent = next(indices), time.perf_counter()
            sent_count += 1
            problem = await client.send(index)
            last = time.perf_counter()
            if problem is None:
                tokens = job.target.tokens[index] if job.target.tokens else 0
                answers.append((is_first, last - sent, tokens))
            else:
                measurement.add_error(problem, last - sent)
                await asyncio.sleep(ERROR_PAUSE_S)

    await asyncio.gather(*(run_client() for _ in range(load.connections)))
    measurement.seconds = last - begin
    measurement.completed = len(answers)
    measurement.tokens = sum(tokens for _, _, tokens in answers)
    later = [answer for answer in answers if not answer[0]]
    counted = later if len(later) >= load.connections else answers
    measurement.latencies = [seconds for _, seconds, _ in counted]
    measurement.per_token = [seconds / tokens for _, seconds, tokens in counted if tokens]
    return measurement


async def _run_open(client: LoadClient, job: LoadJob, load: OpenLoop, indices: Iterator[int]) -> Measurement:
    """Run an open loop. Latencies begin when a request was due, so that a lagging generator cannot hide a queue."""
    measurement = Measurement(job.seconds)
    begin = time.perf_counter()
    end = job.ramp_s + job.seconds

    async def send(due: float) -> None:
        problem = await client.send(next(indices))
        now = time.perf_counter() - begin
        if due >= job.ramp_s:
            if problem is None:
                measurement.latencies.append(now - due)
            else:
                measurement.add_error(problem, now - due)
        measurement.completed += problem is None and job.ramp_s <= now < end

    async with asyncio.TaskGroup() as group:
        for due in load.arrivals(end):
            await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
            group.create_task(send(due))
    return measurement
