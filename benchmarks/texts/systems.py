"""A system under one workload: its load, what is left out, and the most memory of one of its processes."""

import json
import urllib.request
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psutil

from benchmarks.systems.base import Running, Served, System, Workplace, family
from benchmarks.systems.shared import Shared
from benchmarks.texts import peak
from benchmarks.texts.models import WORD, TextModel
from benchmarks.texts.workloads import Asked, Workload
from torchserve_models.loadgen import LoadGenerator, Measurement, Target

LEAST = 3  # requests of any measurement, however long each takes
SHORT = 8  # new tokens of a request that only warms up
TIMEOUT = 900.0  # seconds: of the slowest there is, 32 wait for each other
COMPARED = (1, 8)
"""The numbers of clients at which speed is promised."""
MEMORY_AT = 32
"""And at which memory is."""

Servers = Shared[str, Served]


@dataclass(frozen=True)
class Patience:
    """`seconds` that one answer for each client may take, as far as fewer clients let it be foreseen."""

    seconds: float
    needed: tuple[int, ...] = ()
    """Clients that a promise is about: with so many it is measured all the same."""
    least: int = 1
    """Fewer clients are not asked about at all."""

    def refuses(self, connections: int, rate: float | None) -> str | None:
        """Why that load is left out; `rate` is what it last answered in a second, None before."""
        if connections < self.least:
            return "a short run"
        if rate is None or connections in self.needed:
            return None
        if connections <= rate * self.seconds:
            return None
        return f"an answer for each would take {connections / rate:.0f} s" if rate else "no answers before"


class TextServer(System):
    """A way to get summaries, with one model; `warm` is how many requests at once warm it up."""

    warm = 8
    workloads: tuple[str, ...] = ("a", "b", "c")

    def __init__(self, model: TextModel) -> None:
        self.model = model

    @abstractmethod
    def start(self, place: Workplace, generator: LoadGenerator) -> Served: ...

    @abstractmethod
    def request(self, asked: Asked) -> bytes:
        """The whole HTTP request for one summary."""

    def under(self, served: Served, work: Workload, generator: LoadGenerator) -> "Turn":
        """What is started already, under that workload."""
        return Turn(served, self, work, generator)


def target(server: TextServer, port: int, asked: list[Asked]) -> Target:
    """A target whose answers hold as many words as tokens were asked for."""
    requests = tuple(server.request(each) for each in asked)
    tokens = tuple(each.new_tokens for each in asked)
    slack = server.model.slack
    return Target(
        "127.0.0.1", port, requests, WORD.encode(), tokens, timeout=TIMEOUT, slack=slack, tokens=tokens
    )


class UnderWorkload(System):
    """A row of the results; the workloads of a server share what is started."""

    def __init__(self, server: TextServer, work: Workload, patience: Patience, servers: Servers) -> None:
        self.name = row_name(server.name, work.name)
        self.title, self.peer = server.title, server.peer
        self._server, self._work, self._patience, self._servers = server, work, patience, servers

    def start(self, place: Workplace, generator: LoadGenerator) -> "Turn":
        key = self._server.name
        served = self._servers.get(key, lambda: self._server.start(place, generator))
        self._servers.enter(key, self.name)
        turn = self._server.under(served, self._work, generator)
        turn.patience = self._patience
        turn.leave = lambda: self._servers.leave(key, self.name)
        return turn


def row_name(server: str, work: str) -> str:
    return f"{server} {work}"


class Turn(Running):
    """Takes its load from a fixed list of requests, always from the first one on."""

    patience = Patience(60.0)

    def __init__(self, served: Served, server: TextServer, work: Workload, generator: LoadGenerator) -> None:
        self.leave: Callable[[], None] = served.stop
        self._served, self._generator, self._most_at_once = served, generator, server.warm
        asked = work.requests(server.model)
        short = [replace(each, new_tokens=min(SHORT, each.new_tokens)) for each in asked]
        self.target = target(server, served.target.port, asked)
        self._short = target(server, served.target.port, short)
        self._rate: float | None = None
        self._warm = False
        self.facts: dict[str, Any] = {**served.facts, "peak_mb": {}, "left_out": {}}

    def warm_up(self, connections: int, seconds: float) -> Measurement:
        """Long texts, short answers, once."""
        if self._warm:
            return Measurement(seconds)
        self._warm = True
        return self._generator.drained_loop(self._short, min(connections, self._most_at_once), 0.01)

    def takes(self, connections: int, highest: int) -> bool:  # noqa: ARG002
        if why := self.patience.refuses(connections, self._rate):
            self.facts["left_out"][str(connections)] = why
        return why is None

    def closed(self, connections: int, seconds: float) -> Measurement:
        peak.reset(family(self.processes()))
        outcome = self._load(connections, seconds)
        self.facts["peak_mb"][str(connections)] = peak.largest_mb(family(self.processes()))
        self._rate = outcome.completed / outcome.seconds
        return outcome

    def _load(self, connections: int, seconds: float) -> Measurement:
        return self._generator.drained_loop(self.target, connections, seconds, LEAST)

    def processes(self) -> list[psutil.Process]:
        return self._served.processes()

    def stop(self) -> None:
        self.leave()


class Batches(Turn):
    """In process: whole batches one after the other, as many texts at once as clients would ask for."""

    def __init__(self, served: Served, server: TextServer, work: Workload, generator: LoadGenerator) -> None:
        super().__init__(served, server, work, generator)
        self._asked = work.requests(server.model)

    def takes(self, connections: int, highest: int) -> bool:  # noqa: ARG002
        return connections in COMPARED

    def warm_up(self, connections: int, seconds: float) -> Measurement:  # noqa: ARG002
        return self._load(min(connections, max(COMPARED)), 0.01)

    def _load(self, connections: int, seconds: float) -> Measurement:
        asked = [{"text": each.text, "parameters": each.parameters} for each in self._asked]
        body = json.dumps({"batch": connections, "seconds": seconds, "asked": asked}).encode()
        url = f"http://{self.target.host}:{self.target.port}/run"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=TIMEOUT) as reply:
            found = json.loads(reply.read())
        outcome = Measurement(
            found["seconds"], found["completed"], found["latencies"], tokens=found["tokens"]
        )
        outcome.per_token = found["per_token"]
        return outcome
