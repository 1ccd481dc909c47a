"""The sequence: start everything, warm it up, closed loops in turns, then open loops; what failed is a row too."""

import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

from benchmarks.errors import Unavailable
from benchmarks.results import Results, Row
from benchmarks.signals import undisturbed
from benchmarks.systems.base import Running, System, Workplace, family
from benchmarks.systems.catalog import INT8, REST
from torchserve_models.loadgen import LoadGenerator, Measurement, Summary, median_summary

SHARES = (0.3, 0.5, 0.7, 0.9, 1.5)
"""Of the capacity: what our systems are offered in the open loop."""
PEER_SHARES = (0.5, 0.9)
"""Of a peer's own capacity; then the least of our rates that is above it, to show where it ends."""
MOST_OVERLOAD = 2.0
"""Of a peer's capacity: beyond, it would only be buried, and its queue would outlast the measurement."""
FAILURES = (Unavailable, OSError, RuntimeError, psutil.Error)
"""Of one system, a broken process pool among them (a RuntimeError)."""
_SPINS = 0.02  # cores that an idle system may use; what uses more sleeps while others are measured
_OPEN_SYSTEMS = (REST, INT8)


@dataclass(frozen=True)
class Schedule:
    """How long, how often, how much. `open_seconds` 0 leaves the open loop out."""

    concurrency: tuple[int, ...] = (1, 8, 32)
    seconds: float = 4.0
    rounds: int = 3
    warm_up: float = 2.0
    open_seconds: float = 8.0
    shares: tuple[float, ...] = SHARES
    peer_shares: tuple[float, ...] = PEER_SHARES

    @property
    def highest(self) -> int:
        return max(self.concurrency)


QUICK = Schedule(
    seconds=3.0, rounds=1, warm_up=1.0, open_seconds=5.0, shares=(0.3, 0.7, 1.5), peer_shares=(0.5,)
)


@dataclass
class Session:
    """Systems that run, with their rows."""

    place: Workplace
    schedule: Schedule
    rows: dict[str, Row] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)

    def measure(self, systems: Sequence[System], generator: LoadGenerator) -> None:
        """Fills `rows`. Whatever happens, everything that was started is ended."""
        try:
            for system in systems:
                self._start(system, generator)
            self._warm_up()
            self._closed_loops()
            self._memory()
            if self.schedule.open_seconds:
                self._open_loops()
        finally:
            with undisturbed():
                self._end()

    def _end(self) -> None:
        """One that cannot be ended does not keep the others running."""
        for running in self.running.values():
            with suppress(*FAILURES):
                _wake(running)
        for name in list(self.running):
            self._stop(name)

    def _stop(self, name: str) -> None:
        running = self.running.pop(name)
        try:
            _wake(running)
            running.stop()
        except Exception as error:
            self.place.say(f"{name}: not ended: {error!r}")

    def _ask(self, name: str, load: Callable[[Running], Measurement]) -> Summary | None:
        """None when the system, or what loads it, broke: then it is a row with a problem, and the others go on."""
        try:
            with self._awake(name):
                return load(self.running[name]).summary()
        except FAILURES as error:
            self.rows[name].problem = f"broke down: {error or type(error).__name__}"
            self.place.say(f"{name}: {self.rows[name].problem}")
            self._stop(name)
            return None

    def _start(self, system: System, generator: LoadGenerator) -> None:
        row = self.rows[system.name] = Row(system.name, system.title, system.peer)
        begin = time.monotonic()
        try:
            running = system.start(self.place, generator)
        except FAILURES as error:
            row.problem = str(error) or type(error).__name__
            self.place.say(f"{system.name}: left out: {row.problem}")
            return
        self.running[system.name] = running
        row.facts = running.facts
        row.start_seconds = time.monotonic() - begin
        self.place.say(f"{system.name}: answers, {row.start_seconds:.0f} s after its start")

    def _warm_up(self) -> None:
        """And looks which of them use the processor although nobody asks them anything."""
        for name in list(self.running):
            for concurrency, seconds in ((self.schedule.highest, 1.0), (1, 0.5)):
                if name in self.running:
                    self._ask(name, _warm_up(concurrency, seconds * self.schedule.warm_up))
        before = {name: running.cpu_seconds() for name, running in self.running.items()}
        time.sleep(_LOOK)
        for name, running in self.running.items():
            row = self.rows[name]
            row.idle_cores = (running.cpu_seconds() - before[name]) / _LOOK
            row.sleeps = row.idle_cores > _SPINS and row.peer
            if row.sleeps:
                self.place.say(
                    f"{name}: uses {row.idle_cores:.2f} cores when idle; it sleeps while others are measured"
                )
                _signal(running, signal.SIGSTOP)

    def _closed_loops(self) -> None:
        found: dict[tuple[str, int], list[Summary]] = {}
        for turn in range(self.schedule.rounds):
            for concurrency in self.schedule.concurrency:
                for name, running in list(self.running.items()):
                    if not running.takes(concurrency, self.schedule.highest):
                        continue
                    summary = self._ask(name, _closed(concurrency, self.schedule.seconds))
                    if summary is None:
                        continue
                    found.setdefault((name, concurrency), []).append(summary)
                    self.place.say(f"round {turn + 1}, {concurrency:>2} at once: {name:18} {_line(summary)}")
        for (name, concurrency), rounds in found.items():
            if name not in self.running:
                continue
            self.rows[name].closed[concurrency] = median_summary(rounds)
            self.rows[name].spread[concurrency] = _spread(rounds)

    def _memory(self) -> None:
        for name, running in self.running.items():
            with suppress(*FAILURES):
                self.rows[name].memory = running.memory()

    def _open_loops(self) -> None:
        capacity = {name: self.rows[name].capacity for name in self.running}
        ours = [name for name in _OPEN_SYSTEMS if name in self.running]
        ladder = [share * capacity[ours[0]] for share in self.schedule.shares] if ours else []
        for name in ours:
            for share in self.schedule.shares:
                self._offer(name, share * capacity[name], share)
        for name in [name for name in self.running if self.rows[name].peer]:
            rates = [share * capacity[name] for share in self.schedule.peer_shares]
            beyond = [min(rate, MOST_OVERLOAD * capacity[name]) for rate in ladder if rate > capacity[name]]
            for rate in rates + beyond[:1]:
                self._offer(name, rate, rate / capacity[name] if capacity[name] else 0.0)

    def _offer(self, name: str, rate: float, share: float) -> None:
        if rate <= 0 or name not in self.running:
            return
        summary = self._ask(name, lambda running: running.open(rate, self.schedule.open_seconds))
        if summary is None:
            return
        self.rows[name].open.append((rate, share, summary))
        self.place.say(f"offered {rate:6.1f}/s ({share:4.0%}): {name:18} {_line(summary)}")

    @contextmanager
    def _awake(self, name: str) -> Iterator[None]:
        if not self.rows[name].sleeps:
            yield
            return
        _wake(self.running[name])
        try:
            yield
        finally:
            _signal(self.running[name], signal.SIGSTOP)


_LOOK = 2.0  # seconds


def _wake(running: Running) -> None:
    _signal(running, signal.SIGCONT)


def _signal(running: Running, number: signal.Signals) -> None:
    for process in family(running.processes()):
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def _closed(concurrency: int, seconds: float) -> Callable[[Running], Measurement]:
    return lambda running: running.closed(concurrency, seconds)


def _warm_up(concurrency: int, seconds: float) -> Callable[[Running], Measurement]:
    return lambda running: running.warm_up(concurrency, seconds)


def _spread(rounds: Sequence[Summary]) -> float:
    """How far the rounds lie apart: (most - least) / median of the requests/s."""
    rates = [each.requests_per_second for each in rounds]
    middle = statistics.median(rates)
    return (max(rates) - min(rates)) / middle if middle else 0.0


def _line(summary: Summary) -> str:
    errors = "".join(f", {count} x {kind}" for kind, count in summary.errors.items())
    if summary.tokens_per_second:
        errors = f"  {summary.tokens_per_second:7.1f} new tokens/s{errors}"
    return (
        f"{summary.requests_per_second:7.1f}/s  p50 {summary.p50:7.1f} ms  p99 {summary.p99:7.1f} ms{errors}"
    )


def measured(
    systems: Sequence[System], place: Workplace, schedule: Schedule, generator: LoadGenerator
) -> Results:
    """One run of those systems, side by side."""
    session = Session(place, schedule)
    session.measure(systems, generator)
    return Results(session.rows, schedule.concurrency)
