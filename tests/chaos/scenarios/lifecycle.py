"""Shutdown under load, and recovery after each kind of kill and stop."""

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.cases import find_good, request_of
from tests.chaos.faults import Faults
from tests.chaos.outcomes import Category, Record, classify
from tests.chaos.plan import Event
from tests.chaos.probes import Probes, ProbeSample, bases_of
from tests.chaos.scenarios.base import InfoFunction, ScenarioResult, answer_all
from tests.chaos.send import http_client, now, send
from tests.chaos.stack import STOP_TIMEOUT_S, Stack, VersionWorkers
from torchserve_models.client import TorchServeError

DRAIN_DELAY_S = 1.0
"""Maximum time after readiness is false in which requests are accepted: the default delay (0) plus a few probes."""
RESTORE_S = 30.0
NOTICE_S = 2.0
GIVE_UP_S = 75.0
STOP_S = 120.0
CASES = tuple(
    (kind, action) for kind in ("worker", "java", "gateway", "nginx") for action in ("kill", "stop")
)


def sigterm(
    stack: Stack, clients: int = 8, before: float = 6.0, drain_delay: float = DRAIN_DELAY_S
) -> ScenarioResult:
    """Stop the server while clients send requests to TorchServe, each on a new connection."""
    good = find_good(stack.direct, stack.models)
    result, records, over = ScenarioResult("sigterm"), list[Record](), threading.Event()
    assert stack.supervisor is not None

    def run(number: int) -> None:
        turn = number
        while not over.is_set():
            turn, case = turn + 1, good[turn % len(good)]
            started = now()
            with http_client(stack.direct.inference, 60.0) as connection:
                reply = send(connection, request_of(case, "native"))
            category = classify("good", reply, case.answer.matches(reply.value))
            records.append(
                Record(started, now(), "good", case.name, case.model, "rest", category, reply.label)
            )
            if category is not Category.RIGHT:
                over.wait(0.05)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(clients)]
    bases = [stack.direct.health, *bases_of(stack.direct, stack.edge)]
    with Probes(bases, (), interval=0.05) as probes:
        for thread in threads:
            thread.start()
        time.sleep(before)
        at = time.monotonic()
        stack.supervisor.send_signal(signal.SIGTERM)
        try:
            stack.supervisor.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            result.numbers["problem"] = f"still running after {STOP_TIMEOUT_S:g} s"
        ended = time.monotonic() - at
        over.set()
        for thread in threads:
            thread.join(70)
        samples = probes.samples[""]
    after = [record for record in records if record.ended >= at]
    result.numbers["answers after SIGTERM"] = dict(Counter(f"{r.category}: {r.label}" for r in after))
    result.numbers["seconds to the end"] = round(ended, 2)
    result.numbers["asked at"] = probes.urls[""]
    unready = _first_false(samples, at)
    accepted = [record.started for record in after if record.category in (Category.RIGHT, Category.LOST)]
    last = max(accepted, default=at)
    result.numbers["last accepted after SIGTERM s"] = round(last - at, 2)
    lost = sum(record.category in (Category.LOST, Category.WRONG) for record in after)
    result.at_most("accepted requests lost", lost, 0)
    result.at_most("readiness false after", round(unready - at, 2), 1.0, " s")
    result.at_most("accepted after readiness was false", round(last - unready, 2), drain_delay, " s")
    return result


def restore_all(
    folder: Path,
    store: Path,
    info: InfoFunction,
    _seconds: float | None = None,
    cases: Sequence[tuple[str, str]] = CASES,
) -> ScenarioResult:
    """Test each kind of kill and stop in turn; start a new stack after one that has not recovered."""
    result, left, number = ScenarioResult("restore"), list(cases), 0
    while left:
        number += 1
        with Stack(folder / str(number), store) as stack:
            while left:
                kind, action = left.pop(0)
                if not restore(stack, kind, action, result, info):
                    break
    return result


def restore(
    stack: Stack,
    kind: str,
    action: str,
    result: ScenarioResult,
    info: InfoFunction = print,
    model: str = "resnet-50",
) -> bool:
    """Kill or stop a part, and measure the seconds until all models, versions and workers are back.

    Returns:
        Whether the stack has recovered.
    """
    expected, roles = stack.describe(30), _counts(stack)
    faults = Faults(stack)
    # Kill all nginx processes at once, because nginx continues to serve while one of them lives.
    done = "kill-all" if (kind, action) == ("nginx", "kill") else action
    with Probes(bases_of(stack.direct, stack.edge), (), interval=0.05) as probes:
        time.sleep(1.0)
        fault = faults.do(Event(0.0, kind, done, model, STOP_S))
        served = back = None
        problem = fault.problem or "not restored"
        while time.monotonic() < fault.at + GIVE_UP_S and back is None and not fault.problem:
            failed = answer_all(stack, 4.0)
            moment = round(time.monotonic() - fault.at, 2)
            served = served or (None if failed else moment)
            problem = "; ".join(failed) or _difference(stack, expected, roles)
            back = moment if not problem else None
            time.sleep(0.2)
        unready = _first_false(probes.samples[""], fault.at)
    faults.close()
    name = f"{action} {kind}"
    info(f"{name}: {'restored after ' + str(back) + ' s' if back is not None else problem}")
    result.numbers[f"{name}: readiness false after s"] = round(unready - fault.at, 2)
    result.numbers[f"{name}: all models answered after s"] = served
    if back is None:
        result.holds(f"{name}: restored", False, problem[:200])
    else:
        result.at_most(f"{name}: restored", back, RESTORE_S, " s")
    if (kind, action) == ("worker", "kill"):
        result.at_most(
            "readiness false after kill -9 of a worker", round(unready - fault.at, 2), NOTICE_S, " s"
        )
    return back is not None


def _counts(stack: Stack) -> dict[str, int]:
    return {role: len(processes) for role, processes in stack.processes().items()}


def _difference(stack: Stack, expected: Sequence[VersionWorkers], roles: dict[str, int]) -> str:
    try:
        current = stack.describe()
    except TorchServeError as error:
        return f"management: {error}"
    if current != expected:
        return f"models are {current} instead of {expected}"
    counts = _counts(stack)
    return "" if counts == roles else f"processes are {counts} instead of {roles}"


def _first_false(samples: Sequence[ProbeSample], at: float) -> float:
    """Return the time of the first not-ready answer after `at`; infinity if all answers were ready."""
    return next((s.at + s.milliseconds / 1000 for s in samples if s.at >= at and not s.ready), float("inf"))
