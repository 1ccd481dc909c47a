"""Liveness and readiness routes: Kubernetes' names, the Open Inference Protocol's, KServe's, and TorchServe's /ping.

Each route responds at once with the state that readiness_poller.py polled last. A negative answer has the status 503,
because load balancers only read the status, and contains the reason.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchserve_models.gateway.readiness_poller import ReadinessPoller
from torchserve_models.gateway.responses import UnicodeJSONResponse

_TRUE = ("1", "true", "yes", "on", "")


class ProbeRoutes:
    """The probe routes, answered from a ReadinessPoller."""

    def __init__(self, poller: ReadinessPoller) -> None:
        self._poller = poller

    def routes(self) -> list[Route]:
        """Return the Starlette routes."""
        return [
            Route("/livez", self.live),
            Route("/readyz", self.ready),
            Route("/readyz/{model}", self.model_ready),
            Route("/readyz/{model}/{version}", self.model_ready),
            Route("/ping", self.ping),
            Route("/v2/health/live", self.server_live),
            Route("/v2/health/ready", self.ready),
            Route("/v1/models", self.names),
            Route("/v1/models/{model}", self.named_ready),
            Route("/v2/models/{model}/ready", self.named_ready),
            Route("/v2/models/{model}/versions/{version}/ready", self.named_ready),
        ]

    async def live(self, _: Request) -> Response:
        """Respond that the gateway runs."""
        return _probe({}, "live", None)

    async def server_live(self, _: Request) -> Response:
        """Respond whether TorchServe's front end answers."""
        return _probe({}, "live", self._poller.live_problem())

    async def ready(self, request: Request) -> Response:
        """Respond whether the server is ready."""
        return _probe({}, "ready", self._poller.server_problem(_is_strict(request)))

    async def ping(self, request: Request) -> Response:
        """Respond whether the server is ready, in the form of TorchServe's /ping."""
        problem = self._poller.server_problem(_is_strict(request))
        body = {"status": "Unhealthy", "reason": problem} if problem else {"status": "Healthy"}
        return UnicodeJSONResponse(body, 503 if problem else 200)

    async def model_ready(self, request: Request) -> Response:
        """Respond whether a model is ready."""
        return _probe({}, "ready", self._model_problem(request))

    async def named_ready(self, request: Request) -> Response:
        """Respond whether a model is ready, with its name."""
        return _probe({"name": request.path_params["model"]}, "ready", self._model_problem(request))

    async def names(self, _: Request) -> Response:
        """Respond with KServe's list of models."""
        return UnicodeJSONResponse({"models": self._poller.model_names()})

    def _model_problem(self, request: Request) -> str | None:
        params = request.path_params
        return self._poller.model_problem(params["model"], params.get("version"), _is_strict(request))


def _is_strict(request: Request) -> bool:
    return request.query_params.get("strict", "0").lower() in _TRUE


def _probe(fields: dict[str, Any], name: str, problem: str | None) -> Response:
    """Return the response to a probe: `fields`, the boolean `name`, and the reason if it is false."""
    body = fields | {name: problem is None} | ({"reason": problem} if problem else {})
    return UnicodeJSONResponse(body, 503 if problem else 200)
