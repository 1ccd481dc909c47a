"""The watch over workers, against what TorchServe does with its list of them."""

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest

import client
from serving import readiness, watch
from serving.plan import plan
from serving.readiness import Model, Worker
from serving.watch import Watch

MODEL = Model("m", "1", True, "m.mar", 2, 2, 20, 20, 0, 10, ())
ALIVE, LOST = os.getpid(), 2**22 + 1


@dataclass
class FakeTorchServe:
    """Adds workers up to the minimum and takes those at the end beyond the maximum away, as WorkLoadManager does."""

    pids: list[int]
    least: int = 2
    most: int = 2
    failures: int = 0
    looks: int = 0
    scaled: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, **_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def scale(self, _name, least, most, _version, synchronous):
        assert not synchronous
        self.scaled.append((least, most))
        if least and self.failures:
            self.failures -= 1
            raise client.Timeout("no answer")
        self.least, self.most = least, most
        self.pids = (self.pids + [ALIVE] * (least - len(self.pids)))[: max(most, 0)]

    def model(self):
        workers = tuple(Worker(str(n), "READY", pid, pid == ALIVE, 1) for n, pid in enumerate(self.pids))
        return replace(MODEL, min_workers=self.least, max_workers=self.most, workers=workers)

    def inspect(self, *_, **__):
        self.looks += 1
        return [self.model()]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A watch over a server whose workers are these."""

    def make(pids, **options):
        server = FakeTorchServe([ALIVE] * len(pids), **options)
        monkeypatch.setattr(readiness, "Client", server)
        monkeypatch.setattr(watch, "inspect", server.inspect)
        monkeypatch.setattr(watch, "_CALM", 0.0)
        monkeypatch.setattr(watch, "_ALARM", 0.0)
        monkeypatch.setattr(watch, "_LOST_AFTER", -1.0)
        look = Watch(plan(["m"], tmp_path, tmp_path), server.inspect(), print)
        server.pids = list(pids)
        return server, look

    return make


def until_ready(look):
    said = [look.look() for _ in range(6)]
    assert said[-1] is None, said
    return said


def test_a_lost_one_of_two_is_replaced_and_the_model_is_ready_again(start):
    server, look = start([ALIVE, LOST])
    assert "1 of 2 workers ready" in str(look.look())
    until_ready(look)
    assert sorted(server.pids) == [ALIVE, ALIVE, LOST]  # the one that works was left alone
    assert server.least == 2
    assert server.model().ready


def test_a_second_loss_is_replaced_too(start):
    server, look = start([ALIVE, LOST])
    until_ready(look)
    server.pids = [LOST, LOST, ALIVE]
    until_ready(look)
    assert server.pids.count(ALIVE) == 2
    assert server.least == 2


def test_when_none_is_left_the_lost_ones_are_dropped(start):
    server, look = start([LOST, LOST])
    until_ready(look)
    assert server.pids == [ALIVE, ALIVE]
    assert (server.least, server.most) == (2, 2)


@pytest.mark.parametrize("pids", [[LOST, LOST], [ALIVE, LOST]])
def test_a_replacement_that_fails_is_tried_again(start, pids):
    server, look = start(pids, failures=2)
    until_ready(look)
    assert server.pids.count(ALIVE) == 2
    assert server.least == 2


def test_nothing_is_asked_for_when_all_is_well(start):
    server, look = start([ALIVE, ALIVE])
    until_ready(look)
    assert server.scaled == []


def test_an_operators_own_number_of_workers_is_left_alone(start):
    server, look = start([ALIVE, ALIVE])
    server.scale("m", 1, 1, "1", synchronous=False)
    server.scaled.clear()
    until_ready(look)
    assert server.scaled == []
    assert server.pids == [ALIVE]


def test_a_worker_that_dies_is_noticed_long_before_the_server_is_asked_again(start, monkeypatch):
    server, look = start([ALIVE])
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr(watch, "_CALM", 1e9)
    look._pids = frozenset([child.pid])
    look._next = 1e12
    before = server.looks
    assert look.look() is None
    assert server.looks == before
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert look.look() == f"worker {child.pid} has died"
    assert server.looks == before  # a front end that is slow to answer delays no such news
    assert "1 of 2 workers ready" in str(look.look())
    assert server.looks == before + 1
    child.communicate()
