"""The ceiling: the fastest of several methods to compute labels from JPEGs without a server."""

import shutil
import statistics
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import psutil

from benchmarks.agreement import measure_agreement
from benchmarks.report.results import Row
from benchmarks.scenarios.base import ImageScenario
from benchmarks.systems import in_process
from benchmarks.systems.base import Load, RunContext, System
from benchmarks.systems.product import DESCRIBED, pack_image_model
from handlers.core.device import usable_cores
from torchserve_models.loadgen import Measurement, merge_measurements

PREFETCHED_BATCH_SIZES, SERIAL_BATCH_SIZES = (1, 4, 8, 32), (1, 4)
TRIAL_S, TRIALS = 1.5, 3


class Ceiling(System, Load):
    """Upper bound without a server: single images for one client, the fastest method for more clients."""

    def __init__(self, row: Row, int8: bool) -> None:
        super().__init__(row)
        self._int8 = int8

    def start(self, context: RunContext) -> None:
        assert isinstance(context.scenario, ImageScenario)
        archive = unpack(pack_image_model(context, self._int8), context.root / "unpacked" / self.rows[0].name)
        start_process = partial(in_process.start_process, archive, context.scenario.images)
        single, per_core = [start_process()], [start_process(threads=1) for _ in range(usable_cores())]
        self._processes, self._lone_image = [*single, *per_core], partial(_run, single, 1, False)
        try:
            facts = [process.submit(in_process.describe).result() for process in self._processes]
            prefetched = {
                f"batches of {size}, decoded by a pool": partial(_run, single, size, True)
                for size in PREFETCHED_BATCH_SIZES
            }
            methods = prefetched | {
                f"one process per core, batches of {size}": partial(_run, per_core, size, False)
                for size in SERIAL_BATCH_SIZES
            }
            trials = [{name: run(TRIAL_S).summary() for name, run in methods.items()} for _ in range(TRIALS)]
        except BaseException:
            self.stop()
            raise
        rates = {
            name: statistics.median(trial[name].requests_per_second for trial in trials) for name in methods
        }
        best = max(rates, key=lambda name: rates[name])
        if best in prefetched:
            _shut_down(per_core)  # to free memory
        self._pids, self._fastest = [process["pid"] for process in facts], methods[best]
        self.facts = {key: facts[0].get(key) for key in DESCRIBED} | {"way": best, "ways": rates}
        context.report(f"{self.rows[0].name}: comparing labels with those of fp32 eager")
        self.facts["agreement"] = measure_agreement(self._predict_labels, context.scenario.folder)

    def _predict_labels(self, photos: Sequence[bytes]) -> list[str]:
        return self._processes[0].submit(in_process.predict_labels, photos).result()

    def stop(self) -> None:
        _shut_down(self._processes)

    def root_processes(self) -> list[psutil.Process]:
        return [psutil.Process(pid) for pid in self._pids if psutil.pid_exists(pid)]

    def connect(self, row: Row, context: RunContext) -> Load:  # noqa: ARG002
        return self

    def closed(self, connections: int, seconds: float) -> Measurement:
        if connections == 1:
            return self._lone_image(seconds)
        measurement = self._fastest(seconds)
        measurement.latencies.clear()  # latencies of batches, not of requests
        return measurement


def _run(processes: Sequence[ProcessPoolExecutor], size: int, prefetch: bool, seconds: float) -> Measurement:
    """Run batches in all processes at the same time."""
    futures = [process.submit(in_process.run_batches, size, prefetch, seconds) for process in processes]
    return merge_measurements([future.result() for future in futures])


def _shut_down(processes: Sequence[ProcessPoolExecutor]) -> None:
    for process in processes:
        process.shutdown(cancel_futures=True)


def unpack(archive: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder
