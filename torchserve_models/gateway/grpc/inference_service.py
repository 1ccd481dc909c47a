"""The Open Inference gRPC service, under its standard name and under TorchServe's.

Clients of KServe and Triton call the standard name. TorchServe's own service drops some fields and returns constants
for health. nginx forwards the calls over HTTP/1.1, see grpc_framing.py. ModelInfer is translated to a REST request,
and the other methods return the content of REST routes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.core.open_inference_response import HEADER_LENGTH
from torchserve_models.client import TorchServeError
from torchserve_models.client.call_types import import_stubs
from torchserve_models.gateway.grpc import grpc_framing
from torchserve_models.gateway.grpc.grpc_calls import GrpcCalls, Method
from torchserve_models.gateway.grpc.rest_calls import RestCalls
from torchserve_models.gateway.grpc.translation import InferRequest, to_grpc, to_rest
from torchserve_models.gateway.open_inference import OpenInferenceMetadata
from torchserve_models.gateway.readiness_poller import ReadinessPoller
from torchserve_models.gateway.upstream.forwarding import run_until_disconnect

SERVICE = "inference.GRPCInferenceService"
TORCHSERVE_SERVICE = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"

Query = Callable[[Any], Awaitable[dict[str, Any]]]


class GrpcInferenceService:
    """The HTTP routes of the gRPC service."""

    def __init__(
        self,
        calls: GrpcCalls,
        rest: RestCalls,
        open_inference: OpenInferenceMetadata,
        readiness: ReadinessPoller,
    ) -> None:
        """Create the service.

        Args:
            calls: Reads the messages.
            rest: Sends predictions to TorchServe.
            open_inference: Returns the metadata of the server and its models.
            readiness: Returns the readiness of the server and its models.
        """
        self._calls = calls
        self._rest = rest
        self._open_inference = open_inference
        self._readiness = readiness

    def routes(self) -> list[Route]:
        queries = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
        }
        methods = {name: self._query(name, query) for name, query in queries.items()}
        return [
            self._calls.route(SERVICE, methods | {"ModelInfer": self._infer}),
            self._calls.route(TORCHSERVE_SERVICE, methods | {"ModelInfer": self._infer_quoted}),
        ]

    async def _infer(self, request: Request, quotes_text: bool = False) -> Response:
        async with self._calls.read_prediction(request, to_rest) as infer_request:
            message = await run_until_disconnect(request, self._send(infer_request, quotes_text))
        return grpc_framing.message_response(message)

    async def _infer_quoted(self, request: Request) -> Response:
        return await self._infer(request, quotes_text=True)

    async def _send(self, infer_request: InferRequest, quotes_text: bool) -> bytes:
        """Return TorchServe's response as a serialized ModelInferResponse. Raises TorchServeError."""
        headers, body = await self._rest.send(infer_request)
        return to_grpc(headers.get(HEADER_LENGTH, ""), body, infer_request.raw, quotes_text)

    def _query(self, name: str, query: Query) -> Method:
        async def call(request: Request) -> Response:
            module = import_stubs("open_inference_grpc")
            message = await self._calls.read_query(request, getattr(module, f"{name}Request"))
            if name == "ModelMetadata":
                self._calls.check_model(request, message.name)
            response = getattr(module, f"{name}Response")(**await query(message))
            return grpc_framing.message_response(response.SerializeToString())

        return call

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
