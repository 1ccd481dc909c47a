"""The wait at the end: until nothing runs, and when new requests can be refused."""

import pytest

from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.health.model_states import Model, Worker
from torchserve_models.serving.supervisor import drain

WORKER = Worker(id="9000", status="READY", pid=1, alive=True, memory=0)


def model(queue_waiting):
    return Model("m", "1", True, "m.mar", 1, 1, 60, 60, queue_waiting, 100 - queue_waiting, (WORKER,))


@pytest.fixture
def server(monkeypatch):
    """`queue` and `busy` are what the next looks see; a look takes a tenth of a second of a clock of its own."""

    class Fake:
        def __init__(self):
            self.now = 0.0
            self.queue = lambda: 0
            self.busy = lambda: False

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    fake = Fake()
    monkeypatch.setattr(drain, "time", fake)
    monkeypatch.setattr(drain, "inspect", lambda *_, **__: [model(fake.queue())])
    monkeypatch.setattr(drain, "is_idle", lambda *_: not fake.busy())
    return fake


def run(server, seconds=60.0):
    emptied = []
    is_drained = drain.wait_until_drained(Endpoints(), seconds, on_empty=lambda: emptied.append(server.now))
    return is_drained, emptied


def test_an_idle_server_ends_at_once(server):
    is_drained, emptied = run(server)
    assert is_drained
    assert emptied == [0.0]
    assert server.now < 1


def test_the_queues_are_reported_empty_once_while_workers_still_compute(server):
    server.queue = lambda: 5 if server.now < 2 else 0
    server.busy = lambda: server.now < 9
    is_drained, emptied = run(server)
    assert is_drained
    assert emptied == [pytest.approx(2, abs=0.2)]
    assert server.now == pytest.approx(9, abs=1)


def test_a_queue_that_never_empties_is_taken_for_empty_after_half_of_the_time(server):
    """Clients that keep their connections send on; refused from then on, they let the workers come to rest."""
    server.queue = lambda: 100 if server.now < 31 else 0
    server.busy = lambda: server.now < 31
    is_drained, emptied = run(server)
    assert is_drained
    assert emptied == [pytest.approx(30, abs=0.2)]


def test_what_does_not_end_in_time(server):
    server.busy = lambda: True
    is_drained, _ = run(server, 5.0)
    assert not is_drained
    assert server.now == pytest.approx(5, abs=0.3)


def test_a_front_end_that_is_gone_answers_nothing_any_more(server, monkeypatch):
    def gone(*_, **__):
        raise client.Unavailable("gone")

    monkeypatch.setattr(drain, "inspect", gone)
    assert run(server) == (True, [])
