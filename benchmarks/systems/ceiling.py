"""The in-process ceiling: the best of several ways to go from JPEG bytes to labels without a server."""

import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from benchmarks import in_process
from benchmarks.generator import Generator
from benchmarks.outcomes import Outcome
from benchmarks.systems.base import Running, System, Workplace
from benchmarks.systems.product import packed

BATCHES = (1, 2, 4, 8, 32)
_TRIAL = 2.0  # seconds for each way, before the rounds
Way = partial[Outcome]


class Ceiling(System):
    """At concurrency 1 one picture after the other; at any other the best way, found before the rounds."""

    def __init__(self, name: str, title: str, int8: bool) -> None:
        self.name, self.title, self._int8 = name, title, int8

    def start(self, place: Workplace, _generator: Generator) -> "_Ceiling":
        archive = unpacked(packed(place, self._int8).path, place.root / "unpacked" / self.name)
        wide, narrow = hosted(archive, place.pictures, None), hosted(archive, place.pictures, 1)
        try:
            return _Ceiling(wide, narrow)
        except BaseException:
            for each in (wide, narrow):
                each.shutdown(cancel_futures=True)
            raise


class _Ceiling(Running):
    def __init__(self, wide: ProcessPoolExecutor, narrow: ProcessPoolExecutor) -> None:
        self._hosts = [wide, narrow]
        described: dict[str, Any] = wide.submit(in_process.describe).result()
        self._pids = [described["pid"], narrow.submit(in_process.describe).result()["pid"]]
        self._single = partial(_run, wide, in_process.single)
        ways: dict[str, Way] = {
            f"batches of {size}, decoded by a pool": partial(_run, wide, partial(in_process.batches, size))
            for size in BATCHES
        }
        ways["a thread a core, each decodes and computes"] = partial(_run, narrow, in_process.lanes)
        tried = {name: way(_TRIAL).summary().requests_per_second for name, way in ways.items()}
        best = max(tried, key=lambda name: tried[name])
        self._best = ways[best]
        self.facts = {
            key: described.get(key) for key in ("engine", "precision", "reason", "threads", "device")
        }
        self.facts |= {"way": best, "ways": tried}
        if self._best.args[0] is wide:  # the other host only takes memory now
            narrow.shutdown()
            self._pids.pop()

    def closed(self, connections: int, seconds: float) -> Outcome:
        return self._single(seconds) if connections == 1 else self._best(seconds)

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(pid) for pid in self._pids if psutil.pid_exists(pid)]

    def stop(self) -> None:
        for host in self._hosts:
            host.shutdown(cancel_futures=True)


def _run(host: ProcessPoolExecutor, way: Callable[[float], Outcome], seconds: float) -> Outcome:
    return host.submit(way, seconds).result()


def hosted(
    archive: Path, pictures: tuple[bytes, ...], threads: int | None, precision: str | None = None
) -> ProcessPoolExecutor:
    """A process in which the handler of an unpacked archive is loaded; see in_process.py for what it can be asked."""
    context = get_context("spawn")
    return ProcessPoolExecutor(1, context, in_process.load, (archive, pictures, threads, precision))


def unpacked(archive: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder
