"""What all methods share: deadlines, reading the message within the memory budget, and errors as statuses."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.core.deadline import TIMEOUT_HEADER, format_timeout
from handlers.core.errors import HandlerError, InvalidRequest
from torchserve_models.client import TorchServeError
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.gateway.grpc import grpc_framing
from torchserve_models.gateway.grpc.grpc_framing import FRAME_BYTES, GrpcStatus
from torchserve_models.gateway.grpc.rest_calls import RestRequest
from torchserve_models.gateway.keys.admission import Admission
from torchserve_models.gateway.metrics import GatewayMetrics
from torchserve_models.gateway.request_bodies.reader import BodyReader
from torchserve_models.gateway.upstream.forwarding import forward_context

COPIES = 3
"""Peak memory of a message in multiples of its size: the frame, the parsed message, and the body for TorchServe."""
SMALL_MESSAGE_BYTES = 4096
"""Messages up to this size are translated at once, because changing to a thread takes longer."""
MAX_QUERY_BYTES = 64 * 2**10
"""Limit for the messages of the health and metadata methods."""
logger = logging.getLogger(__name__)

T = TypeVar("T", bound=RestRequest)
Method = Callable[[Request], Awaitable[Response]]


class GrpcCalls:
    """Reader of the calls of all services."""

    def __init__(
        self, bodies: BodyReader, metrics: GatewayMetrics, admission: Admission | None = None
    ) -> None:
        """
        Args:
            bodies: Reads request bodies.
            metrics: Counts rejected bodies.
            admission: Checks whether an API key may use a model; None for no keys.
        """
        self._bodies = bodies
        self._metrics = metrics
        self._admission = admission
        self._parsing = asyncio.Semaphore(1)

    def route(self, service: str, methods: Mapping[str, Method]) -> Route:
        """Return the HTTP route of a service. Errors of its methods become gRPC statuses."""

        async def call(request: Request) -> Response:
            name = request.path_params["method"]
            if name not in methods:
                return grpc_framing.status_response(GrpcStatus.UNIMPLEMENTED, f"unknown method {name[:60]}")
            try:
                request = _with_deadline(request)
                async with forward_context(request):
                    return await methods[name](request)
            except ClientDisconnect:
                raise
            except (HandlerError, TorchServeError, HTTPException) as error:
                return grpc_framing.error_response(error)
            except Exception as error:
                logger.exception("gRPC call failed")
                return grpc_framing.error_response(error)

        return Route(f"/{service}/{{method}}", call, methods=["POST"])

    @asynccontextmanager
    async def read_prediction(
        self, request: Request, translate: Callable[[bytes, int], T]
    ) -> AsyncIterator[T]:
        """Return the translated message. Its part of the memory budget is freed when the context ends.

        Args:
            request: The call.
            translate: Translates a serialized message, with the limit for the result in bytes.

        Raises:
            HandlerError: The message is invalid or too large.
            TorchServeError: There is no memory for the message (429), no model can have its name, or the API key may
                not use the model.
        """
        encoding = request.headers.get("grpc-encoding", "")

        def size_of(body: bytearray) -> int:
            return grpc_framing.message_size(body, encoding)

        def parse(body: bytearray) -> T:
            return translate(grpc_framing.read_frame(body, encoding), MAX_MESSAGE_BYTES)

        async with self._bodies.read(request, MAX_MESSAGE_BYTES + FRAME_BYTES, COPIES, size_of) as body:
            prediction = await self._translate(parse, body)
            self.check_model(request, prediction.model)
            yield prediction

    def check_model(self, request: Request, model: str) -> None:
        """Raise AccessDenied if the API key of the call may not use the model."""
        if self._admission:
            self._admission.check_model(request, model)

    async def read_query(self, request: Request, message_type: type[Message]) -> Any:
        """Return the message of a health or metadata method. Raises InvalidRequest."""
        async with self._bodies.read(request, MAX_QUERY_BYTES, 2) as body:
            content = grpc_framing.read_frame(body, request.headers.get("grpc-encoding", ""))
        try:
            return message_type.FromString(content)
        except DecodeError:
            raise InvalidRequest(f"the message is not a {message_type.DESCRIPTOR.name}") from None

    async def _translate(self, parse: Callable[[bytearray], T], body: bytearray) -> T:
        """Translate large messages in a thread, one at a time, because that takes memory and the interpreter lock."""
        try:
            if len(body) <= SMALL_MESSAGE_BYTES and not body.startswith(b"\1"):
                return parse(body)
            async with self._parsing:
                return await run_in_threadpool(parse, body)
        except (HandlerError, TorchServeError):
            self._metrics.count_rejected("invalid")
            raise
        finally:
            body.clear()


def _with_deadline(request: Request) -> Request:
    """Return the request with the call's deadline in the header X-Request-Timeout. Raises InvalidParameter."""
    timeout = request.headers.get("grpc-timeout")
    if timeout is None:
        return request
    name = TIMEOUT_HEADER.encode()
    headers = [pair for pair in request.scope["headers"] if pair[0] != name]
    headers.append((name, format_timeout(grpc_framing.parse_timeout_s(timeout)).encode()))
    return Request({**request.scope, "headers": headers}, request.receive)
