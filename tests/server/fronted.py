"""What the tests of nginx and the gateway share: addresses, a front of the server under test, errors."""

from contextlib import contextmanager

from tests.tools import needs
from torchserve_models.client import Endpoints
from torchserve_models.gateway.front import Running
from torchserve_models.gateway.nginx import NginxConfig
from torchserve_models.gateway.settings import Settings
from training.images import draw_image

needs_nginx = needs("nginx")
LABEL, IMAGE = draw_image(2024, 5)
SLOW = 2  # seconds that a slow client gets


@contextmanager
def in_front_of(endpoints, settings=None, **changes):
    """nginx and the gateway on free ports."""
    anywhere = dict.fromkeys(("http", "grpc", "gateway", "internal"), "127.0.0.1:0")
    with Running(
        NginxConfig(**anywhere, endpoints=endpoints, client_timeout=SLOW, **changes), settings or Settings()
    ) as running:
        yield running


def through(front, server):
    """Predictions through nginx, management as it is."""
    at = server.endpoints
    return Endpoints(front.url, at.management, at.metrics, front.front.grpc, at.grpc_management)


def error(response, code, kind):
    """Checks that it is this error in the project's form; its message."""
    body = response.json()
    assert (response.status_code, body["code"], body["type"]) == (code, code, kind), response.text
    assert body["message"] == body["error"]
    assert response.headers["content-type"] == "application/json"
    return body["message"]
