"""The in-process ceiling: the best of several ways to go from JPEG bytes to labels without a server."""

import shutil
import statistics
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from benchmarks import in_process
from benchmarks.systems.base import Running, System, Workplace
from benchmarks.systems.product import packed
from torchserve_models.loadgen import LoadGenerator, Measurement, merge_measurements

BATCHES = (1, 4, 8, 32)
LANE_BATCHES = (1, 4)
_TRIAL, _TRIALS = 1.5, 3  # seconds for each way, and how often: in turns, before the rounds
Way = Callable[[float], Measurement]


class Ceiling(System):
    """At concurrency 1 one image after the other; at any other the best way, found before the rounds."""

    def __init__(self, name: str, title: str, int8: bool) -> None:
        self.name, self.title, self._int8 = name, title, int8

    def start(self, place: Workplace, _generator: LoadGenerator) -> "_Ceiling":
        archive = unpacked(packed(place, self._int8).path, place.root / "unpacked" / self.name)
        with ExitStack() as stack:
            wide = _Hosts(archive, place.images, 1, None)
            stack.callback(wide.stop)
            lanes = _Hosts(archive, place.images, in_process.cores(), 1)
            stack.callback(lanes.stop)
            found = _Ceiling(wide, lanes)
            stack.pop_all()
        return found


class _Hosts:
    """Processes that do the same at the same time, each with a handler of its own."""

    def __init__(self, archive: Path, images: tuple[bytes, ...], count: int, threads: int | None) -> None:
        self._hosts = [hosted(archive, images, threads) for _ in range(count)]

    def describe(self) -> list[dict[str, Any]]:
        waiting = [host.submit(in_process.describe) for host in self._hosts]
        return [each.result() for each in waiting]

    def run(self, way: Way, seconds: float) -> Measurement:
        """Raises what any of them raised."""
        waiting = [host.submit(way, seconds) for host in self._hosts]
        return merge_measurements([each.result() for each in waiting])

    def stop(self) -> None:
        for host in self._hosts:
            host.shutdown(cancel_futures=True)


class _Ceiling(Running):
    def __init__(self, wide: _Hosts, lanes: _Hosts) -> None:
        self._wide, self._lanes = wide, lanes
        [described] = wide.describe()
        self._pids = [described["pid"]]
        ways: dict[str, tuple[_Hosts, Way]] = {
            f"batches of {size}, decoded by a pool": (wide, partial(in_process.batches, size))
            for size in BATCHES
        }
        ways |= {
            f"a process a core, batches of {size}": (lanes, partial(in_process.serial, size))
            for size in LANE_BATCHES
        }
        lane_pids = [each["pid"] for each in lanes.describe()]
        tried = _tried({name: partial(hosts.run, way) for name, (hosts, way) in ways.items()})
        best = max(tried, key=lambda name: tried[name])
        self._hosts, self._best = ways[best]
        self.facts = {
            key: described.get(key) for key in ("engine", "precision", "reason", "threads", "device")
        }
        self.facts |= {"way": best, "ways": tried}
        if self._hosts is lanes:
            self._pids += lane_pids
        else:
            lanes.stop()  # they only take memory now

    def closed(self, connections: int, seconds: float) -> Measurement:
        if connections == 1:
            return self._wide.run(partial(in_process.serial, 1), seconds)
        outcome = self._hosts.run(self._best, seconds)
        outcome.latencies.clear()  # of batches: nobody waits for a request here
        return outcome

    def takes(self, connections: int, highest: int) -> bool:
        return connections in (1, highest)

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(pid) for pid in self._pids if psutil.pid_exists(pid)]

    def stop(self) -> None:
        self._wide.stop()
        self._lanes.stop()


def _tried(ways: Mapping[str, Way]) -> dict[str, float]:
    """Images/s of each way: the median of trials in turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_TRIALS):
        for name, way in ways.items():
            found[name].append(way(_TRIAL).summary().requests_per_second)
    return {name: statistics.median(rates) for name, rates in found.items()}


def hosted(
    archive: Path, images: tuple[bytes, ...], threads: int | None, precision: str | None = None
) -> ProcessPoolExecutor:
    """A process in which the handler of an unpacked archive is loaded; see in_process.py for what it can be asked."""
    context = get_context("spawn")
    return ProcessPoolExecutor(1, context, in_process.load, (archive, images, threads, precision))


def unpacked(archive: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder
