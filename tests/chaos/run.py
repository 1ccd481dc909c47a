"""One chaos run: warm-up, scheduled faults and abuse under traffic, a quiet end, and the comparison afterwards."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from threading import Event as Flag
from threading import Thread

from tests.chaos import cases, readiness, resources, windows
from tests.chaos.abuse import AbuseRunner
from tests.chaos.faults import USUAL_VERSIONS, Faults, copy_archive
from tests.chaos.plan import FAULTS, KINDS, Event, schedule
from tests.chaos.probes import Probes, bases_of
from tests.chaos.report import RunResult
from tests.chaos.stack import Stack, VersionWorkers
from tests.chaos.traffic import RecordLog, Traffic, TrafficOptions, Via
from torchserve_models.client import Endpoints

WARM_UP_S = 12.0
SETTLE_S = 40.0
STRUCTURE_S = 30.0

InfoFunction = Callable[[str], None]


@dataclass(frozen=True)
class RunOptions:
    seed: int = 1
    seconds: float = 180.0
    via: Via = "nginx"
    kinds: Sequence[str] = KINDS
    deadline: float = 30.0
    clients: int = 12
    warm_up: float = WARM_UP_S


def run(stack: Stack, options: RunOptions, info: InfoFunction = lambda _: None) -> RunResult:
    """Run the schedule against the stack; return the observations.

    Raises:
        ChaosError: The server does not give usable answers before the first fault.
    """
    good = cases.find_good(stack.direct, stack.models)
    with_front = options.via != "raw"
    edge = stack.edge if with_front else stack.direct
    bad = cases.bad_requests(good, with_front)
    load = TrafficOptions(options.via, good, bad, cases.bad_calls(good), options.deadline, options.clients)
    events = schedule(options.seed, options.seconds, options.kinds, stack.models, with_front)
    if "version" in options.kinds:
        for name, version in product(stack.models, USUAL_VERSIONS):
            copy_archive(stack.store, name, version)
    info(f"{len(good)} good requests with known answers, {len(bad) + len(load.bad_calls)} bad ones")
    _warm_up(edge, load, options)
    before, expected = resources.usage(stack), stack.describe(30)
    log = RecordLog()
    traffic = Traffic(edge, load, options.seed, log)
    abuse, faults = AbuseRunner(edge, good, options.seed, log), Faults(stack)
    started = time.monotonic()
    with Probes(bases_of(stack.direct, edge), stack.models) as probes:
        info(f"readiness routes: {', '.join(probes.urls.values())}")
        traffic.start()
        try:
            _play(events, started, options.seconds, abuse, faults, info)
        finally:
            traffic.stop()
            abuse.stop()
            faults.close()
        seconds = time.monotonic() - started
        samples = probes.samples
    records = log.records
    structure = _structure(stack, expected, faults)
    after, leaks = resources.settled(stack, before, SETTLE_S)
    return RunResult(
        seed=options.seed,
        seconds=seconds,
        via=options.via,
        records=records,
        faults=faults.done,
        readiness=readiness.judge(samples, records, down=windows.outages(faults.done, records)),
        before=before,
        after=after,
        leaks=leaks,
        structure=structure,
        left_out=abuse.left_out,
        errors=abuse.errors,
    )


def _warm_up(edge: Endpoints, load: TrafficOptions, options: RunOptions) -> None:
    """Send the same traffic without faults, including large bodies, so that memory reaches its usual size."""
    traffic = Traffic(edge, load, options.seed + 1000, RecordLog())
    traffic.start()
    time.sleep(options.warm_up)
    traffic.stop()


def _play(
    events: Sequence[Event],
    started: float,
    seconds: float,
    abuse: AbuseRunner,
    faults: Faults,
    info: InfoFunction,
) -> None:
    """Run the events. Faults run in a separate thread, so that a long fault does not delay the abuse."""
    over = Flag()
    planned = [event for event in events if event.kind in FAULTS]

    def one_by_one() -> None:
        for event in planned:
            if over.wait(max(0.0, started + event.at - time.monotonic())):
                return
            done = faults.do(event)
            problem = f": {done.problem}" if done.problem else ""
            info(f"{done.at - started:6.1f} s  {done.name}{problem}")

    thread = Thread(target=one_by_one, daemon=True)
    thread.start()
    for event in (event for event in events if event.kind not in FAULTS):
        time.sleep(max(0.0, started + event.at - time.monotonic()))
        abuse.submit(event)
    time.sleep(max(0.0, started + seconds - time.monotonic()))
    over.set()
    thread.join(120)


def _structure(stack: Stack, expected: Sequence[VersionWorkers], faults: Faults) -> list[str]:
    """Return the differences in models, versions and worker counts, except for intended version changes."""
    expected = [
        replace(version, version=faults.versions[version.name])
        if version.default and version.name in faults.versions
        else version
        for version in expected
    ]
    if stack.wait_described(expected, STRUCTURE_S):
        return []
    try:
        actual = stack.describe(10)
    except Exception as error:  # a server that has ended is a failed check, not an error of this program
        return [f"models cannot be described after the run: {error}"]
    return [f"{version} is missing" for version in expected if version not in actual] + [
        f"{version} is new" for version in actual if version not in expected
    ]
