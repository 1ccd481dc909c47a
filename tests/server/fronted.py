"""Helpers for the tests of nginx and the gateway."""

from contextlib import contextmanager

from tests.tools import needs
from torchserve_models.client import Endpoints
from torchserve_models.gateway.nginx.config import NginxConfig
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.supervision.edge_supervisor import EdgeSupervisor
from training.images import draw_image

needs_nginx = needs("nginx")
LABEL, IMAGE = draw_image(2024, 5)
SLOW = 2
"""nginx's timeout for slow clients in seconds."""


@contextmanager
def in_front_of(endpoints, settings=None, **changes):
    """Run nginx and the gateway on free ports; `changes` are fields of NginxConfig."""
    anywhere = dict.fromkeys(("http", "grpc", "gateway", "internal"), "127.0.0.1:0")
    with EdgeSupervisor(
        NginxConfig(**anywhere, endpoints=endpoints, client_timeout_s=SLOW, **changes),
        settings or GatewaySettings(),
    ) as running:
        yield running


def through(front, server):
    """Return endpoints that send predictions through nginx, and management calls directly to TorchServe."""
    at = server.endpoints
    return Endpoints(front.url, at.management, at.metrics, front.config.grpc, at.grpc_management)


def error(response, code, kind):
    """Check that a response is this error in the project's format; return its message."""
    body = response.json()
    assert (response.status_code, body["code"], body["type"]) == (code, code, kind), response.text
    assert body["message"] == body["error"]
    assert response.headers["content-type"] == "application/json"
    return body["message"]
