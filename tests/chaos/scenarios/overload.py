"""More load than the server's capacity: clients that give up, and batches that take long."""

import asyncio
import itertools
import json
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass

from tests.chaos import raw_socket
from tests.chaos.cases import JSON, Request, find_good, request_of
from tests.chaos.probes import Probes, bases_of
from tests.chaos.scenarios.base import MOST_SLOWER, ScenarioResult
from tests.chaos.send import http_client, send
from tests.chaos.stack import Stack
from torchserve_models.loadgen import percentile

MIN_GOODPUT = 0.8
MAX_RATE = 300.0
"""Maximum requests per second that this program sends."""
SOURCES = tuple(f"127.0.0.{number}" for number in range(20, 60))
"""Source addresses of the clients; nginx limits each address separately."""
PEAK_CONNECTIONS = 8
READY_P99_MS = 50.0


@dataclass(frozen=True)
class RequestAttempt:
    """Result of one request; `status` is None if the client gave up or the connection broke."""

    started: float
    took: float
    status: int | None


def impatient(
    stack: Stack,
    seconds: float = 60.0,
    give_up: float = 5.0,
    factor: float = 4.0,
    model: str = "bart-large-cnn",
    measure: float = 20.0,
) -> ScenarioResult:
    """Send requests at `factor` times the capacity, from clients that give up after `give_up` seconds.

    The requests are long, so the wait in a full queue would be much longer than that.
    """
    request = _summary(model, texts=1, num_beams=8, max_new_tokens=200, min_new_tokens=190)
    result = ScenarioResult("impatient")
    usual = statistics.median(_alone(stack, request) for _ in range(9))
    asyncio.run(_closed(stack, request, 3.0))
    peak = _rate(asyncio.run(_closed(stack, request, measure)), measure)
    rate = min(MAX_RATE, factor * peak)
    result.numbers |= {"model": model, "peak a second": round(peak, 2), "sent a second": round(rate, 2)}
    attempts = asyncio.run(_open(stack, request, rate, seconds, give_up))
    time.sleep(1.0)
    after = _alone(stack, request)
    useful = [attempt for attempt in attempts if attempt.status == 200 and attempt.took <= give_up]
    # Only requests sent after the queue has filled, so that the empty queue at the start has no effect.
    late = [attempt for attempt in useful if attempt.started > attempts[0].started + give_up]
    goodput = len(late) / max(1e-9, seconds - give_up)
    result.numbers["answers"] = dict(Counter(str(attempt.status) for attempt in attempts))
    result.numbers["latency of useful answers p50 s"] = round(percentile([a.took for a in useful], 0.5), 2)
    result.numbers["usual s"] = round(usual, 3)
    result.at_least("goodput of the peak", goodput / peak, MIN_GOODPUT)
    # The limit allows for the duration of one batch.
    result.at_most("idle request 1 s after the end", after, max(MOST_SLOWER * usual, usual + 0.1), " s")
    return result


def long_batches(
    stack: Stack, seconds: float = 60.0, clients: int = 5, model: str = "bart-large-cnn", others: int = 2
) -> ScenarioResult:
    """Keep a worker busy with long batches, and check that readiness stays true and probes are answered fast.

    `others` is the number of clients for each other model.
    """
    request = _summary(model, texts=4, num_beams=8, max_new_tokens=250, min_new_tokens=240)
    result = ScenarioResult("long-batches", {"clients": clients, "clients of each other model": others})
    answers, beside = list[RequestAttempt](), list[RequestAttempt]()
    end = time.monotonic() + seconds

    def run(request: Request, source: str, attempts: list[RequestAttempt]) -> None:
        with http_client(stack.edge.inference, 900.0, source) as connection:
            while time.monotonic() < end:
                started = time.monotonic()
                status = send(connection, request).status
                attempts.append(RequestAttempt(started, time.monotonic() - started, status))

    threads = [
        threading.Thread(target=run, args=(request, "127.0.0.2", answers), daemon=True)
        for _ in range(clients)
    ]
    threads += [
        threading.Thread(target=run, args=(request_of(good, "native"), "127.0.0.3", beside), daemon=True)
        for other in stack.models
        if other != model and others
        for good in find_good(stack.direct, [other])[:others]
    ]
    with Probes(bases_of(stack.direct, stack.edge), stack.models) as probes:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 900)
        samples = probes.samples
    took = [attempt.took for attempt in answers]
    result.numbers["answers"] = dict(Counter(str(attempt.status) for attempt in answers))
    result.numbers["latency p50/max s"] = f"{percentile(took, 0.5):.1f} / {max(took):.1f}"
    result.numbers["answers of the other models"] = dict(Counter(str(attempt.status) for attempt in beside))
    result.numbers["asked at"] = probes.urls[""]
    result.holds("every request was answered", all(attempt.status == 200 for attempt in answers + beside))
    times = [sample.milliseconds for sample in samples[""]]
    result.at_most("readiness p99", percentile(times, 0.99), READY_P99_MS, " ms")
    for name, several in samples.items():
        false = [sample for sample in several if not sample.ready]
        share = len(false) * seconds / max(1, len(several))
        result.at_most(f"readiness of {name or 'server'} false", round(share, 1), 0.0, " s")
    return result


def _summary(model: str, texts: int, **parameters: int) -> Request:
    from training.reports import draw_example

    inputs = [draw_example(51, number)[0] for number in range(texts)]
    value = {"inputs": inputs if texts > 1 else inputs[0], "parameters": parameters}
    return Request("summary", model, f"/predictions/{model}", JSON, json.dumps(value).encode())


def _alone(stack: Stack, request: Request) -> float:
    """Return the seconds that one request takes."""
    with http_client(stack.edge.inference, 60.0, "127.0.0.9") as connection:
        started = time.monotonic()
        send(connection, request)
        return time.monotonic() - started


def _rate(attempts: list[RequestAttempt], seconds: float) -> float:
    return sum(attempt.status == 200 for attempt in attempts) / seconds


async def _closed(stack: Stack, request: Request, seconds: float) -> list[RequestAttempt]:
    end, attempts = time.monotonic() + seconds, list[RequestAttempt]()

    async def client(number: int) -> None:
        while time.monotonic() < end:
            attempts.append(await _post(stack, request, 60.0, SOURCES[number % len(SOURCES)]))

    await asyncio.gather(*(client(number) for number in range(PEAK_CONNECTIONS)))
    return attempts


async def _open(
    stack: Stack, request: Request, rate: float, seconds: float, give_up: float
) -> list[RequestAttempt]:
    start, sources, tasks = time.monotonic(), itertools.cycle(SOURCES), list["asyncio.Task[RequestAttempt]"]()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(_post(stack, request, give_up, next(sources))))
    return list(await asyncio.gather(*tasks))


async def _post(stack: Stack, request: Request, give_up: float, source: str) -> RequestAttempt:
    """Send a request on a new connection, which is reset when the client gives up."""
    host, port = raw_socket.address_of(stack.edge.inference)
    data = raw_socket.head(request.path, len(request.body), {**request.headers, "Connection": "close"})
    started, status, writer = time.monotonic(), None, None
    try:
        async with asyncio.timeout(give_up):
            reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
            writer.write(data + request.body)
            answer = await reader.read()
            words = answer[:64].split()
            status = int(words[1]) if len(words) > 1 and words[1].isdigit() else None
    except (OSError, TimeoutError):
        pass
    finally:
        if writer is not None:
            writer.transport.abort()
    return RequestAttempt(started, time.monotonic() - started, status)
