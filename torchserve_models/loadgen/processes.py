"""The load generator in separate processes, whose results are merged."""

import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from torchserve_models.loadgen.http import Target
from torchserve_models.loadgen.loops import ClosedLoop, DrainedClosedLoop, LoadJob, OpenLoop, run_job
from torchserve_models.loadgen.measurement import Measurement, merge_measurements

START_DELAY_S = 0.05
"""Delay after which all processes start at the same time."""


class LoadGenerator:
    """Runner of load jobs in `processes` processes. One process suffices for about 2,000 requests/s.

    `max_cpu` is the largest share of a CPU core that a process has used. If it is close to 1, the load generator is
    the bottleneck.
    """

    def __init__(self, processes: int = 1) -> None:
        self._count = processes
        self._pool = self._create_pool()
        self.max_cpu = 0.0

    def _create_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._count, mp_context=get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def closed_loop(
        self, target: Target, connections: int, seconds: float, ramp_s: float = 1.0
    ) -> Measurement:
        """Measure a closed loop with `connections` clients in total, distributed over the processes."""
        count = min(self._count, connections)
        shares = [connections // count + (index < connections % count) for index in range(count)]
        return self._run(
            [LoadJob(target, ClosedLoop(share), seconds, ramp_s, index) for index, share in enumerate(shares)]
        )

    def drained_loop(
        self, target: Target, connections: int, seconds: float, min_requests: int = 1
    ) -> Measurement:
        """Measure a drained closed loop with `connections` clients in one process."""
        return self._run([LoadJob(target, DrainedClosedLoop(connections, min_requests), seconds)])

    def open_loop(self, target: Target, rate: float, seconds: float, ramp_s: float = 1.0) -> Measurement:
        """Measure an open loop with `rate` requests/s in total. A sum of Poisson processes is a Poisson process."""
        share = rate / self._count
        return self._run(
            [
                LoadJob(target, OpenLoop(share, seed), seconds, ramp_s, seed)
                for seed in range(1, self._count + 1)
            ]
        )

    def _run(self, jobs: list[LoadJob]) -> Measurement:
        begin = time.time() + START_DELAY_S
        try:
            measurement = merge_measurements(list(self._pool.map(run_job, jobs, [begin] * len(jobs))))
        except BrokenProcessPool:
            self._pool = self._create_pool()  # the next system is measured with a working pool
            raise
        self.max_cpu = max(self.max_cpu, measurement.cpu / len(jobs))
        return measurement
