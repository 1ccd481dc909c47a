"""Systems under workloads: what each is asked, what is left out, and what they share."""

import json
from types import SimpleNamespace

import psutil
import pytest

from benchmarks import environments
from benchmarks.errors import BenchError, Unavailable
from benchmarks.systems.base import Served, Workplace
from benchmarks.texts import peak
from benchmarks.texts.catalog import catalog, chosen, names
from benchmarks.texts.models import BART_LARGE, MODELS, T5_SMALL
from benchmarks.texts.systems import LEAST, Patience, Servers, TextServer, UnderWorkload
from benchmarks.texts.workloads import WORKLOADS
from torchserve_models.loadgen import Measurement, post_request

SERVERS = catalog(T5_SMALL)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_every_system_asks_for_the_whole_text_and_its_length(server):
    asked = WORKLOADS["b"].requests(T5_SMALL)[0]
    head, _, body = server.request(asked).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"
    told = json.dumps(json.loads(body)).replace("\\", "")
    assert asked.text in told
    assert f'"max_new_tokens": {asked.new_tokens}' in told
    assert (T5_SMALL.prefix + asked.text in told) is (
        not server.name.startswith("product")
    )  # ours puts it there itself


@pytest.mark.parametrize("server", [each for each in SERVERS if each.peer], ids=lambda server: server.name)
def test_every_peer_has_its_files(server):
    assert any((environments.PEERS / server.files).glob("*.py"))
    assert server.runs_in.startswith("text-")  # beside the peers for images


def test_a_whole_run_has_everything_and_a_quick_one_what_promises_need():
    whole = [system.name for system in chosen(T5_SMALL, (), tuple(WORKLOADS), quick=False)]
    quick = [system.name for system in chosen(T5_SMALL, (), tuple(WORKLOADS), quick=True)]
    assert "litserve c" in whole
    assert "openvino b" not in whole  # in process there is only (a)
    assert {f"{name} a" for name in names()} <= set(quick)
    assert [name for name in quick if not name.endswith("a")] == [
        "product b",
        "product c",
        "fastapi b",
        "fastapi c",
    ]
    asked = chosen(T5_SMALL, ("litserve",), ("b",), quick=True)
    assert [system.name for system in asked] == ["litserve b"]


def test_names_that_are_not_known_are_refused():
    with pytest.raises(BenchError, match="known are in-process-fp32, "):
        chosen(T5_SMALL, ("nothing",), ("a",), quick=False)
    with pytest.raises(BenchError, match="openvino is measured under"):
        chosen(T5_SMALL, ("openvino",), ("b",), quick=False)


@pytest.mark.parametrize(
    ("connections", "rate", "needed", "why"),
    [
        (32, None, False, None),  # nothing is known yet
        (32, 1.0, False, None),
        (32, 0.5, False, "an answer for each would take 64 s"),
        (8, 0.1, False, "an answer for each would take 80 s"),
        (8, 0.1, True, None),  # a promise hangs on it
        (32, 0.5, True, "an answer for each would take 64 s"),
        (8, 0.0, False, "no answers before"),
        (1, None, True, "a short run"),
    ],
)
def test_what_would_take_too_long_is_left_out(connections, rate, needed, why):
    assert Patience(40.0, (8,) if needed else (), least=2).refuses(connections, rate) == why


class FakeServed(Served):
    def __init__(self, log):
        self.facts, self._log = {"engine": "e"}, log
        self.target = SimpleNamespace(port=1)

    def processes(self) -> list[psutil.Process]:
        return []

    def stop(self):
        self._log.append("stopped")


class FakeServer(TextServer):
    name = title = "fake"

    def __init__(self, log, problem=None):
        super().__init__(BART_LARGE)
        self._log, self._problem = log, problem

    def start(self, place, generator):
        self._log.append("started")
        if self._problem:
            raise Unavailable(self._problem)
        return FakeServed(self._log)

    def request(self, asked):
        return post_request("/", asked.text.encode(), "text/plain")


class FakeGenerator:
    """Answers one request a second."""

    def __init__(self):
        self.asked = []

    def drained_loop(self, target, connections, seconds, min_requests=1):
        self.asked.append((max(target.tokens), connections, min_requests))
        return Measurement(float(connections), connections, tokens=connections * target.tokens[0])


def under(log, servers, work, problem=None):
    server = FakeServer(log, problem)
    return UnderWorkload(server, WORKLOADS[work], Patience(10.0), servers)


def test_the_workloads_of_a_server_share_it():
    log, place, generator = [], Workplace(None, None, (), print), FakeGenerator()
    servers = Servers(lambda served: served.stop())
    turns = [under(log, servers, work).start(place, generator) for work in ("a", "b")]
    assert log == ["started"]
    turns[0].stop()
    turns[0].stop()
    assert log == ["started"]
    turns[1].stop()
    assert log == ["started", "stopped"]


def test_a_server_that_does_not_start_is_not_tried_for_every_workload():
    log, servers = [], Servers(lambda served: served.stop())
    for work in ("a", "b"):
        with pytest.raises(Unavailable, match="no memory"):
            under(log, servers, work, "no memory").start(None, None)
    assert log == ["started"]


def test_a_turn_asks_for_whole_answers_and_leaves_out_what_takes_too_long():
    generator = FakeGenerator()
    turn = under([], Servers(lambda served: None), "b").start(None, generator)
    for connections in (32, 1):
        turn.warm_up(connections, 1.0)
    assert generator.asked == [(8, 8, 1)]  # once, short ones, as many as a batch holds
    assert turn.takes(1, 32)
    turn.closed(1, 6.0)
    assert generator.asked.pop() == (142, 1, LEAST)
    assert turn.takes(8, 32)
    assert not turn.takes(32, 32)
    assert turn.facts["left_out"] == {"32": "an answer for each would take 32 s"}
    assert turn.facts["engine"] == "e"
    assert turn.target.find_problem(0, b"word " * turn.target.tokens[0]) is None
    assert (
        turn.target.find_problem(0, b"word " * (turn.target.tokens[0] - BART_LARGE.slack - 1))
        == "wrong answer"
    )


def test_the_most_memory_of_a_process_is_known():
    own = psutil.Process()
    peak.reset([])
    found = peak.largest_mb([own])
    assert found is not None
    assert found >= own.memory_info().rss / 1e6 * 0.9
    assert peak.largest_mb([SimpleNamespace(pid=-1)]) is None


def test_models_are_known_by_their_short_names():
    assert [(name, model.served_as) for name, model in MODELS.items()] == [
        ("t5-small", "t5-small"),
        ("bart-large", "bart-large-cnn"),
    ]
