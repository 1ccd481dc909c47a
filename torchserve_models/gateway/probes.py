"""Liveness and readiness routes: Kubernetes' names, the Open Inference Protocol's, KServe's, and TorchServe's /ping.

Each answers at once from what gateway/readiness.py knows. Not ready is 503, as load balancers read the status alone,
with the reason.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchserve_models.gateway.answers import Raw
from torchserve_models.gateway.readiness import Readiness

_TRUE = ("1", "true", "yes", "on", "")


class Probes:
    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def routes(self) -> list[Route]:
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
        """The gateway's own liveness: it answers."""
        return _probe({}, "live", None)

    async def server_live(self, _: Request) -> Response:
        """Whether TorchServe's front end answers."""
        return _probe({}, "live", self._readiness.live())

    async def ready(self, request: Request) -> Response:
        return _probe({}, "ready", self._readiness.server(_strict(request)))

    async def ping(self, request: Request) -> Response:
        """TorchServe's own form of the same question."""
        problem = self._readiness.server(_strict(request))
        body = {"status": "Unhealthy", "reason": problem} if problem else {"status": "Healthy"}
        return Raw(body, 503 if problem else 200)

    async def model_ready(self, request: Request) -> Response:
        return _probe({}, "ready", self._model_problem(request))

    async def named_ready(self, request: Request) -> Response:
        return _probe({"name": request.path_params["model"]}, "ready", self._model_problem(request))

    async def names(self, _: Request) -> Response:
        """KServe's list of models."""
        return Raw({"models": self._readiness.names()})

    def _model_problem(self, request: Request) -> str | None:
        params = request.path_params
        return self._readiness.model(params["model"], params.get("version"), _strict(request))


def _strict(request: Request) -> bool:
    return request.query_params.get("strict", "0").lower() in _TRUE


def _probe(first: dict[str, Any], word: str, problem: str | None) -> Response:
    body = first | {word: problem is None} | ({"reason": problem} if problem else {})
    return Raw(body, 503 if problem else 200)
