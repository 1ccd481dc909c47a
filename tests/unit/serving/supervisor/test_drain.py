"""Tests of draining: the end of running requests, and the time to reject new ones."""

import pytest

from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker
from torchserve_models.serving.supervisor import drain

WORKER = ObservedWorker(id="9000", status="READY", pid=1, alive=True, memory=0)


def model(queue_waiting):
    return ObservedVersion(
        "m", "1", True, "m.mar", 1, 1, 60, 60, queue_waiting, 100 - queue_waiting, (WORKER,)
    )


@pytest.fixture
def server(monkeypatch):
    """Return a fake server with successive `queue` and `busy` states; a poll takes 0.1 s of a simulated clock."""

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


def test_idle_server_is_drained_at_once(server):
    is_drained, emptied = run(server)
    assert is_drained
    assert emptied == [0.0]
    assert server.now < 1


def test_empty_queues_are_reported_once_while_workers_compute(server):
    server.queue = lambda: 5 if server.now < 2 else 0
    server.busy = lambda: server.now < 9
    is_drained, emptied = run(server)
    assert is_drained
    assert emptied == [pytest.approx(2, abs=0.2)]
    assert server.now == pytest.approx(9, abs=1)


def test_full_queue_counts_as_empty_after_half_of_the_time(server):
    """Clients with open connections continue to send; once they are rejected, the workers become idle."""
    server.queue = lambda: 100 if server.now < 31 else 0
    server.busy = lambda: server.now < 31
    is_drained, emptied = run(server)
    assert is_drained
    assert emptied == [pytest.approx(30, abs=0.2)]


def test_unfinished_requests_end_the_wait_at_the_deadline(server):
    server.busy = lambda: True
    is_drained, _ = run(server, 5.0)
    assert not is_drained
    assert server.now == pytest.approx(5, abs=0.3)


def test_missing_front_end_ends_the_wait(server, monkeypatch):
    def gone(*_, **__):
        raise client.Unavailable("gone")

    monkeypatch.setattr(drain, "inspect", gone)
    assert run(server) == (True, [])
