"""Shared parts of the scenarios: results, a well-behaved client beside the load, and the peak of memory."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import psutil

from tests.chaos.cases import Request, find_good, request_of
from tests.chaos.outcomes import Category, Reply, classify
from tests.chaos.resources import MB, usage
from tests.chaos.send import http_client, send
from tests.chaos.stack import Stack
from torchserve_models.loadgen import percentile

InfoFunction = Callable[[str], None]

BYSTANDER = "127.0.0.9"
"""Source address of the well-behaved client; no other load uses it."""
BYSTANDER_PAUSE_S = 0.05
MOST_SLOWER = 2.0
NOISE_MS = 20.0
"""Difference of latencies that is considered noise on a machine with other load."""
NGINX_LIMIT_MB = 256
"""Memory limit of nginx in deploy/compose.yaml."""
GATEWAY_LIMIT_MB = 512


@dataclass(frozen=True)
class LimitCheck:
    """Measured value and its limit, both as text."""

    what: str
    value: str
    bar: str
    is_ok: bool


@dataclass
class ScenarioResult:
    name: str
    numbers: dict[str, Any] = field(default_factory=dict)
    checks: list[LimitCheck] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        return all(check.is_ok for check in self.checks)

    def at_most(self, what: str, value: float, bar: float, unit: str = "") -> None:
        self.numbers[what] = value
        # Without measurements, the value is NaN and the check fails.
        self.checks.append(LimitCheck(what, f"{value:.4g}{unit}", f"<= {bar:.4g}{unit}", value <= bar))

    def at_least(self, what: str, value: float, bar: float, unit: str = "") -> None:
        self.numbers[what] = value
        self.checks.append(LimitCheck(what, f"{value:.4g}{unit}", f">= {bar:.4g}{unit}", value >= bar))

    def holds(self, what: str, is_ok: bool, value: object = "") -> None:
        self.numbers[what] = value or is_ok
        self.checks.append(LimitCheck(what, str(value or ("yes" if is_ok else "no")), "yes", is_ok))

    def as_json(self) -> dict[str, Any]:
        checks = [vars(check) for check in self.checks]
        return {"name": self.name, "passed": self.is_ok, "numbers": self.numbers, "checks": checks}


def table(result: ScenarioResult) -> str:
    lines = [f"{result.name}: {'PASSED' if result.is_ok else 'FAILED'}"]
    checked = {check.what for check in result.checks}
    for check in result.checks:
        mark = "ok  " if check.is_ok else "FAIL"
        lines.append(f"  {mark} {check.what}: {check.value} ({check.bar})")
    lines += [f"       {name}: {value}" for name, value in result.numbers.items() if name not in checked]
    return "\n".join(lines)


@dataclass(frozen=True)
class Latencies:
    """Latencies of the well-behaved client in one phase, in milliseconds, and its failed requests."""

    milliseconds: tuple[float, ...]
    failures: tuple[str, ...]

    def at(self, share: float) -> float:
        return percentile(self.milliseconds, share)


class Bystander:
    """Context manager that runs a well-behaved client: successive good requests, each on a new connection."""

    def __init__(self, stack: Stack, model: str = "resnet-50", deadline: float = 20.0) -> None:
        case = find_good(stack.direct, [model])[0]
        self._case, self._request = case, request_of(case, "native")
        self._url, self._deadline = stack.edge.inference, deadline
        self._times: list[tuple[float, float, str]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(self._deadline + 5)

    def during(self, start: float, end: float | None = None) -> Latencies:
        """Return the latencies of requests sent between two times (`time.monotonic()` seconds)."""
        chosen = [entry for entry in self._times if entry[0] >= start and (end is None or entry[0] < end)]
        good = tuple(1000 * took for _, took, problem in chosen if not problem)
        return Latencies(good, tuple(problem for _, _, problem in chosen if problem))

    def measure(self, seconds: float) -> Latencies:
        """Wait `seconds`, and return the latencies of requests sent meanwhile."""
        start = time.monotonic()
        time.sleep(seconds)
        return self.during(start, time.monotonic())

    def _run(self) -> None:
        while not self._over.is_set():
            started = time.monotonic()
            with http_client(self._url, self._deadline, BYSTANDER) as connection:
                reply = send(connection, self._request)
            category = classify("good", reply, self._case.answer.matches(reply.value))
            problem = "" if category is Category.RIGHT else f"{category}: {reply.label}"
            self._times.append((started, time.monotonic() - started, problem))
            self._over.wait(BYSTANDER_PAUSE_S)


def compare(result: ScenarioResult, before: Latencies, during: Latencies, prefix: str = "") -> None:
    """Check the well-behaved client: all requests answered, and p50 latency at most MOST_SLOWER times the usual."""
    usual, now = before.at(0.5), during.at(0.5)
    ratio = now / usual
    result.numbers[f"{prefix}usual latency p50/p90 ms"] = f"{usual:.1f} / {before.at(0.9):.1f}"
    result.numbers[f"{prefix}latency meanwhile p50/p90/max ms"] = (
        f"{now:.1f} / {during.at(0.9):.1f} / {during.at(1.0):.1f} ({len(during.milliseconds)} requests)"
    )
    slow = ratio <= MOST_SLOWER or now - usual <= NOISE_MS
    result.numbers[f"{prefix}slower by"] = ratio
    result.checks.append(LimitCheck(f"{prefix}slower by", f"{ratio:.2f} x", f"<= {MOST_SLOWER:g} x", slow))
    failures = f"{len(during.failures)} {sorted(set(during.failures))[:3]}" if during.failures else "0"
    what = f"{prefix}failures of the well-behaved client"
    result.numbers[what] = failures
    result.checks.append(LimitCheck(what, failures, "0", not during.failures))


class PeakMemory:
    """Context manager that records the peak memory of each role, in bytes."""

    def __init__(self, stack: Stack, every: float = 0.3) -> None:
        self._stack, self._every = stack, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.memory: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(10)

    def megabytes(self, role: str) -> float:
        return round(self.memory.get(role, 0) / MB, 1)

    def _run(self) -> None:
        while not self._over.wait(self._every):
            try:
                usages = usage(self._stack)
            except psutil.Error:
                continue
            for role, process_usage in usages.items():
                self.memory[role] = max(self.memory.get(role, 0), process_usage.memory)


def answer_all(stack: Stack, deadline: float = 5.0, known_routes: bool = True) -> list[str]:
    """Send each model one request through nginx, and one to a gateway route; return the failures."""
    failed = []
    for model in stack.models:
        if problem := problem_of(stack, plain_request(model), deadline):
            failed.append(f"{model}: {problem}")
    if known_routes and stack.with_front:
        request = Request("route", "", "/predict/text_summarize?model=t5", {"content-type": "application/json"},
                          b'{"text": "A fire in Linton on Saturday was caused by lightning."}')  # fmt: skip
        if problem := problem_of(stack, request, deadline):
            failed.append(f"gateway: {problem}")
    return failed


def plain_request(model: str) -> Request:
    """Return a small good request for a starter model."""
    from training.images import draw_image
    from training.reports import draw_example

    if model in ("t5-small", "bart-large-cnn"):
        headers, body = {"content-type": "text/plain"}, draw_example(3, 0)[0].encode()
    else:
        headers, body = {"content-type": "application/octet-stream"}, draw_image(3, 0)[1]
    return Request(model, model, f"/predictions/{model}", headers, body)


def problem_of(stack: Stack, request: Request, deadline: float) -> str:
    """Send the request; return its failure, or an empty string for status 200."""
    with http_client(stack.edge.inference, deadline, BYSTANDER) as connection:
        reply: Reply = send(connection, request)
    return "" if reply.status == 200 else reply.label
