"""The sequence of a run: start all systems, warm up, closed loops in turns, then open loops.

The row of a failed system shows the reason, and the run continues with the other systems.
"""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import psutil

from benchmarks.errors import SystemUnavailable
from benchmarks.report.results import Results, Row
from benchmarks.systems import processes
from benchmarks.systems.base import Load, RunContext, System
from torchserve_models.loadgen import LoadStatistics, median_summary, relative_spread
from torchserve_models.signals import ignore_termination

FAILURES = (SystemUnavailable, OSError, RuntimeError, psutil.Error)
"""Failures of one system, including a broken process pool (a RuntimeError)."""
IDLE_CHECK_S = 2.0
MAX_IDLE_CORES = 0.02
"""Peers that use more CPU cores than this while idle are paused while other systems are measured."""


@dataclass(frozen=True)
class Schedule:
    """Lengths and loads of a run.

    Attributes:
        concurrency: Numbers of clients of the closed loops.
        warm_up: Seconds of load before the measurements.
        open_seconds: Length of each open loop; 0 for none.
        shares: The rates offered to this repository, as shares of its capacity.
        peer_shares: The rates offered to a peer, as shares of its capacity.
        max_answer_seconds: A closed loop is skipped if one answer per client would take longer.
    """

    concurrency: tuple[int, ...] = (1, 8, 32)
    seconds: float = 3.0
    rounds: int = 3
    warm_up: float = 2.0
    open_seconds: float = 5.0
    shares: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9, 1.5)
    peer_shares: tuple[float, ...] = (0.5, 0.9, 1.5)
    max_answer_seconds: float = 60.0


@dataclass(eq=False)
class _ActiveRow:
    """A row that is being measured."""

    row: Row
    system: System
    load: Load


class Session:
    """A side-by-side measurement. The results have the rows in the order of the systems."""

    def __init__(self, context: RunContext, schedule: Schedule) -> None:
        self._context, self._schedule = context, schedule
        self._started: list[System] = []
        self._active: list[_ActiveRow] = []

    def measure(self, systems: Sequence[System]) -> Results:
        """Measure the rows of all systems. All started systems are stopped, even after an error."""
        try:
            for system in systems:
                self._start(system)
            self._warm_up()
            self._run_closed_loops()
            for active in self._active:
                active.row.memory = processes.sum_memory_mb(active.system.list_processes())
            if self._schedule.open_seconds:
                self._run_open_loops()
        finally:
            with ignore_termination():
                for system in self._started:  # first all, because paused processes do not end
                    self._send_signal(system, signal.SIGCONT)
                for system in self._started:
                    self._stop(system)
        rows = {row.name: row for system in systems for row in system.rows}
        return Results(rows, self._schedule.concurrency)

    def _start(self, system: System) -> None:
        begin = time.monotonic()
        try:
            system.start(self._context)
        except FAILURES as error:
            for row in system.rows:
                self._leave_out(row, error)
            return
        self._started.append(system)
        for row in system.rows:
            try:
                active = _ActiveRow(row, system, system.connect(row, self._context))
            except FAILURES as error:
                self._leave_out(row, error)
                continue
            row.facts = {**system.facts, **active.load.facts}
            row.start_seconds = time.monotonic() - begin
            self._active.append(active)
            self._context.report(f"{row.name}: ready after {row.start_seconds:.0f} s")

    def _leave_out(self, row: Row, error: Exception, prefix: str = "") -> None:
        row.problem = f"{prefix}{str(error) or type(error).__name__}"
        row.closed.clear()
        self._context.report(f"{row.name}: skipped: {row.problem}")

    def _stop(self, system: System) -> None:
        try:
            system.stop()
        except Exception as error:
            self._context.report(f"{system.rows[0].name}: not stopped: {error!r}")

    def _send_signal(self, system: System, number: signal.Signals) -> None:
        with suppress(*FAILURES):
            processes.send_signal(system.list_processes(), number)

    def _run_load(self, active: _ActiveRow, kind: str, *load: float) -> LoadStatistics | None:
        """Run a load while the row's system is not paused. A failure becomes the row's problem."""
        if active.row.is_paused:
            self._send_signal(active.system, signal.SIGCONT)
        try:
            measurement = getattr(active.load, kind)(*load)
        except FAILURES as error:
            self._leave_out(active.row, error, "failed: ")
            self._active.remove(active)
            return None
        finally:
            if active.row.is_paused:
                self._send_signal(active.system, signal.SIGSTOP)
        return measurement.summary() if measurement else None

    def _warm_up(self) -> None:
        """Warm up all systems, then pause the peers that use the CPU while idle."""
        seconds = self._schedule.warm_up
        for active in list(self._active):
            self._run_load(active, "warm_up", max(self._schedule.concurrency), seconds)
        used = [processes.sum_cpu_seconds(active.system.list_processes()) for active in self._active]
        time.sleep(IDLE_CHECK_S)
        for active, before in zip(self._active, used, strict=True):
            row, tree = active.row, active.system.list_processes()
            row.idle_cores = (processes.sum_cpu_seconds(tree) - before) / IDLE_CHECK_S
            row.is_paused = row.is_peer and row.idle_cores > MAX_IDLE_CORES
            if row.is_paused:
                self._context.report(f"{row.name}: uses {row.idle_cores:.2f} cores when idle; paused")
        for active in self._active:
            if active.row.is_paused:
                self._send_signal(active.system, signal.SIGSTOP)

    def _run_closed_loops(self) -> None:
        rounds: dict[tuple[str, int], list[LoadStatistics]] = {}
        turns = product(range(self._schedule.rounds), self._schedule.concurrency)
        for (turn, connections), active in (
            (turn, active) for turn in turns for active in list(self._active)
        ):
            row = active.row
            if not self._is_measured(row, active.system, connections):
                continue
            if summary := self._run_load(active, "closed", connections, self._schedule.seconds):
                summaries = rounds.setdefault((row.name, connections), [])
                summaries.append(summary)
                row.closed[connections] = median_summary(summaries)
                row.spread[connections] = relative_spread(summaries)
                self._context.report(f"round {turn + 1}, {connections:>2} clients: {row.name:18} {summary}")

    def _is_measured(self, row: Row, system: System, connections: int) -> bool:
        """Return whether a row is measured with this number of clients: not if that takes too long.

        The time is estimated from the row's last loop or, before its first, from the last loop of the same system.
        """
        if connections not in row.clients and set(row.clients) & set(self._schedule.concurrency):
            return False
        loops = [*row.closed.values()] or [loop for other in system.rows for loop in other.closed.values()]
        if not loops or connections in (*row.required, *row.closed):
            return True
        rate = loops[-1].requests_per_second
        if row.tokens_per_answer:
            rate = loops[-1].tokens_per_second / row.tokens_per_answer
        if connections <= rate * self._schedule.max_answer_seconds:
            return True
        seconds = f"{connections / rate:.0f} s" if rate else "too long"
        row.skipped[connections] = f"an answer per client takes {seconds}"
        return False

    def _run_open_loops(self) -> None:
        for active in list(self._active):
            row = active.row
            shares = self._schedule.peer_shares if row.is_peer else self._schedule.shares
            for share in shares if row.has_open_loop and row.capacity else ():
                rate = share * row.capacity
                summary = self._run_load(active, "open", rate, self._schedule.open_seconds)
                if summary is None:
                    break
                row.open.append((rate, share, summary))
                self._context.report(f"offered {rate:6.1f}/s ({share:4.0%}): {row.name:18} {summary}")
