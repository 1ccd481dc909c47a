"""What every system under measurement is: a name, a way to start, and while it runs a load that it takes."""

import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import Unavailable
from benchmarks.weights import MARKER
from torchserve_models.loadgen import LoadGenerator, LoadJob, Measurement, OpenLoop, Target, run_job

Say = Callable[[str], None]
LABELS_ANSWERED = 5
START_SECONDS = 180.0


@dataclass(frozen=True)
class Workplace:
    """`root` holds what is made once and used again; `model` is the folder with the weights."""

    root: Path
    model: Path
    images: tuple[bytes, ...]
    say: Say

    def run_folder(self, name: str) -> Path:
        folder = self.root / "run" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Running(ABC):
    """A system that answers. `facts` say what it is made of."""

    facts: dict[str, Any]

    @abstractmethod
    def closed(self, connections: int, seconds: float) -> Measurement:
        """Under that many clients."""

    def open(self, rate: float, seconds: float) -> Measurement:
        """Under that many requests a second."""
        raise NotImplementedError

    def warm_up(self, connections: int, seconds: float) -> Measurement:
        """Before anything counts."""
        return self.closed(connections, seconds)

    def takes(self, connections: int, highest: int) -> bool:  # noqa: ARG002
        """Whether a closed loop of that many says anything about it; `highest` is the most of this run."""
        return True

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """The roots of its process trees."""

    @abstractmethod
    def stop(self) -> None:
        """Ends all its processes; twice does no harm."""

    def memory(self) -> dict[str, float]:
        """Megabytes of the process tree: shared pages in parts (PSS), and what only it holds (USS)."""
        found = [info for process in family(self.processes()) if (info := _memory(process)) is not None]
        return {key: sum(getattr(info, key) for info in found) / 1e6 for key in ("pss", "uss")}

    def cpu_seconds(self) -> float:
        """What its processes have used so far."""
        return sum(_cpu(process) for process in family(self.processes()))


class Served(Running):
    """A system behind an address."""

    def __init__(self, target: Target, generator: LoadGenerator) -> None:
        self.target = target
        self._generator = generator
        self.facts = {}

    def closed(self, connections: int, seconds: float) -> Measurement:
        return self._generator.closed_loop(self.target, connections, seconds)

    def open(self, rate: float, seconds: float) -> Measurement:
        return self._generator.open_loop(self.target, rate, seconds)


class System(ABC):
    """`peer` says that it is not ours. The name is what --systems takes, the title what the table shows."""

    name: str
    title: str
    peer: bool = False

    @abstractmethod
    def start(self, place: Workplace, generator: LoadGenerator) -> Running:
        """Returns when it has answered. Raises Unavailable, with everything ended again."""


def labeled(host: str, port: int, requests: list[bytes]) -> Target:
    """A target whose answers hold five labels of the benchmark's model."""
    return Target(host, port, tuple(requests), MARKER.encode(), LABELS_ANSWERED)


def wait_for_answer(target: Target, alive: Callable[[], str | None], patience: float = START_SECONDS) -> None:
    """Until one request is answered rightly. Raises Unavailable; `alive` tells why there is no use in waiting."""
    deadline = time.monotonic() + patience
    while True:
        dead = alive()
        outcome = run_job(LoadJob(target, OpenLoop(rate=20.0), seconds=0.2, ramp_s=0.0))
        if outcome.latencies and not outcome.errors:
            return
        if dead is not None:
            raise Unavailable(dead)
        if time.monotonic() > deadline:
            raise Unavailable(
                f"no right answer in {patience:.0f} s: {', '.join(outcome.errors) or 'none at all'}"
            )
        time.sleep(0.5)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def family(roots: list[psutil.Process]) -> list[psutil.Process]:
    """These processes and all below them, as far as they live."""
    found: dict[int, psutil.Process] = {}
    for root in roots:
        try:
            found |= {process.pid: process for process in (root, *root.children(recursive=True))}
        except psutil.Error:
            continue
    found.pop(os.getpid(), None)
    return list(found.values())


def _memory(process: psutil.Process) -> Any:
    try:
        return process.memory_full_info()
    except psutil.Error:
        return None


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
