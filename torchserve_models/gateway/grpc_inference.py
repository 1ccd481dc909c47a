"""The Open Inference gRPC service under its own name, which KServe's and Triton's clients call.

TorchServe offers it under a name of its own, and drops fields. nginx hands the calls on over HTTP/1.1 (grpc_wire.py);
ModelInfer becomes a request over REST, the other methods answer as the gateway's routes do.
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
from handlers.core.open_inference import HEADER_LENGTH
from torchserve_models.client import Timeout, TorchServeError, Unavailable
from torchserve_models.client.calls import stubs
from torchserve_models.client.errors import from_body
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.gateway import grpc_wire
from torchserve_models.gateway.bodies import BodyReader
from torchserve_models.gateway.forwarding import forwarded, run_until_disconnect
from torchserve_models.gateway.grpc_translation import RestRequest, to_grpc, to_rest
from torchserve_models.gateway.grpc_wire import FRAME_BYTES, Status
from torchserve_models.gateway.metrics import GatewayMetrics
from torchserve_models.gateway.open_inference import OpenInference
from torchserve_models.gateway.readiness import Readiness
from torchserve_models.gateway.settings import Settings
from torchserve_models.gateway.unavailable import UnavailableDiagnosis

SERVICE = "inference.GRPCInferenceService"
COPIES = 3
"""Peak memory of a message in multiples of its size: its frame, its parsed form, and the body for TorchServe."""
MAX_SMALL_BYTES = 64 * 2**10
"""Of the messages that ask for health or metadata."""
logger = logging.getLogger(__name__)

Method = Callable[[Any], Awaitable[Any]]


class GrpcInference:
    def __init__(
        self,
        settings: Settings,
        http: httpx.AsyncClient,
        open_inference: OpenInference,
        readiness: Readiness,
        refusals: UnavailableDiagnosis,
        bodies: BodyReader,
        metrics: GatewayMetrics,
    ) -> None:
        """`http` sends to TorchServe, and adds the headers of the request that is being answered."""
        self._settings = settings
        self._http = http
        self._open_inference = open_inference
        self._readiness = readiness
        self._refusals = refusals
        self._bodies = bodies
        self._metrics = metrics
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
        """Any method of the service; errors are gRPC statuses."""
        name = request.path_params["method"]
        try:
            request = _with_deadline(request)
            async with forwarded(request):
                if name == "ModelInfer":
                    return await self._infer(request)
                if name in self._methods:
                    return await self._ask(name, request)
            return grpc_wire.refuse(Status.UNIMPLEMENTED, f"there is no method {name[:60]} here")
        except ClientDisconnect:
            raise
        except (HandlerError, TorchServeError, HTTPException) as error:
            return grpc_wire.failure(error)
        except Exception as error:
            logger.exception("a gRPC call failed")
            return grpc_wire.failure(error)

    async def _infer(self, request: Request) -> Response:
        encoding = request.headers.get("grpc-encoding", "")
        max_bytes = MAX_MESSAGE_BYTES

        def size_of(body: bytearray) -> int:
            return grpc_wire.message_size(body, encoding)

        def translate(body: bytearray) -> RestRequest:
            return to_rest(grpc_wire.read_frame(body, encoding), max_bytes)

        async with self._bodies.read(request, max_bytes + FRAME_BYTES, COPIES, size_of) as body:
            rest = await self._translate(translate, body)
            answer = await run_until_disconnect(request, self._send(rest))
        return grpc_wire.answer(answer)

    async def _translate(self, translate: Callable[[bytearray], RestRequest], body: bytearray) -> RestRequest:
        """One message at a time, in a thread: parsing takes memory and the interpreter."""
        async with self._parsing:
            try:
                return await run_in_threadpool(translate, body)
            except (HandlerError, TorchServeError):
                self._metrics.refuse("invalid")
                raise
            finally:
                body.clear()

    async def _send(self, rest: RestRequest) -> bytes:
        """The serialized answer of TorchServe. Raises TorchServeError."""
        headers = {HEADER_LENGTH: str(rest.header_length), "Content-Type": "application/octet-stream"}
        try:
            response = await self._http.post(
                f"{self._settings.inference}{rest.path}", content=rest.body, headers=headers
            )
        except httpx.TimeoutException as error:
            raise Timeout("TorchServe did not answer in time") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"TorchServe does not answer: {error or type(error).__name__}") from error
        if response.status_code != 200:
            refusal = from_body(response.status_code, response.content)
            raise await self._refusals.by_error(rest.model, refusal)
        return to_grpc(response.headers.get(HEADER_LENGTH, ""), response.content, rest.raw)

    async def _ask(self, name: str, request: Request) -> Response:
        module = stubs("open_inference_grpc")
        async with self._bodies.read(request, MAX_SMALL_BYTES, 2) as body:
            content = grpc_wire.read_frame(body, request.headers.get("grpc-encoding", ""))
        try:
            message = getattr(module, f"{name}Request").FromString(content)
        except DecodeError:
            raise InvalidRequest(f"the message is not a {name}Request") from None
        response = getattr(module, f"{name}Response")(**await self._methods[name](message))
        return grpc_wire.answer(response.SerializeToString())

    async def _server_live(self, _: Any) -> dict[str, Any]:
        return {"live": self._readiness.live() is None}

    async def _server_ready(self, _: Any) -> dict[str, Any]:
        return {"ready": self._readiness.server() is None}

    async def _model_ready(self, message: Any) -> dict[str, Any]:
        """False for a model that is not served, as over REST."""
        try:
            return {"ready": self._readiness.model(message.name, message.version or None) is None}
        except TorchServeError:
            return {"ready": False}

    async def _server_metadata(self, _: Any) -> dict[str, Any]:
        return await self._open_inference.server_metadata()

    async def _model_metadata(self, message: Any) -> dict[str, Any]:
        """TensorMetadata has no parameters; datatypes that an input takes besides are told over REST alone."""
        metadata = await self._open_inference.model_metadata(message.name, message.version or None)
        tensors = {
            key: [{name: tensor[name] for name in ("name", "datatype", "shape")} for tensor in metadata[key]]
            for key in ("inputs", "outputs")
        }
        return {key: metadata[key] for key in ("name", "versions", "platform")} | tensors


def _with_deadline(request: Request) -> Request:
    """The same request, with the call's deadline as the header that TorchServe's workers know.

    Raises InvalidParameter.
    """
    timeout = request.headers.get("grpc-timeout")
    if timeout is None:
        return request
    name = TIMEOUT_HEADER.encode()
    headers = [pair for pair in request.scope["headers"] if pair[0] != name]
    headers.append((name, format_timeout(grpc_wire.seconds_of(timeout)).encode()))
    return Request({**request.scope, "headers": headers}, request.receive)
