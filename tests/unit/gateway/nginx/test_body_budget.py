"""The body budget in the metrics of the supervisor's health server."""

import socket

import pytest

from tests.unit.serving.health.test_http_server import FakeMonitor
from torchserve_models.gateway.nginx.body_budget import supervised_body_bytes
from torchserve_models.serving.health.http_server import HealthServer
from torchserve_models.serving.metrics import MEMORY_BUDGET
from torchserve_models.serving.run_config.memory_budget import GIB, compute_budget


@pytest.fixture
def health():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = HealthServer("127.0.0.1", port, FakeMonitor())
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.close()
    MEMORY_BUDGET.clear()


@pytest.mark.parametrize("gib", [1, 3, 8, 64])
def test_budget_matches_the_memory_of_the_container(health, gib):
    budget = compute_budget(gib * GIB, has_edge=False)
    for part, size in budget.parts().items():
        MEMORY_BUDGET.labels(part).set(size)
    assert supervised_body_bytes(health) == budget.body_bytes


def test_missing_metric_gives_no_budget(health):
    MEMORY_BUDGET.clear()
    assert supervised_body_bytes(health) is None


def test_unreachable_supervisor_gives_no_budget():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert supervised_body_bytes(f"http://127.0.0.1:{port}") is None
