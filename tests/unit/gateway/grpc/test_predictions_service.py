"""TorchServe's own gRPC service, called like by nginx, with a real handler in a fake TorchServe."""

import json
from urllib.parse import unquote

import httpx
import pytest

from tests.unit.client.fake_torchserve import NO_WORKER, Refused
from tests.unit.gateway.grpc.grpc_calls import frame
from torchserve_models.client._stubs.inference_pb2 import (
    PredictionResponse,
    PredictionsRequest,
    TorchServeHealthResponse,
)
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.grpc.predictions_service import SERVICE
from torchserve_models.gateway.settings import GatewaySettings


async def post(http, method="Predictions", message=None, **headers):
    message = message or PredictionsRequest(model_name="echo", input={"image": b"abc", "times": b"2"})
    return await http.post(
        f"/{SERVICE}/{method}", content=frame(message.SerializeToString()), headers=headers
    )


def predictions(response):
    """Return the predictions of all messages of a response."""
    content, values = response.content, []
    while content:
        end = 5 + int.from_bytes(content[1:5], "big")
        values.append(PredictionResponse.FromString(content[5:end]).prediction)
        content = content[end:]
    return values


async def test_prediction_is_the_handlers_answer(http, torchserve):
    response = await post(http, **{"grpc-timeout": "5S", "x-request-id": "mine"})
    assert response.headers["x-grpc-status"] == "0"
    (prediction,) = predictions(response)
    assert json.loads(prediction)
    (request,) = [request for request in torchserve.requests if request.method == "POST"]
    assert request.url.path == "/predictions/echo"
    assert (float(request.headers["x-request-timeout"]), request.headers["x-request-id"]) == (5.0, "mine")


@pytest.mark.parametrize(
    ("refused", "status", "type_"),
    [
        (Refused(400, "InvalidImage", "no image"), "3", "InvalidImage"),
        (Refused(413, "ImageTooLarge", "100 pixels"), "3", "ImageTooLarge"),
        (Refused(404, "ModelNotFoundException", "Model not found: echo"), "5", "ModelNotFoundException"),
        (Refused(504, "DeadlineExceeded", "late"), "4", "DeadlineExceeded"),
        (Refused(507, "OutOfMemory", "no memory"), "8", "OutOfMemory"),
        (Refused(500, "InternalServerException", "Worker died."), "14", "WorkerDied"),
        (Refused(503, "InternalServerException", "Prediction failed"), "13", "InternalError"),
        (Refused(503, "ServiceUnavailableException", NO_WORKER.format("echo")), "8", "Overloaded"),
    ],
)
@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
async def test_errors_become_statuses_with_their_type(http, torchserve, method, refused, status, type_):
    torchserve.failing["echo"] = refused
    response = await post(http, method)
    assert (response.headers["x-grpc-status"], response.headers["x-error-type"]) == (status, type_)
    assert unquote(response.headers["x-grpc-message"])
    assert response.content == b""
    retried = type_ == "WorkerDied"
    sent = [request for request in torchserve.requests if request.method == "POST"]
    assert ("x-retried" in response.headers, len(sent)) == (retried, 1 + retried)
    assert ("retry-after" in response.headers) == (type_ in ("WorkerDied", "Overloaded"))


class Parts(httpx.AsyncByteStream):
    def __init__(self, *parts):
        self.parts = parts

    async def __aiter__(self):
        for part in self.parts:
            yield part


class Streaming(httpx.AsyncBaseTransport):
    def __init__(self, *parts):
        self.parts = parts

    async def handle_async_request(self, request):
        return httpx.Response(200, headers={"transfer-encoding": "chunked"}, stream=Parts(*self.parts))


@pytest.mark.parametrize(
    ("method", "expected"), [("Predictions", [b"onetwo"]), ("StreamPredictions", [b"one", b"two"])]
)
async def test_parts_of_a_stream_are_joined_or_sent_one_by_one(method, expected):
    app = create_app(GatewaySettings(), Streaming(b"one", b"two"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        response = await post(http, method)
    assert (response.headers["x-grpc-status"], predictions(response)) == ("0", expected)


async def test_stream_that_is_too_long_for_a_message_is_an_error():
    app = create_app(GatewaySettings(), Streaming(*[bytes(2**20)] * 17))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        assert (await post(http)).headers["x-grpc-status"] == "8"


async def test_ping_reports_readiness(http):
    response = await post(http, "Ping", PredictionsRequest())
    health = json.loads(TorchServeHealthResponse.FromString(response.content[5:]).health)
    assert health["status"] == "Unhealthy"  # nothing is known yet: the application was not started
    assert health["reason"]


async def test_unknown_method_is_unimplemented(http):
    assert (await post(http, "StreamPredictions2")).headers["x-grpc-status"] == "12"
