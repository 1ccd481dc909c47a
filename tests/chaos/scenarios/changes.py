"""Version changes, scale-downs and registrations under load: check all answers and the latency of other models."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.chaos.cases import find_good
from tests.chaos.faults import MANAGEMENT_TIMEOUT_S, replace_version
from tests.chaos.outcomes import Category, Record
from tests.chaos.scenarios.base import MOST_SLOWER, NOISE_MS, LimitCheck, ScenarioResult
from tests.chaos.stack import Stack
from tests.chaos.traffic import RecordLog, Traffic, TrafficOptions, Via
from torchserve_models import client
from torchserve_models.client import Client
from torchserve_models.loadgen import percentile

TIMES = 20
CLIENTS = 8
QUIET_S = 15.0
COPY = "chaos-copy"
DEADLINE_S = 60.0

Change = Callable[[Client, int], None]


def version_changes(stack: Stack, times: int = TIMES, model: str = "t5-small") -> ScenarioResult:
    """Replace the model's default version repeatedly, as `scripts/manage replace` does."""

    def change(connection: Client, _number: int) -> None:
        replace_version(connection, stack.store, model)

    return _under_load(stack, "version-changes", change, times, model)


def scale_downs(stack: Stack, times: int = TIMES, model: str = "t5-small") -> ScenarioResult:
    """Scale the model repeatedly to two workers and back to one."""

    def change(connection: Client, _number: int) -> None:
        connection.scale(model, 2)
        connection.scale(model, 1)

    return _under_load(stack, "scale-downs", change, times, model)


def registrations(stack: Stack, times: int = TIMES, model: str = "resnet-50") -> ScenarioResult:
    """Register the model's archive repeatedly under another name, and unregister it."""

    def change(connection: Client, _number: int) -> None:
        connection.register(f"{model}.mar", model_name=COPY, initial_workers=1)
        connection.unregister(COPY)

    return _under_load(stack, "registrations", change, times, COPY)


def _under_load(stack: Stack, name: str, change: Change, times: int, changed: str) -> ScenarioResult:
    """Make `times` changes while clients send requests, half of them to TorchServe and half through nginx."""
    good = find_good(stack.direct, stack.models)
    expected = stack.describe(30)
    result, failed = ScenarioResult(name, {"changes": times}), list[str]()
    loads: list[tuple[Via, RecordLog, Traffic]] = []
    ways: tuple[tuple[Via, client.Endpoints], ...] = (("raw", stack.direct), ("nginx", stack.edge))
    for via, endpoints in ways:
        log = RecordLog()
        load = TrafficOptions(via, good, (), (), DEADLINE_S, CLIENTS // 2, good_share=1.0)
        loads.append((via, log, Traffic(endpoints, load, 7, log)))
    for _, _, traffic in loads:
        traffic.start()
    try:
        time.sleep(QUIET_S)
        start = time.monotonic()
        with Client(endpoints=stack.direct, timeout=MANAGEMENT_TIMEOUT_S) as connection:
            took = [_seconds(change, connection, number, failed) for number in range(times)]
        end = time.monotonic()
    finally:
        for _, _, traffic in loads:
            traffic.stop()
    result.numbers["seconds of a change p50/max"] = f"{percentile(took, 0.5):.1f} / {max(took):.1f}"
    result.holds("every change was made", not failed, "; ".join(failed[:3]))
    records = [record for _, log, _ in loads for record in log.records]
    _answers(result, loads)
    _others(result, records, start, end, changed)
    if name == "version-changes":
        expected = [version for version in expected if version.name != changed]
        left = [version for version in stack.describe(30) if version.name != changed]
        result.holds("models, versions and workers are as before", left == expected)
    else:
        result.holds("models, versions and workers are as before", stack.wait_described(expected, 30))
    return result


def _seconds(change: Change, connection: Client, number: int, failed: list[str]) -> float:
    started = time.monotonic()
    try:
        change(connection, number)
    except client.TorchServeError as error:
        failed.append(f"{type(error).__name__}: {error}"[:150])
    return time.monotonic() - started


def _answers(result: ScenarioResult, loads: Sequence[tuple[Via, RecordLog, Traffic]]) -> None:
    for via, log, _ in loads:
        records = log.records
        counts = Counter(record.category.value for record in records)
        labels = Counter(record.label for record in records if record.category is not Category.RIGHT)
        result.numbers[f"requests {via}"] = {**counts, "labels": dict(labels)}
        bad = counts[Category.LOST] + counts[Category.WRONG]
        result.at_most(f"lost or wrong {via}", bad, 0)


def _others(
    result: ScenarioResult, records: Sequence[Record], start: float, end: float, changed: str
) -> None:
    """Check the p99 latency of each other model during the changes against the time before."""
    for model in sorted({record.model for record in records} - {changed}):
        right = [r for r in records if r.model == model and r.category is Category.RIGHT]
        quiet = [1000 * (r.ended - r.started) for r in right if r.ended < start]
        during = [1000 * (r.ended - r.started) for r in right if start <= r.started <= end]
        usual, now = percentile(quiet, 0.99), percentile(during, 0.99)
        fine = now <= MOST_SLOWER * usual or now - usual <= NOISE_MS
        what = f"p99 of {model}"
        value = f"{now:.0f} ms, {now / usual:.2f} x of {usual:.0f} ms"
        result.numbers[what] = value
        result.checks.append(LimitCheck(what, value, f"<= {MOST_SLOWER:g} x", fine))
