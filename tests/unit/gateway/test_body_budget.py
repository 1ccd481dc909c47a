"""The body budget of TorchServe's supervisor, asked of its real health server."""

import socket

import pytest

from tests.unit.serving.health.test_http_server import FakeMonitor
from torchserve_models.gateway.body_budget import supervised_body_bytes
from torchserve_models.serving.health.http_server import HealthServer
from torchserve_models.serving.metrics import MEMORY_BUDGET
from torchserve_models.serving.run_config.memory_budget import GIB, compute_budget


@pytest.fixture
def health():
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    server = HealthServer("127.0.0.1", port, FakeMonitor())
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.close()
    MEMORY_BUDGET.clear()


@pytest.mark.parametrize("gib", [1, 3, 8, 64])
def test_it_is_what_the_supervisor_computed_for_its_container(health, gib):
    budget = compute_budget(gib * GIB, has_edge=False)
    for part, size in budget.parts().items():
        MEMORY_BUDGET.labels(part).set(size)
    assert supervised_body_bytes(health) == budget.body_bytes


def test_a_supervisor_that_has_not_told_it_yet(health):
    MEMORY_BUDGET.clear()
    assert supervised_body_bytes(health) is None


def test_where_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    assert supervised_body_bytes(f"http://127.0.0.1:{port}") is None
