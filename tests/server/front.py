"""What a client sees in front of TorchServe, without nginx: the gateway's routes, and the rest handed on.

Tests of nginx itself are in test_nginx.py; here only its way of handing on matters.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.app import create
from gateway.settings import Settings

HEADERS = ("content-type", "inference-header-content-length")


def app(inference: str, management: str) -> Starlette:
    gateway = create(Settings(inference=inference, management=management))
    http = httpx.AsyncClient(base_url=inference, timeout=60, trust_env=False)

    async def hand_on(request: Request, path: str, assumed: str = "application/octet-stream") -> Response:
        headers = {name: value for name, value in request.headers.items() if name in HEADERS}
        sent = headers.setdefault("content-type", assumed)
        if sent.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
            headers |= {"content-type": assumed, "x-form-content-type": sent}
        query = f"?{request.url.query}" if request.url.query else ""
        answer = await http.request(
            request.method, f"{path}{query}", content=await request.body(), headers=headers
        )
        kept = {name: value for name, value in answer.headers.items() if name in HEADERS}
        return Response(answer.content, answer.status_code, kept)

    async def predictions(request: Request) -> Response:
        # The route on which TorchServe hands on query parameters.
        return await hand_on(request, f"/models/{request.path_params['model']}/invoke")

    async def pictures(request: Request) -> Response:
        return await hand_on(request, "/models/resnet-50/invoke")

    async def infer(request: Request) -> Response:
        return await hand_on(request, request.url.path, "application/json")

    @asynccontextmanager
    async def lifespan(_: Starlette):
        async with gateway.router.lifespan_context(gateway), http:
            yield

    post = {"methods": ["POST"]}
    routes = [
        Route("/predictions/{model}", predictions, **post),
        Route("/v2/models/{model}/infer", infer, **post),
        Route("/predict", pictures, **post),
        Route("/predict/image_classes", pictures, **post),
        *gateway.routes,
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=gateway.exception_handlers)


@contextmanager
def in_front_of(inference: str, management: str) -> Iterator[str]:
    """Its address."""
    server = uvicorn.Server(uvicorn.Config(app(inference, management), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        (socket,) = server.servers[0].sockets
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
