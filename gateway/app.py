"""The gateway: a small application for what nginx in front of TorchServe cannot do itself."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from client import AsyncClient, ServeError
from gateway import pages
from gateway.answers import on_error, refuse
from gateway.described import Described, Descriptions
from gateway.open_inference import OpenInference
from gateway.probes import Probes
from gateway.readiness import Readiness, polling
from gateway.refusals import Refusals
from gateway.remembered import Remembered
from gateway.settings import TIMEOUT, Settings
from gateway.translated import Translated
from handlers.core.errors import ServingError

QUICK = 5.0
"""Seconds for questions to the management API."""
MODELS_REMEMBERED = 10.0


def create(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> Starlette:
    """`settings` say where TorchServe is, which need not be there yet. `transport` replaces httpx's in a test."""
    # Nothing is sent again here: the client does that, and each try belongs to somebody who waits.
    predicting = AsyncClient(endpoints=settings.endpoints, timeout=TIMEOUT, retries=0, transport=transport)
    asking = AsyncClient(endpoints=settings.endpoints, timeout=QUICK, retries=0, transport=transport)
    refusals = Refusals(asking)
    descriptions = Descriptions(asking)
    readiness = Readiness(settings.health, asking, strict=settings.strict, transport=transport)

    async def ask_all(_: None) -> Sequence[Described]:
        return await descriptions.all()

    models = Remembered(ask_all, MODELS_REMEMBERED)

    async def refused(request: Request) -> Response:
        """For nginx, where TorchServe has answered 503."""
        model, version = request.path_params["model"], request.path_params["version"]
        length = request.query_params.get("length", "")
        return refuse(await refusals.by_length(model, version, int(length) if length.isdecimal() else 0))

    async def all_models() -> Sequence[Described]:
        return await models(None)

    async def server() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, timeout=QUICK, trust_env=False) as http:
            return await http.get(f"{settings.inference}/v2")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with polling(readiness):
            yield
        await predicting.close()
        await asking.close()

    return Starlette(
        routes=[
            *Probes(readiness).routes(),
            *OpenInference(descriptions, server).routes(),
            *Translated(settings, predicting, refusals).routes(),
            Route("/refusals/{model}/{version:path}", refused),
            *pages.routes(all_models, settings),
        ],
        exception_handlers=dict.fromkeys((ServeError, ServingError, HTTPException, Exception), on_error),
        lifespan=lifespan,
    )
