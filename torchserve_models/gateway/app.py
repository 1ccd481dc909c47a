"""The gateway: a small application for what nginx in front of TorchServe cannot do itself."""

import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.core.errors import HandlerError
from torchserve_models.client import AsyncClient, TorchServeError
from torchserve_models.gateway import pages
from torchserve_models.gateway.answers import on_error, refuse
from torchserve_models.gateway.bodies import BodyReader
from torchserve_models.gateway.compat_routes import CompatRoutes
from torchserve_models.gateway.descriptions import Descriptions, ModelDescription
from torchserve_models.gateway.forwarding import ForwardingTransport, forwarded, run_until_disconnect
from torchserve_models.gateway.grpc_inference import GrpcInference
from torchserve_models.gateway.metrics import GatewayMetrics, MetricsMiddleware
from torchserve_models.gateway.open_inference import OpenInference
from torchserve_models.gateway.probes import Probes
from torchserve_models.gateway.readiness import Readiness, polling
from torchserve_models.gateway.settings import TIMEOUT, Settings
from torchserve_models.gateway.slashes import TrailingSlashMiddleware
from torchserve_models.gateway.stopping import Stopping
from torchserve_models.gateway.ttl_cache import TTLCache
from torchserve_models.gateway.unavailable import UnavailableDiagnosis
from torchserve_models.gateway.waiting import ResendingTransport, Waiting

_ANSWERED = (TorchServeError, HandlerError, HTTPException, ClientDisconnect, Exception)
KEY_HEADER = "x-gateway-key"
UPSTREAM = httpx.Limits(max_connections=None, max_keepalive_connections=64)
"""The number of requests is bounded where their bodies are read."""
QUICK = 5.0
"""Seconds for questions to the management API."""
MODELS_REMEMBERED = 10.0


def create(
    settings: Settings, transport: httpx.AsyncBaseTransport | None = None, stopping: Stopping | None = None
) -> Starlette:
    """`settings` say where TorchServe is, which need not be there yet. `transport` replaces httpx's in a test."""
    asking = AsyncClient(endpoints=settings.endpoints, timeout=QUICK, retries=0, transport=transport)
    metrics = GatewayMetrics(settings.state_file)
    bodies = BodyReader(metrics, settings.body_budget, settings.body_timeout)
    refusals = UnavailableDiagnosis(asking)
    descriptions = Descriptions(asking)
    readiness = Readiness(
        settings.health, asking, strict=settings.strict, transport=transport, stopping=stopping
    )
    waiting = Waiting(readiness)
    # Beside what lost its connection or its worker, nothing is sent again here: the client does that.
    plain = transport or httpx.AsyncHTTPTransport(limits=UPSTREAM, trust_env=False)
    forwarding = ForwardingTransport(ResendingTransport(plain, waiting))
    predicting = AsyncClient(
        endpoints=settings.endpoints,
        timeout=TIMEOUT,
        retries=0,
        max_concurrency=None,
        transport=forwarding,
    )
    translating = httpx.AsyncClient(transport=forwarding, timeout=TIMEOUT, trust_env=False)
    metrics.ready.set_function(lambda: float(readiness.server() is None))

    async def ask_all(_: None) -> Sequence[ModelDescription]:
        return await descriptions.all()

    models = TTLCache(ask_all, MODELS_REMEMBERED)

    def check_key(request: Request) -> None:
        """Some routes are for nginx alone."""
        given = request.headers.get(KEY_HEADER, "").encode()
        if settings.key and not hmac.compare_digest(given, settings.key.encode()):
            raise HTTPException(404)

    async def refused(request: Request) -> Response:
        """For nginx, where TorchServe has answered 503."""
        check_key(request)
        model, version = request.path_params["model"], request.path_params.get("version", "")
        length = request.query_params.get("length", "")
        return refuse(await refusals.by_length(model, version, int(length) if length.isdecimal() else 0))

    async def wait(request: Request) -> Response:
        """For nginx, which has lost TorchServe: answers when a request may be sent again, or that it may not.

        After the request's deadline it may not (504).
        """
        check_key(request)
        model, version = request.path_params.get("model", ""), request.path_params.get("version")
        async with forwarded(request):
            ready = await run_until_disconnect(request, waiting.until_ready(model, version or None))
        return Response(status_code=204 if ready else 403)

    async def all_models() -> Sequence[ModelDescription]:
        return await models(None)

    async def server() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, timeout=QUICK, trust_env=False) as http:
            return await http.get(f"{settings.inference}/v2")

    open_inference = OpenInference(descriptions, server)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with polling(readiness):
            yield
        await predicting.close()
        await translating.aclose()
        await asking.close()

    routes = [
        *Probes(readiness).routes(),
        *open_inference.routes(),
        GrpcInference(settings, translating, open_inference, readiness, refusals, bodies, metrics).route(),
        *CompatRoutes(settings, predicting, refusals, bodies, metrics).routes(),
        Route("/refusals/{model}", refused),
        Route("/refusals/{model}/{version:path}", refused),
        Route("/wait", wait),
        Route("/wait/{model}", wait),
        Route("/wait/{model}/{version:path}", wait),
        *pages.routes(all_models, readiness.server, settings),
        metrics.route(),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(TrailingSlashMiddleware),
            Middleware(MetricsMiddleware, metrics=metrics, routes=routes),
        ],
        exception_handlers=dict.fromkeys(_ANSWERED, on_error),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app
