"""Runs the load generator in processes of its own, one or several side by side, and joins what they found."""

import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from benchmarks.load import Closed, Job, Open, Whole, run
from benchmarks.outcomes import Outcome, joined
from benchmarks.wire import Target

_TOGETHER = 0.05  # seconds until all of them begin


class Generator:
    """One process is enough up to about 2,000 requests/s; see `generator_cores` in the results."""

    def __init__(self, processes: int = 1) -> None:
        self._count = processes
        self._pool = self._processes()
        self.busiest = 0.0
        """The most of a core that one of its processes has used; near 1 it measures itself."""

    def _processes(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._count, mp_context=get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def closed(self, target: Target, connections: int, seconds: float, ramp: float = 1.0) -> Outcome:
        """`connections` clients in all, over at most as many processes."""
        count = min(self._count, connections)
        shares = [connections // count + (index < connections % count) for index in range(count)]
        return self._run([Job(target, Closed(n), seconds, ramp, index) for index, n in enumerate(shares)])

    def whole(self, target: Target, connections: int, seconds: float, least: int = 1) -> Outcome:
        """`connections` clients from one process until all are answered; for few requests, each of them long."""
        return self._run([Job(target, Whole(connections, least), seconds)])

    def open(self, target: Target, rate: float, seconds: float, ramp: float = 1.0) -> Outcome:
        """`rate` requests/s in all; independent Poisson arrivals add up to Poisson arrivals."""
        share = rate / self._count
        return self._run(
            [Job(target, Open(share, seed), seconds, ramp, seed) for seed in range(1, self._count + 1)]
        )

    def _run(self, jobs: list[Job]) -> Outcome:
        begin = time.time() + _TOGETHER
        try:
            outcome = joined(list(self._pool.map(run, jobs, [begin] * len(jobs))))
        except BrokenProcessPool:
            self._pool = self._processes()  # whoever is measured next is not to suffer from it
            raise
        self.busiest = max(self.busiest, outcome.cpu / len(jobs))
        return outcome
