"""The systems that a session measures, and the load on each of their rows."""

import json
import socket
import urllib.request
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report.results import Row
from benchmarks.scenarios.base import Scenario
from benchmarks.systems import processes
from handlers.core.metrics import ACCEPTED_DRAFT_TOKENS, DRAFT_TOKENS, GENERATED_TOKENS
from torchserve_models.loadgen import LoadGenerator, Measurement, Target

START_TIMEOUT_S = 600.0
"""Long enough for the conversion of a large model at the first start, which takes minutes."""
BATCH_SIZE = 8
"""The batch size of the systems that form batches."""
MIN_REQUESTS = 3
"""Minimum number of requests of a measurement with texts."""


class Load(ABC):
    """Load on a running system. `facts` describe it in the results."""

    facts: dict[str, Any]

    @abstractmethod
    def closed(self, connections: int, seconds: float) -> Measurement:
        """Measure a closed loop."""

    def warm_up(self, connections: int, seconds: float) -> None:
        self.closed(connections, seconds)
        self.closed(1, 0.5 * seconds)


@dataclass
class ImageLoad(Load):
    """Requests whose answers are counted within a fixed window."""

    target: Target
    generator: LoadGenerator
    facts: dict[str, Any] = field(default_factory=dict)

    def closed(self, connections: int, seconds: float) -> Measurement:
        return self.generator.closed_loop(self.target, connections, seconds)

    def open(self, rate: float, seconds: float) -> Measurement:
        return self.generator.open_loop(self.target, rate, seconds)


@dataclass
class TextLoad(Load):
    """Requests of one workload, all of which are answered. Each measurement begins with the first request.

    Attributes:
        warm_up_target: Requests for short summaries of the same texts.
        read_counters: Returns the token counters of this repository's server so far; empty for other systems.
    """

    target: Target
    warm_up_target: Target
    generator: LoadGenerator
    read_counters: Callable[[], Counter[str]] = Counter
    facts: dict[str, Any] = field(default_factory=lambda: {"drafts": {}})

    def warm_up(self, connections: int, seconds: float) -> None:  # noqa: ARG002
        self.generator.drained_loop(self.warm_up_target, min(connections, BATCH_SIZE), 0.01)

    def closed(self, connections: int, seconds: float) -> Measurement:
        before = self.read_counters()
        measurement = self.run(connections, seconds)
        self.facts["drafts"][str(connections)] = describe_drafts(self.read_counters() - before)
        return measurement

    def run(self, connections: int, seconds: float) -> Measurement:
        return self.generator.drained_loop(self.target, connections, seconds, MIN_REQUESTS)


class BatchLoad(TextLoad):
    """Load of a library: peers/library/host.py runs batches, whose size is the number of clients."""

    def warm_up(self, connections: int, seconds: float) -> None:  # noqa: ARG002
        self.run(min(connections, BATCH_SIZE), 0.01)

    def run(self, connections: int, seconds: float) -> Measurement:
        requests = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in self.target.requests]
        body = {"batch": connections, "seconds": seconds, "requests": requests}
        url = f"http://{self.target.host}:{self.target.port}/run"
        http_request = urllib.request.Request(url, json.dumps(body).encode())
        with urllib.request.urlopen(http_request, timeout=self.target.timeout) as response:
            return Measurement(**json.loads(response.read()))


def describe_drafts(counters: Counter[str]) -> dict[str, float]:
    """Return the tokens that a decoding step adds to a text, and the share of drafted tokens that are accepted.

    A step adds one token to each text of its batch, in addition to the accepted ones. Without drafts, the result is
    empty.
    """
    generated, drafted, accepted = (
        counters[name] for name in (GENERATED_TOKENS, DRAFT_TOKENS, ACCEPTED_DRAFT_TOKENS)
    )
    if not drafted:
        return {}
    return {"tokens_per_step": generated / (generated - accepted), "accepted": accepted / drafted}


@dataclass(frozen=True)
class RunContext:
    """Inputs for starting systems. `root` is the folder of files that several runs share."""

    root: Path
    scenario: Scenario
    generator: LoadGenerator
    report: Callable[[str], None]


class System(ABC):
    """A system that is started once and measured in one or several rows.

    Attributes:
        rows: Its rows. Their load is on one process tree, and differs in protocol or text workload.
        facts: Its description for the results, after its start.
    """

    def __init__(self, *rows: Row) -> None:
        self.rows = list(rows)
        self.facts: dict[str, Any] = {}

    def start(self, context: RunContext) -> None:
        """Start the system, unless it runs already.

        Raises:
            SystemUnavailable, OSError, RuntimeError: The system cannot be started. No process is left.
        """

    def stop(self) -> None:
        """End all processes that `start` has started. A second call has no effect."""

    def root_processes(self) -> list[psutil.Process]:
        """Return the roots of the system's process trees, if they are known."""
        return []

    @abstractmethod
    def connect(self, row: Row, context: RunContext) -> Load:
        """Wait until the system answers a row's requests, and return the row's load. Raises the errors of `start`."""

    def list_processes(self) -> list[psutil.Process]:
        return processes.list_tree(self.root_processes())


def find_free_ports(count: int) -> list[int]:
    """Return different free ports of 127.0.0.1. They are not reserved, as another server may not set SO_REUSEADDR."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(server.getsockname()[1]) for server in servers]
