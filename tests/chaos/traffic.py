"""Concurrent clients that send good and bad requests, and record every reply."""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.chaos.cases import BadCall, Form, GoodCase, Request, request_of
from tests.chaos.outcomes import PLAIN, Category, Record, Reply, classify
from tests.chaos.send import Sender, now
from torchserve_models.client import Endpoints, Protocol

Via = Literal["raw", "nginx", "client"]
CLIENTS = 12
MAX_RECORDS = 300_000
GOOD_SHARE = 0.8
PAUSE_S = 0.08
"""Mean pause between an answer and a client's next request."""
PAUSE_AFTER_REFUSAL_S = 0.25
_GRPC: tuple[Protocol, ...] = ("grpc", "open-inference-grpc")
_REST: tuple[Protocol, ...] = ("rest", "open-inference")


@dataclass(frozen=True)
class TrafficOptions:
    """Requests and settings of the clients."""

    via: Via
    good: Sequence[GoodCase]
    bad: Sequence[Request]
    bad_calls: Sequence[BadCall]
    deadline: float = 30.0
    clients: int = CLIENTS
    good_share: float = GOOD_SHARE

    @property
    def forms(self) -> tuple[Form, ...]:
        return ("native", "json", "open-inference") + (("known-route",) if self.via != "raw" else ())


class RecordLog:
    """Thread-safe list of at most MAX_RECORDS records."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._lock = threading.Lock()

    def add(self, record: Record) -> None:
        with self._lock:
            if len(self._records) < MAX_RECORDS:
                self._records.append(record)

    @property
    def full(self) -> bool:
        return len(self._records) >= MAX_RECORDS

    @property
    def records(self) -> list[Record]:
        with self._lock:
            return list(self._records)


class Traffic:
    """Client threads. Call `start`, then `stop`, which waits until all requests are answered or have timed out."""

    def __init__(self, endpoints: Endpoints, load: TrafficOptions, seed: int, log: RecordLog) -> None:
        self._endpoints, self._load, self._log = endpoints, load, log
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} client {number}"),), daemon=True)
            for number in range(load.clients)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(self._load.deadline + 10)

    def _run(self, rng: random.Random) -> None:
        load = self._load
        with Sender(self._endpoints, load.deadline, 3 if load.via == "client" else 0) as sender:
            while not self._over.is_set() and not self._log.full:
                category = self._one(sender, rng)
                pause = PAUSE_S if category is Category.RIGHT else PAUSE_AFTER_REFUSAL_S
                self._over.wait(min(1.0, rng.expovariate(1 / pause)))

    def _one(self, sender: Sender, rng: random.Random) -> Category:
        over_grpc = rng.random() < 0.3
        if rng.random() < self._load.good_share:
            return self._good(sender, rng, over_grpc)
        if over_grpc:
            return self._bad_call(sender, rng, rng.choice(_GRPC))
        if self._load.via == "client" and rng.random() < 0.5:
            return self._bad_call(sender, rng, rng.choice(_REST))
        request = rng.choice(self._load.bad)
        started = now()
        reply = sender.send_rest(request)
        category = classify("bad", reply, may_close=request.may_close)
        return self._note(started, "bad", request.name, request.model, PLAIN, category, reply)

    def _good(self, sender: Sender, rng: random.Random, over_grpc: bool) -> Category:
        case = rng.choice(self._load.good)
        started = now()
        if over_grpc or self._load.via == "client":
            protocol = rng.choice(_GRPC if over_grpc else _REST)
            reply = sender.call(protocol, case.task, case.model, case.content, {})
            name, how = case.name, str(protocol)
        else:
            # The gateway's /predict routes serve only some models.
            forms = [form for form in self._load.forms if form != "known-route" or _has_route(case)]
            form = rng.choice(forms)
            reply = sender.send_rest(request_of(case, form))
            name, how = case.name, form
        category = classify("good", reply, matches=case.answer.matches(reply.value))
        return self._note(started, "good", name, case.model, how, category, reply)

    def _bad_call(self, sender: Sender, rng: random.Random, protocol: Protocol) -> Category:
        call = rng.choice(self._load.bad_calls)
        started = now()
        reply = sender.call(protocol, call.task, call.model, call.content, dict(call.parameters))
        category = classify("bad", reply)
        return self._note(started, "bad", call.name, call.model, protocol, category, reply)

    def _note(
        self,
        started: float,
        kind: str,
        case: str,
        model: str,
        protocol: str,
        category: Category,
        reply: Reply,
    ) -> Category:
        message = "" if category is Category.RIGHT else str(reply.value or reply.message)[:200]
        self._log.add(Record(started, now(), kind, case, model, protocol, category, reply.label, message))
        return category


def _has_route(case: GoodCase) -> bool:
    return case.model == "resnet-50" or bool(case.key)
