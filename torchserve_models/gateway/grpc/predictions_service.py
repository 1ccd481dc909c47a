"""TorchServe's own gRPC inference service, carried to its REST API.

TorchServe's service answers OK with an error body, does not know deadlines, and loses a worker if a unary method
calls a model that streams, or the streaming method one that does not. Over REST, none of this happens.
"""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchserve_models.client.call_types import import_stubs
from torchserve_models.gateway.grpc import grpc_framing
from torchserve_models.gateway.grpc.form_support import FormSupport
from torchserve_models.gateway.grpc.grpc_calls import GrpcCalls
from torchserve_models.gateway.grpc.input_map import to_rest
from torchserve_models.gateway.grpc.rest_calls import RestCalls, RestRequest, read_parts
from torchserve_models.gateway.readiness_poller import ReadinessPoller
from torchserve_models.gateway.upstream.forwarding import run_until_disconnect

SERVICE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"


class PredictionsService:
    """The HTTP route of the service."""

    def __init__(
        self, calls: GrpcCalls, rest: RestCalls, forms: FormSupport, readiness: ReadinessPoller
    ) -> None:
        """
        Args:
            calls: Reads the messages.
            rest: Sends predictions to TorchServe.
            forms: Knows which models parse forms themselves.
            readiness: Returns the readiness of the server.
        """
        self._calls = calls
        self._rest = rest
        self._forms = forms
        self._readiness = readiness

    def route(self) -> Route:
        methods = {
            "Ping": self._ping,
            "Predictions": self._predict,
            "StreamPredictions": self._stream,
        }
        return self._calls.route(SERVICE, methods)

    async def _ping(self, _: Request) -> Response:
        """Respond whether the server is ready, like the REST route /ping."""
        problem = self._readiness.server_problem()
        status = {"status": "Unhealthy", "reason": problem} if problem else {"status": "Healthy"}
        message = import_stubs("inference").TorchServeHealthResponse(health=json.dumps(status))
        return grpc_framing.message_response(message.SerializeToString())

    async def _predict(self, request: Request) -> Response:
        async with self._calls.read_prediction(request, to_rest) as rest_request:
            _, body = await run_until_disconnect(request, self._rest.send(self._forms.adapt(rest_request)))
        return grpc_framing.message_response(_prediction(body))

    async def _stream(self, request: Request) -> Response:
        """Send each part of the answer as a message. The answer of a model that does not stream is one message."""
        async with self._calls.read_prediction(request, to_rest) as rest_request:
            answer = await run_until_disconnect(request, self._open(rest_request))
        return grpc_framing.stream_response(answer)

    async def _open(self, rest_request: RestRequest) -> AsyncIterator[bytes]:
        """Return the messages of an answer that has begun. Raises TorchServeError."""
        async with AsyncExitStack() as stack:
            response = await stack.enter_async_context(self._rest.open(self._forms.adapt(rest_request)))
            opened = stack.pop_all()

        async def messages() -> AsyncIterator[bytes]:
            async with opened:
                if "content-length" in response.headers:
                    yield _prediction(b"".join([part async for part in read_parts(response)]))
                    return
                async for part in read_parts(response):
                    yield _prediction(part)

        return messages()


def _prediction(body: bytes) -> bytes:
    message: bytes = import_stubs("inference").PredictionResponse(prediction=body).SerializeToString()
    return message
