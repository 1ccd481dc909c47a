"""The Open Inference gRPC service under its standard name, which clients of KServe and Triton call.

TorchServe's service has a different name and drops some fields. nginx forwards the calls over HTTP/1.1, see
grpc_framing.py. ModelInfer is translated to a REST request; the other methods return the content of REST routes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from google.protobuf.message import DecodeError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.core.deadline import TIMEOUT_HEADER, format_timeout
from handlers.core.errors import HandlerError, InvalidRequest
from handlers.core.open_inference_response import HEADER_LENGTH
from torchserve_models.client import Timeout, TorchServeError, Unavailable
from torchserve_models.client.call_types import import_stubs
from torchserve_models.client.error_conversion import error_from_body
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.gateway.grpc import grpc_framing
from torchserve_models.gateway.grpc.grpc_framing import FRAME_BYTES, GrpcStatus
from torchserve_models.gateway.grpc.translation import RestRequest, to_grpc, to_rest
from torchserve_models.gateway.keys.admission import Admission
from torchserve_models.gateway.metrics import GatewayMetrics
from torchserve_models.gateway.open_inference import OpenInferenceMetadata
from torchserve_models.gateway.readiness_poller import ReadinessPoller
from torchserve_models.gateway.request_bodies.reader import BodyReader
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.upstream.forwarding import forward_context, run_until_disconnect
from torchserve_models.gateway.upstream.unavailable_diagnosis import UnavailableDiagnosis

SERVICE = "inference.GRPCInferenceService"
COPIES = 3
"""Peak memory of a message in multiples of its size: the frame, the parsed message, and the body for TorchServe."""
MAX_QUERY_BYTES = 64 * 2**10
"""Limit for the messages of the health and metadata methods."""
logger = logging.getLogger(__name__)

Method = Callable[[Any], Awaitable[Any]]


class GrpcInferenceService:
    """The HTTP route of the gRPC service."""

    def __init__(
        self,
        settings: GatewaySettings,
        http: httpx.AsyncClient,
        open_inference: OpenInferenceMetadata,
        readiness: ReadinessPoller,
        diagnosis: UnavailableDiagnosis,
        bodies: BodyReader,
        metrics: GatewayMetrics,
        admission: Admission | None = None,
    ) -> None:
        """Create the service.

        Args:
            settings: TorchServe's address.
            http: Sends requests to TorchServe with the headers of the request that is being processed.
            open_inference: Returns the metadata of the server and its models.
            readiness: Returns the readiness of the server and its models.
            diagnosis: Finds the reason for a 503 response.
            bodies: Reads request bodies.
            metrics: Counts rejected bodies.
            admission: Checks whether an API key may use a model; None for no keys.
        """
        self._settings = settings
        self._http = http
        self._open_inference = open_inference
        self._readiness = readiness
        self._diagnosis = diagnosis
        self._bodies = bodies
        self._metrics = metrics
        self._admission = admission
        self._parsing = asyncio.Semaphore(1)
        self._methods: dict[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
        }

    def route(self) -> Route:
        return Route(f"/{SERVICE}/{{method}}", self.call, methods=["POST"])

    async def call(self, request: Request) -> Response:
        """Call a method of the service. Errors become gRPC statuses."""
        name = request.path_params["method"]
        try:
            request = _with_deadline(request)
            async with forward_context(request):
                if name == "ModelInfer":
                    return await self._infer(request)
                if name in self._methods:
                    return await self._query(name, request)
            return grpc_framing.status_response(GrpcStatus.UNIMPLEMENTED, f"unknown method {name[:60]}")
        except ClientDisconnect:
            raise
        except (HandlerError, TorchServeError, HTTPException) as error:
            return grpc_framing.error_response(error)
        except Exception as error:
            logger.exception("gRPC call failed")
            return grpc_framing.error_response(error)

    async def _infer(self, request: Request) -> Response:
        encoding = request.headers.get("grpc-encoding", "")
        max_bytes = MAX_MESSAGE_BYTES

        def size_of(body: bytearray) -> int:
            return grpc_framing.message_size(body, encoding)

        def translate(body: bytearray) -> RestRequest:
            return to_rest(grpc_framing.read_frame(body, encoding), max_bytes)

        async with self._bodies.read(request, max_bytes + FRAME_BYTES, COPIES, size_of) as body:
            rest_request = await self._translate(translate, body)
            if self._admission:
                self._admission.check_model(request, rest_request.model)
            message = await run_until_disconnect(request, self._send(rest_request))
        return grpc_framing.message_response(message)

    async def _translate(self, translate: Callable[[bytearray], RestRequest], body: bytearray) -> RestRequest:
        """Translate in a thread, one message at a time, because parsing takes memory and the interpreter lock."""
        async with self._parsing:
            try:
                return await run_in_threadpool(translate, body)
            except (HandlerError, TorchServeError):
                self._metrics.count_rejected("invalid")
                raise
            finally:
                body.clear()

    async def _send(self, rest_request: RestRequest) -> bytes:
        """Return TorchServe's response as a serialized ModelInferResponse. Raises TorchServeError."""
        headers = {HEADER_LENGTH: str(rest_request.header_length), "Content-Type": "application/octet-stream"}
        try:
            response = await self._http.post(
                f"{self._settings.inference}{rest_request.path}", content=rest_request.body, headers=headers
            )
        except httpx.TimeoutException as error:
            raise Timeout("TorchServe did not answer in time") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"TorchServe does not answer: {error or type(error).__name__}") from error
        if response.status_code != 200:
            failure = error_from_body(response.status_code, response.content)
            raise await self._diagnosis.diagnose_error(rest_request.model, failure)
        return to_grpc(response.headers.get(HEADER_LENGTH, ""), response.content, rest_request.raw)

    async def _query(self, name: str, request: Request) -> Response:
        module = import_stubs("open_inference_grpc")
        async with self._bodies.read(request, MAX_QUERY_BYTES, 2) as body:
            content = grpc_framing.read_frame(body, request.headers.get("grpc-encoding", ""))
        try:
            message = getattr(module, f"{name}Request").FromString(content)
        except DecodeError:
            raise InvalidRequest(f"the message is not a {name}Request") from None
        if self._admission and name == "ModelMetadata":
            self._admission.check_model(request, message.name)
        response = getattr(module, f"{name}Response")(**await self._methods[name](message))
        return grpc_framing.message_response(response.SerializeToString())

    async def _server_live(self, _: Any) -> dict[str, Any]:
        return {"live": self._readiness.live_problem() is None}

    async def _server_ready(self, _: Any) -> dict[str, Any]:
        return {"ready": self._readiness.server_problem() is None}

    async def _model_ready(self, message: Any) -> dict[str, Any]:
        """Return False for an unknown model."""
        try:
            return {"ready": self._readiness.model_problem(message.name, message.version or None) is None}
        except TorchServeError:
            return {"ready": False}

    async def _server_metadata(self, _: Any) -> dict[str, Any]:
        return await self._open_inference.server_metadata()

    async def _model_metadata(self, message: Any) -> dict[str, Any]:
        """Return the metadata without an input's additional datatypes, for which TensorMetadata has no field."""
        metadata = await self._open_inference.model_metadata(message.name, message.version or None)
        tensors = {
            key: [{name: tensor[name] for name in ("name", "datatype", "shape")} for tensor in metadata[key]]
            for key in ("inputs", "outputs")
        }
        return {key: metadata[key] for key in ("name", "versions", "platform")} | tensors


def _with_deadline(request: Request) -> Request:
    """Return the request with the call's deadline in the header X-Request-Timeout. Raises InvalidParameter."""
    timeout = request.headers.get("grpc-timeout")
    if timeout is None:
        return request
    name = TIMEOUT_HEADER.encode()
    headers = [pair for pair in request.scope["headers"] if pair[0] != name]
    headers.append((name, format_timeout(grpc_framing.parse_timeout_s(timeout)).encode()))
    return Request({**request.scope, "headers": headers}, request.receive)
