"""Request bodies at the size limit: many of them to busy models, and JSON with as many objects as possible."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.chaos.abuse import brackets
from tests.chaos.cases import JSON, OCTETS, TEXT, Request
from tests.chaos.resources import ResourceUsage, settled, usage
from tests.chaos.scenarios.base import (
    GATEWAY_LIMIT_MB,
    NGINX_LIMIT_MB,
    Bystander,
    Latencies,
    PeakMemory,
    ScenarioResult,
    answer_all,
    compare,
    plain_request,
)
from tests.chaos.send import http_client, send
from tests.chaos.stack import Stack

LIMIT = 16 * 2**20
SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
BEFORE_S = 6.0
WARM_UPS = 3
SETTLE_S = 60.0
BODY_DEADLINE_S = 120.0
PARSING_ROUTES = (
    "/predictions/resnet-50",
    "/predictions/t5-small",
    "/v2/models/resnet-50/infer",
    "/v2/models/bart-large-cnn/infer",
    "/model",
    "/predict/text_summarize?model=t5",
)


def large_bodies(
    stack: Stack, count: int = 200, size: int = LIMIT - 4096, at_once: int = 64
) -> ScenarioResult:
    """Send `count` bodies at the size limit, half images and half texts, to busy models."""
    requests = [
        Request("image", "", "/predictions/resnet-50", OCTETS, bytes(size)),
        Request("text", "", "/predictions/bart-large-cnn", TEXT, b"word " * (size // 5)),
    ]
    result = ScenarioResult("large-bodies", {"bodies": count, "bytes each": size})
    with _busy(stack, "bart-large-cnn", "t5-small"):
        before = _measure(stack, result, [requests[number % 2] for number in range(count)], at_once)
    _check_memory(stack, result, before)
    return result


def hostile_json(
    stack: Stack,
    size: int = LIMIT - 4096,
    copies: int = 8,
    routes: Sequence[str] = PARSING_ROUTES,
) -> ScenarioResult:
    """Send {"inputs": [[],[],...]} to each route that parses JSON, with `copies` concurrent requests per route."""
    result = ScenarioResult("hostile-json", {"bytes each": size, "times": copies, "routes": len(routes)})
    body = brackets(size)
    pixels = body.replace(b'"inputs"', b'"img"', 1)
    texts = body.replace(b'"inputs"', b'"text"', 1)
    bodies = {"/model": pixels, "/predict/text_summarize?model=t5": texts}
    requests = [
        Request(route, "", route, JSON, bodies.get(route, body)) for route in routes for _ in range(copies)
    ]
    before = _measure(stack, result, requests, copies)
    _check_memory(stack, result, before)
    return result


def _measure(
    stack: Stack, result: ScenarioResult, requests: Sequence[Request], at_once: int
) -> Mapping[str, ResourceUsage]:
    """Send the load and measure its effects; return the resource usage before the load."""
    for _ in range(WARM_UPS):
        answer_all(stack, 60)
    before = usage(stack)
    pids = _pids(stack)
    with Bystander(stack) as bystander, PeakMemory(stack) as peak:
        quiet: Latencies = bystander.measure(BEFORE_S)
        start = time.monotonic()
        answers = _send_all(stack, requests, at_once)
        during = bystander.during(start)
        result.numbers["seconds"] = round(time.monotonic() - start, 1)
    result.numbers["answers"] = dict(answers)
    for role in ("java", "worker"):
        result.numbers[f"{role} MB before, at most"] = (
            f"{before[role].memory / 1e6:.0f}, {peak.megabytes(role):.0f}"
        )
    result.at_most("nginx MB at most", peak.megabytes("nginx"), NGINX_LIMIT_MB, " MB")
    result.at_most("gateway MB at most", peak.megabytes("gateway"), GATEWAY_LIMIT_MB, " MB")
    failed = answer_all(stack, 20)
    result.holds("every model answers afterwards", not failed, "; ".join(failed))
    result.holds("no process was replaced", _pids(stack) == pids)
    compare(result, quiet, during)
    return before


def _check_memory(stack: Stack, result: ScenarioResult, before: Mapping[str, ResourceUsage]) -> None:
    """Check that memory returns to its previous size; Java frees memory when it is idle."""
    _, grown = settled(stack, before, SETTLE_S)
    result.holds("memory is as before", not grown, "; ".join(grown))


def _pids(stack: Stack) -> set[int]:
    roles = ("supervisor", "java", "worker", "gateway")
    return {
        process.pid for role, several in stack.processes().items() if role in roles for process in several
    }


def _send_all(stack: Stack, requests: Sequence[Request], at_once: int) -> Counter[str]:
    def one(number: int) -> str:
        source = SOURCES[number % len(SOURCES)]
        with http_client(stack.edge.inference, BODY_DEADLINE_S, source) as connection:
            return send(connection, requests[number]).label

    with ThreadPoolExecutor(at_once) as pool:
        return Counter(pool.map(one, range(len(requests))))


@contextmanager
def _busy(stack: Stack, *models: str, clients: int = 2) -> Iterator[None]:
    """Run `clients` clients per model, each of which sends its next request after an answer."""
    over = threading.Event()

    def keep_asking(request: Request) -> Callable[[], None]:
        def run() -> None:
            with http_client(stack.edge.inference, BODY_DEADLINE_S, "127.0.0.7") as connection:
                while not over.is_set():
                    if send(connection, request).status != 200:
                        over.wait(0.2)

        return run

    requests = [plain_request(model) for model in models for _ in range(clients)]
    threads = [threading.Thread(target=keep_asking(request), daemon=True) for request in requests]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(BODY_DEADLINE_S + 5)
