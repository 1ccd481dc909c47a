"""Messages, and calls of the gateway's gRPC methods like those of nginx."""

import email
import email.policy
import gzip
from urllib.parse import unquote

import httpx
import numpy as np

from tests.unit.gateway.torchserve_stub import TorchServeStub
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.core.echo import Echo
from torchserve_models.client._stubs import open_inference_grpc_pb2 as messages
from torchserve_models.gateway.upstream.unavailable_diagnosis import WORKER_DIED

SERVICE = "/inference.GRPCInferenceService"

PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


class EchoTorchServe(TorchServeStub):
    """A fake TorchServe whose /v2 route calls a real handler and that records its requests."""

    def __init__(self, folder):
        super().__init__()
        self.context = FakeContext(folder, {"handler": {"max_items": 3}}, model_name="echo")
        self.handler = Echo()
        self.handler.initialize(self.context)
        self.requests = []

    def handle_rest(self, request):
        parts = request.url.path.split("/")
        if "echo" not in parts:
            return super().handle_rest(request)
        self.requests.append(request)
        if (failure := self.failing.get("echo")) and failure.value["message"] == "Worker died.":
            return httpx.Response(500, content=WORKER_DIED)
        if failure:
            return httpx.Response(failure.value["code"], json=failure.value)
        on_predictions = {"url_path": ""} if parts[1] == "predictions" else {}
        fields, field_headers = read_form(request)
        self.context.receive([{**request.headers, "explain": "False", **on_predictions, **field_headers}])
        (content,) = self.handler.handle([fields], self.context)
        return httpx.Response(
            self.context.statuses[0], content=content, headers=self.context.response_headers[0]
        )


def read_form(request):
    """Return the fields of a request and their headers in TorchServe's layout."""
    content_type = request.headers["content-type"]
    if not content_type.startswith("multipart/"):
        return {"body": bytearray(request.content)}, {}
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + request.content, policy=email.policy.HTTP).iter_parts()
    fields = {
        part.get_param("name", header="content-disposition"): bytearray(part.get_payload(decode=True))
        for part in parts
    }
    return fields, {name: {"content-type": "application/octet-stream"} for name in fields}


def frame(content, compressed=False):
    content = gzip.compress(content) if compressed else content
    return bytes([compressed]) + len(content).to_bytes(4, "big") + content


async def call(http, method, message, content=None, **headers):
    """Return the response message, and the gRPC status and its message."""
    body = frame(message.SerializeToString()) if content is None else content
    response = await http.post(f"{SERVICE}/{method}", content=body, headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/grpc"
    status, details = response.headers["x-grpc-status"], unquote(response.headers.get("x-grpc-message", ""))
    if status != "0":
        assert response.content == b""
        return None, int(status), details
    assert response.content[:5] == b"\0" + (len(response.content) - 5).to_bytes(4, "big")
    return getattr(messages, f"{method}Response").FromString(response.content[5:]), 0, details


def infer(name="image", datatype="UINT8", shape=(2, 2, 3), raw=None, contents=None, **fields):
    message = messages.ModelInferRequest(model_name="echo", id="seven", **fields)
    message.inputs.add(name=name, datatype=datatype, shape=shape, contents=contents)
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message
