"""What the scenarios share: their result, a well-behaved client beside the load, and the peak of memory."""

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

Say = Callable[[str], None]

BYSTANDER = "127.0.0.9"
"""The well-behaved client's address, which no load comes from."""
BYSTANDER_PAUSE_S = 0.05
MOST_SLOWER = 2.0
NOISE_MS = 20.0
"""Latencies that differ by less than this are the same on a machine that does something else, too."""
NGINX_LIMIT_MB = 256
"""Of deploy/compose.yaml."""
GATEWAY_LIMIT_MB = 512


@dataclass(frozen=True)
class Check:
    """A measured value against its bar, both as text."""

    what: str
    value: str
    bar: str
    passed: bool


@dataclass
class Result:
    name: str
    numbers: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def at_most(self, what: str, value: float, bar: float, unit: str = "") -> None:
        self.numbers[what] = value
        # NaN, where nothing was measured, is no pass.
        self.checks.append(Check(what, f"{value:.4g}{unit}", f"<= {bar:.4g}{unit}", value <= bar))

    def at_least(self, what: str, value: float, bar: float, unit: str = "") -> None:
        self.numbers[what] = value
        self.checks.append(Check(what, f"{value:.4g}{unit}", f">= {bar:.4g}{unit}", value >= bar))

    def holds(self, what: str, passed: bool, value: object = "") -> None:
        self.numbers[what] = value or passed
        self.checks.append(Check(what, str(value or ("yes" if passed else "no")), "yes", passed))

    def as_json(self) -> dict[str, Any]:
        checks = [vars(check) for check in self.checks]
        return {"name": self.name, "passed": self.passed, "numbers": self.numbers, "checks": checks}


def table(result: Result) -> str:
    lines = [f"{result.name}: {'PASSED' if result.passed else 'FAILED'}"]
    checked = {check.what for check in result.checks}
    for check in result.checks:
        mark = "ok  " if check.passed else "FAIL"
        lines.append(f"  {mark} {check.what}: {check.value} ({check.bar})")
    lines += [f"       {name}: {value}" for name, value in result.numbers.items() if name not in checked]
    return "\n".join(lines)


@dataclass(frozen=True)
class Latencies:
    """Of the well-behaved client in one phase, in milliseconds; a request that failed counts apart."""

    milliseconds: tuple[float, ...]
    failures: tuple[str, ...]

    def at(self, share: float) -> float:
        return percentile(self.milliseconds, share)


class Bystander:
    """A client that sends one good request after another, each on a new connection, in a `with`."""

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
        """Of the requests that were sent between those times on the monotonic clock."""
        chosen = [each for each in self._times if each[0] >= start and (end is None or each[0] < end)]
        good = tuple(1000 * took for _, took, problem in chosen if not problem)
        return Latencies(good, tuple(problem for _, _, problem in chosen if problem))

    def measure(self, seconds: float) -> Latencies:
        """Lets that much time pass."""
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


def compare(result: Result, before: Latencies, during: Latencies, prefix: str = "") -> None:
    """The bar of the well-behaved client: every request answered, at most MOST_SLOWER times as slowly."""
    usual, now = before.at(0.5), during.at(0.5)
    ratio = now / usual
    result.numbers[f"{prefix}usual latency p50/p90 ms"] = f"{usual:.1f} / {before.at(0.9):.1f}"
    result.numbers[f"{prefix}latency meanwhile p50/p90/max ms"] = (
        f"{now:.1f} / {during.at(0.9):.1f} / {during.at(1.0):.1f} ({len(during.milliseconds)} requests)"
    )
    slow = ratio <= MOST_SLOWER or now - usual <= NOISE_MS
    result.numbers[f"{prefix}slower by"] = ratio
    result.checks.append(Check(f"{prefix}slower by", f"{ratio:.2f} x", f"<= {MOST_SLOWER:g} x", slow))
    failures = f"{len(during.failures)} {sorted(set(during.failures))[:3]}" if during.failures else "0"
    what = f"{prefix}failures of the well-behaved client"
    result.numbers[what] = failures
    result.checks.append(Check(what, failures, "0", not during.failures))


class Peak:
    """The most memory that each role has had, in bytes, while the `with` lasted."""

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
            for role, each in usages.items():
                self.memory[role] = max(self.memory.get(role, 0), each.memory)


def answer_all(stack: Stack, deadline: float = 5.0, known_routes: bool = True) -> list[str]:
    """Asks every model once through nginx, and the gateway's own route; what failed."""
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
    """A small good request of a starter."""
    from training.images import draw_image
    from training.reports import report

    if model in ("t5-small", "bart-large-cnn"):
        headers, body = {"content-type": "text/plain"}, report(3, 0)[0].encode()
    else:
        headers, body = {"content-type": "application/octet-stream"}, draw_image(3, 0)[1]
    return Request(model, model, f"/predictions/{model}", headers, body)


def problem_of(stack: Stack, request: Request, deadline: float) -> str:
    """Empty when it was answered with 200."""
    with http_client(stack.edge.inference, deadline, BYSTANDER) as connection:
        reply: Reply = send(connection, request)
    return "" if reply.status == 200 else reply.label
