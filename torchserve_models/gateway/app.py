"""The gateway application: routes and responses that nginx cannot provide."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from handlers.core.errors import HandlerError
from torchserve_models.client import AsyncClient, TorchServeError
from torchserve_models.gateway import docs_pages
from torchserve_models.gateway.compat_routes import CompatRoutes
from torchserve_models.gateway.grpc.form_support import FormSupport
from torchserve_models.gateway.grpc.grpc_calls import GrpcCalls
from torchserve_models.gateway.grpc.inference_service import GrpcInferenceService
from torchserve_models.gateway.grpc.predictions_service import PredictionsService
from torchserve_models.gateway.grpc.rest_calls import RestCalls
from torchserve_models.gateway.grpc.standard_services import run_standard_services
from torchserve_models.gateway.internal_routes import InternalRoutes
from torchserve_models.gateway.keys.admission import Admission
from torchserve_models.gateway.keys.key_store import KeyStore
from torchserve_models.gateway.metrics import GatewayMetrics, MetricsMiddleware
from torchserve_models.gateway.open_inference import OpenInferenceMetadata
from torchserve_models.gateway.probes import ProbeRoutes
from torchserve_models.gateway.readiness_poller import ReadinessPoller, run_in_background
from torchserve_models.gateway.request_bodies.reader import BodyReader
from torchserve_models.gateway.response_cache.response_cache import ResponseCache
from torchserve_models.gateway.responses import handle_error
from torchserve_models.gateway.settings import PREDICTION_TIMEOUT_S, GatewaySettings
from torchserve_models.gateway.shutdown import ShutdownFlag
from torchserve_models.gateway.trailing_slash import TrailingSlashMiddleware
from torchserve_models.gateway.ttl_cache import TTLCache
from torchserve_models.gateway.upstream.balancing_transport import BalancingTransport
from torchserve_models.gateway.upstream.forwarding import ForwardingTransport
from torchserve_models.gateway.upstream.keep_alive_transport import KeepAliveTransport
from torchserve_models.gateway.upstream.model_descriptions import ModelDescription, ModelDescriptions
from torchserve_models.gateway.upstream.retry_transport import RecoveryWaiter, RetryTransport
from torchserve_models.gateway.upstream.unavailable_diagnosis import UnavailableDiagnosis

_HANDLED_ERRORS = (TorchServeError, HandlerError, HTTPException, ClientDisconnect, Exception)
MANAGEMENT_TIMEOUT_S = 5.0
MODEL_LIST_TTL_S = 10.0


def create_app(
    settings: GatewaySettings,
    transport: httpx.AsyncBaseTransport | None = None,
    shutdown: ShutdownFlag | None = None,
) -> Starlette:
    """Create the application. TorchServe does not have to run yet.

    Args:
        settings: TorchServe's addresses, the models behind the compatibility routes, and limits.
        transport: Replaces httpx's transport in tests.
        shutdown: Makes every readiness probe fail once the shutdown has begun.
    """
    shutdown = shutdown or ShutdownFlag()
    management_client = AsyncClient(
        endpoints=settings.endpoints, timeout=MANAGEMENT_TIMEOUT_S, retries=0, transport=transport
    )
    metrics = GatewayMetrics(settings.state_file)
    bodies = BodyReader(metrics, settings.body_budget_bytes, settings.body_timeout_s)
    diagnosis = UnavailableDiagnosis(management_client)
    descriptions = ModelDescriptions(management_client)
    readiness = ReadinessPoller(
        settings.health, management_client, strict=settings.strict, transport=transport, shutdown=shutdown
    )
    recovery = RecoveryWaiter(readiness)
    # The gateway only retries requests that lost their connection or their worker; clients retry everything else.
    # Connections are not limited: BodyReader limits the requests in progress.
    upstream = transport or KeepAliveTransport()
    servers = [settings.inference, *settings.others]
    balanced = BalancingTransport(upstream, servers) if settings.others else upstream
    forwarding = ForwardingTransport(RetryTransport(balanced, recovery))
    prediction_client = AsyncClient(
        endpoints=settings.endpoints,
        timeout=PREDICTION_TIMEOUT_S,
        retries=0,
        max_concurrency=None,
        transport=forwarding,
    )
    admission = None
    if settings.key_file is not None:
        store = KeyStore(settings.key_file)
        admission = Admission(store, settings.summarizers, settings.key, metrics.registry)
    calls = GrpcCalls(bodies, metrics, admission)
    rest = RestCalls(forwarding, settings.inference, diagnosis)
    metrics.ready.set_function(lambda: float(readiness.server_problem() is None))

    async def describe_all(_: None) -> Sequence[ModelDescription]:
        return await descriptions.fetch_all()

    model_list = TTLCache(describe_all, MODEL_LIST_TTL_S)

    async def models() -> Sequence[ModelDescription]:
        return await model_list(None)

    async def fetch_server_metadata() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=transport, timeout=MANAGEMENT_TIMEOUT_S, trust_env=False
        ) as http:
            return await http.get(f"{settings.inference}/v2")

    cache = ResponseCache(settings, metrics.registry, upstream) if settings.cache_bytes else None
    open_inference = OpenInferenceMetadata(descriptions, fetch_server_metadata)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            await running.enter_async_context(run_in_background(readiness))
            if settings.grpc_listen:
                services = run_standard_services(settings.grpc_listen, readiness, shutdown)
                await running.enter_async_context(services)
            yield
        await prediction_client.close()
        await management_client.close()
        if cache:
            cache.close()

    routes = [
        # First, because looking for a route takes time.
        *(admission.routes() if admission else ()),
        *(cache.routes() if cache else ()),
        *ProbeRoutes(readiness).routes(),
        *open_inference.routes(),
        PredictionsService(calls, rest, FormSupport(open_inference.model_metadata), readiness).route(),
        *GrpcInferenceService(calls, rest, open_inference, readiness).routes(),
        *CompatRoutes(settings, prediction_client, diagnosis, bodies, metrics).routes(),
        *InternalRoutes(settings.key, diagnosis, recovery).routes(),
        *docs_pages.routes(models, readiness.server_problem, settings),
        metrics.route(),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(TrailingSlashMiddleware),
            Middleware(MetricsMiddleware, metrics=metrics, routes=routes),
        ],
        exception_handlers=dict.fromkeys(_HANDLED_ERRORS, handle_error),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app
