"""The gateway's Prometheus metrics and the route that serves them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchserve_models.gateway.responses import CLIENT_CLOSED_REQUEST

PATH = "/gateway/metrics"
OTHER = "other"
"""The route label of all unknown paths. Clients choose them, so they cannot be labels themselves."""


class GatewayMetrics:
    """The metrics of one application, in a separate registry so that tests do not share counters."""

    def __init__(self, state_file: Path | None = None) -> None:
        """Create the metrics.

        Args:
            state_file: The file to which scripts/gateway, the supervising process, writes its restart counts.
        """
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gateway_requests_total",
            "Responses, by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "gateway_requests_in_progress", "Requests that are being processed.", registry=self.registry
        )
        self.refused_bodies = Counter(
            "gateway_refused_bodies_total",
            "Rejected request bodies, by reason: busy, slow, too_large, invalid.",
            ["reason"],
            registry=self.registry,
        )
        self.body_bytes = Gauge(
            "gateway_body_bytes", "Bytes of memory reserved for request bodies.", registry=self.registry
        )
        self.ready = Gauge("gateway_ready", "1 while /readyz returns 200, else 0.", registry=self.registry)
        for reason in ("busy", "slow", "too_large", "invalid"):
            self.refused_bodies.labels(reason)
        if state_file is not None:
            self.registry.register(_Restarts(state_file))

    def count_rejected(self, reason: str) -> None:
        """Count a rejected body."""
        self.refused_bodies.labels(reason).inc()

    def route(self) -> Route:
        async def metrics(_: Request) -> Response:
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

        return Route(PATH, metrics)


class MetricsMiddleware:
    """Middleware that counts responses by the path of their route."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, routes: Iterable[Route]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = {route.endpoint: route.path for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_CLOSED_REQUEST

        async def count_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_progress.inc()
        try:
            await self._app(scope, receive, count_status)
        except Exception:
            status = 500
            raise
        finally:
            self._metrics.in_progress.dec()
            route = self._paths.get(scope["endpoint"], OTHER) if "endpoint" in scope else OTHER
            self._metrics.requests.labels(route, str(status)).inc()


class _Restarts(Collector):
    """Restarts of the gateway and nginx, which scripts/gateway counts in another process."""

    def __init__(self, state_file: Path) -> None:
        self._state_file = state_file

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "gateway_process_restarts",
            "Restarts of the gateway and of nginx by scripts/gateway, by process and reason.",
            labels=["process", "reason"],
        )
        try:
            state = json.loads(self._state_file.read_bytes())
            for process, reasons in state["restarts"].items():
                for reason, count in reasons.items():
                    family.add_metric([process, reason], count)
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return  # not written yet
        yield family
