"""The Open Inference gRPC service of the gateway, as nginx hands its calls on, before a handler that is real."""

import asyncio
import gzip
import json
import struct
from urllib.parse import unquote

import httpx
import numpy as np
import pytest

from handlers.core.deadline import parse_timeout
from handlers.core.tensor import pack_bytes, unpack_bytes
from tests.unit.client.fake_torchserve import NO_WORKER, Refused
from tests.unit.gateway.behind import Served
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.core.test_open_inference import Echo
from torchserve_models.client._stubs import open_inference_grpc_pb2 as messages
from torchserve_models.gateway import grpc_bounds
from torchserve_models.gateway.app import create
from torchserve_models.gateway.grpc_wire import seconds_of
from torchserve_models.gateway.settings import Settings

SERVICE = "/inference.GRPCInferenceService"
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


class Behind(Served):
    """A pretended TorchServe whose /v2 route asks a real handler. `requests` are those that came."""

    def __init__(self, folder):
        super().__init__()
        self.context = FakeContext(folder, {"handler": {"max_items": 3}}, model_name="echo")
        self.handler = Echo()
        self.handler.initialize(self.context)
        self.requests = []

    def rest(self, request):
        parts = request.url.path.split("/")
        if "echo" not in parts:
            return super().rest(request)
        self.requests.append(request)
        if failure := self.failing.get("echo"):
            return httpx.Response(failure.value["code"], json=failure.value)
        on_predictions = {"url_path": ""} if parts[1] == "predictions" else {}
        self.context.receive([{**request.headers, "explain": "False", **on_predictions}])
        (content,) = self.handler.handle([{"body": bytearray(request.content)}], self.context)
        return httpx.Response(
            self.context.statuses[0], content=content, headers=self.context.response_headers[0]
        )


@pytest.fixture
def behind(tmp_path):
    return Behind(tmp_path)


@pytest.fixture
async def http(behind):
    app = create(Settings(max_body=2**20), httpx.MockTransport(behind.rest))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


def frame(content, compressed=False):
    content = gzip.compress(content) if compressed else content
    return bytes([compressed]) + len(content).to_bytes(4, "big") + content


async def call(http, method, message, content=None, **headers):
    """The answer, and gRPC's status and message."""
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


def raw_outputs(answer):
    return dict(zip([output.name for output in answer.outputs], answer.raw_output_contents, strict=True))


def number(**kind):
    return messages.InferParameter(**kind)


async def test_raw_contents_parameters_and_outputs_come_through(http, behind):
    """Case 13."""
    parameters = {"times": number(int64_param=2), "timeout": number(int64_param=5_000_000)}
    message = infer("INPUT0", raw=PIXELS.tobytes(), parameters=parameters)
    message.outputs.add(name="total")
    message.outputs.add(name="said")
    answer, status, _ = await call(http, "ModelInfer", message)
    assert status == 0
    assert (answer.id, answer.model_name, answer.model_version) == ("seven", "echo", "1.0")
    assert [output.name for output in answer.outputs] == ["total", "said"]
    assert [(output.datatype, list(output.shape)) for output in answer.outputs] == [
        ("FP32", [1]),
        ("BYTES", [1]),
    ]
    outputs = raw_outputs(answer)
    assert struct.unpack("<f", outputs["total"]) == (66.0,)
    assert unpack_bytes(memoryview(outputs["said"]), 1) == ["uint8[2, 2, 3] é".encode() * 2]
    assert [request.url.path for request in behind.requests] == ["/v2/models/echo/infer"]


@pytest.mark.parametrize(
    ("datatype", "field"),
    [
        ("UINT8", "uint_contents"),
        ("INT32", "int_contents"),
        ("INT64", "int64_contents"),
        ("UINT64", "uint64_contents"),
        ("FP32", "fp32_contents"),
        ("FP64", "fp64_contents"),
    ],
)
async def test_typed_contents_are_answered_with_typed_contents(http, datatype, field):
    message = infer(datatype=datatype, contents={field: PIXELS.ravel().tolist()})
    answer, _, _ = await call(http, "ModelInfer", message)
    assert not answer.raw_output_contents
    said, total, long = answer.outputs
    assert said.contents.bytes_contents[0].decode().endswith("[2, 2, 3] é")
    assert list(total.contents.fp32_contents) == [66.0]
    assert list(long.contents.bool_contents) == [False]


async def test_bytes_in_either_contents(http):
    elements = [b"one", b"\xff", b""]
    typed, _, _ = await call(
        http, "ModelInfer", infer(datatype="BYTES", shape=[3], contents={"bytes_contents": elements})
    )
    raw, _, _ = await call(http, "ModelInfer", infer(datatype="BYTES", shape=[3], raw=pack_bytes(elements)))
    assert list(typed.outputs[1].contents.fp32_contents) == [3.0, 1.0, 0.0]
    assert np.frombuffer(raw_outputs(raw)["total"], "<f4").tolist() == [3.0, 1.0, 0.0]


async def test_half_precision_goes_raw(http):
    half = PIXELS.astype("<f2").tobytes()
    answer, _, _ = await call(http, "ModelInfer", infer(datatype="FP16", raw=half))
    assert unpack_bytes(memoryview(raw_outputs(answer)["said"]), 1) == ["float16[2, 2, 3] é".encode()]


async def test_numbers_of_tritons_proto_that_torchserves_lacks(http):
    """double_param and uint64_param: fields 4 and 5 of InferParameter."""
    share, times = messages.InferParameter(), messages.InferParameter()
    share.MergeFromString(b"\x21" + struct.pack("<d", 0.5))
    times.MergeFromString(b"\x28\x02")
    message = infer(raw=PIXELS.tobytes(), parameters={"share": share, "times": times})
    answer, status, details = await call(http, "ModelInfer", message)
    assert (status, details) == (0, "")
    assert raw_outputs(answer)["said"][4:].decode() == "uint8[2, 2, 3] é0.5" * 2


async def test_a_version_and_the_calls_deadline_and_id(http, behind):
    headers = {"grpc-timeout": "2500m", "x-request-timeout": "9", "x-request-id": "mine"}
    message = infer(raw=PIXELS.tobytes(), model_version="2.0")
    _, status, _ = await call(http, "ModelInfer", message, **headers)
    assert status == 0
    (request,) = behind.requests
    assert request.url.path == "/predictions/echo/2.0"
    assert (float(request.headers["x-request-timeout"]), request.headers["x-request-id"]) == (2.5, "mine")


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("99999999H", 1e6), ("1000001S", 1e6), ("12345678m", 12345.678), ("3M", 180), ("60000000u", 60)],
)
async def test_a_worker_reads_the_deadline_of_every_call(http, behind, timeout, seconds):
    """Also the largest ones, by which libraries say that there is none."""
    _, status, details = await call(
        http, "ModelInfer", infer(raw=PIXELS.tobytes()), **{"grpc-timeout": timeout}
    )
    assert (status, details) == (0, "")
    assert parse_timeout(behind.requests[0].headers["x-request-timeout"]) == pytest.approx(seconds)


@pytest.mark.parametrize("timeout", ["0S", "1n", "50u"])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata"])
async def test_a_deadline_that_has_passed_ends_every_method(http, behind, monkeypatch, method, timeout):
    message = infer(raw=PIXELS.tobytes())
    if method == "ModelMetadata":
        message = messages.ModelMetadataRequest(name="images")
        monkeypatch.setattr(
            "torchserve_models.gateway.descriptions.Descriptions.one", lambda *_: asyncio.sleep(60)
        )
    _, status, details = await call(http, method, message, **{"grpc-timeout": timeout})
    assert (status, "no answer within" in details) == (4, True)
    assert behind.requests == []


async def test_a_message_has_16_mib_whatever_a_body_of_pixels_may_have(behind):
    app = create(Settings(max_body=48 * 2**20), httpx.MockTransport(behind.rest))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        content = frame(bytes(17 * 2**20))
        _, status, details = await call(http, "ModelInfer", None, content)
        assert (status, details) == (8, "the body is larger than 16 MiB")
        message = infer(raw=b"")
        message.raw_input_contents[0] = bytes(2**24 - message.ByteSize() - 3)
        assert message.ByteSize() == 2**24
        _, status, details = await call(http, "ModelInfer", message)
    assert (status, details) == (8, "the tensors take more than 16 MiB")
    assert behind.requests == []


async def test_an_input_that_is_too_large_for_its_model_is_an_invalid_argument(http, behind):
    behind.failing["echo"] = Refused(413, "ImageTooLarge", "100 pixels")
    _, status, details = await call(http, "ModelInfer", infer(raw=PIXELS.tobytes()))
    assert (status, details) == (3, "100 pixels")


async def test_a_compressed_message(http):
    content = frame(infer(raw=PIXELS.tobytes()).SerializeToString(), compressed=True)
    _, status, _ = await call(http, "ModelInfer", None, content, **{"grpc-encoding": "gzip"})
    assert status == 0
    bomb = frame(infer(raw=b"\0" * 20 * 2**20).SerializeToString(), compressed=True)
    _, status, details = await call(http, "ModelInfer", None, bomb, **{"grpc-encoding": "gzip"})
    assert (status, details) == (8, "the body is larger than 16 MiB when decompressed")
    _, status, details = await call(http, "ModelInfer", None, content, **{"grpc-encoding": "snappy"})
    assert (status, "'snappy' is not supported" in details) == (3, True)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            infer(raw=PIXELS.tobytes(), parameters={"times": number(int64_param=9)}),
            "'times' must be an integer",
        ),
        (
            infer(raw=PIXELS.tobytes(), parameters={"color": number(string_param="é")}),
            "unknown parameter 'color'",
        ),
        (infer(raw=PIXELS.tobytes(), parameters={"times": number()}), "the parameter 'times' has no value"),
        (infer(raw=b"\0"), "UINT8 of the shape [2, 2, 3] takes 12 bytes, not 1"),
        (infer(datatype="BF16", raw=b"\0"), "unknown datatype 'BF16'"),
        (infer(datatype="FP16"), "takes 24 bytes, not 0"),
        (infer(datatype="BF16"), "'contents' have no field for 'BF16'"),
        (infer(contents={"fp32_contents": [1.0] * 12}), "the elements of UINT8 belong into 'uint_contents'"),
        (infer(contents={"uint_contents": [300] * 12}), "a number is outside the range of UINT8"),
        (infer(datatype="INT8", contents={"int_contents": [-129] * 12}), "outside the range of INT8"),
        (infer(datatype="UINT64"), "UINT64 of the shape [2, 2, 3] takes 96 bytes, not 0"),
        (
            infer(raw=PIXELS.tobytes(), contents={"uint_contents": [1]}),
            "'contents' beside raw_input_contents",
        ),
        (
            messages.ModelInferRequest(model_name="echo", raw_input_contents=[b"x"]),
            "1 raw_input_contents for 0 inputs",
        ),
        (messages.ModelInferRequest(model_name="echo"), "no input: expected a tensor named 'image'"),
    ],
)
async def test_a_wrong_request_is_an_invalid_argument(http, message, words):
    _, status, details = await call(http, "ModelInfer", message)
    assert status == 3
    assert words in details


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\0\0\5abc", frame(b"\xff\xff"), frame(b"\x0b"), frame(b"\x2a\x05\x0a"), b"x" * 9]
)
async def test_what_is_no_message_is_an_invalid_argument(http, content):
    _, status, details = await call(http, "ModelInfer", None, content)
    assert (status, details != "") == (3, True)


async def test_errors_of_torchserve_are_statuses(http, behind):
    """Case 13."""
    message = infer(raw=PIXELS.tobytes())
    for refused, expected in (
        (Refused(404, "ModelNotFoundException", "Model not found: echo"), 5),
        (Refused(413, "TooManyItems", "5 inputs"), 3),
        (Refused(504, "DeadlineExceeded", "late"), 4),
        (Refused(507, "OutOfMemory", "no memory"), 8),
        (Refused(500, "InternalServerException", "Worker died."), 13),
        (Refused(503, "InternalServerException", "Prediction failed"), 13),
    ):
        behind.failing["echo"] = refused
        _, status, details = await call(http, "ModelInfer", message)
        assert (status, bool(details)) == (expected, True), refused.value
    behind.failing["echo"] = Refused(503, "ServiceUnavailableException", NO_WORKER.format("echo"))
    _, status, _ = await call(http, "ModelInfer", message)
    assert status == 8  # the management API says that it has workers, so that its queue is full


@pytest.mark.parametrize(("name", "version"), [("a/b", ""), ("..", ""), ("echo", "1/0")])
async def test_a_name_that_no_path_can_have_is_not_found(http, behind, name, version):
    message = infer(raw=PIXELS.tobytes(), model_version=version)
    message.model_name = name
    _, status, details = await call(http, "ModelInfer", message)
    assert (status, details) == (5, f"Model not found: {version or name}")
    assert behind.requests == []


async def test_an_answer_of_another_handler_is_an_error(http, behind, monkeypatch):
    monkeypatch.setattr(behind.handler, "handle", lambda *_: [json.dumps({"said": 1}).encode()])
    _, status, details = await call(http, "ModelInfer", infer(raw=PIXELS.tobytes()))
    assert (status, "does not answer by the Open Inference Protocol" in details) == (14, True)


async def test_health_and_metadata(http):
    answer, _, _ = await call(http, "ServerMetadata", messages.ServerMetadataRequest())
    assert (answer.name, answer.version, list(answer.extensions)) == (
        "Torchserve",
        "0.12.0",
        ["binary_tensor_data"],
    )
    answer, _, _ = await call(http, "ModelMetadata", messages.ModelMetadataRequest(name="images"))
    assert (answer.name, list(answer.versions), answer.platform) == ("images", ["1.0", "2.0"], "torchserve")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in answer.inputs] == [
        ("image", "BYTES", [-1])
    ]
    _, status, _ = await call(http, "ModelMetadata", messages.ModelMetadataRequest(name="absent"))
    assert status == 5
    # Nothing is known yet: the application was not started.
    answer, _, _ = await call(http, "ServerReady", messages.ServerReadyRequest())
    assert answer.ready is False
    answer, _, _ = await call(http, "ModelReady", messages.ModelReadyRequest(name="texts"))
    assert answer.ready is False
    _, status, _ = await call(http, "ServerLive", None, frame(b"\xff"))
    assert status == 3


async def test_an_unknown_method(http):
    _, status, details = await call(http, "ModelConfig", messages.ServerLiveRequest())
    assert (status, details) == (12, "there is no method ModelConfig here")


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("1S", 1.0), ("100m", 0.1), ("2H", 7200.0), ("3M", 180.0), ("5u", 5e-6), ("7n", 7e-9)],
)
def test_timeouts_have_a_unit(timeout, seconds):
    assert seconds_of(timeout) == pytest.approx(seconds)


async def test_a_wrong_timeout_is_named(http):
    headers = {"grpc-timeout": "5 s"}
    _, status, details = await call(http, "ModelInfer", infer(raw=PIXELS.tobytes()), **headers)
    assert (status, "grpc-timeout" in details) == (3, True)


async def test_structure_that_takes_many_times_its_bytes_is_refused(http):
    many = frame(b"\x2a\x00" * (grpc_bounds.MAX_FIELDS + 1))  # empty inputs
    _, status, details = await call(http, "ModelInfer", None, many)
    assert (status, "more than 20000 fields" in details) == (3, True)


def test_numbers_that_take_many_times_their_bytes_are_refused(monkeypatch):
    monkeypatch.setattr(grpc_bounds, "MAX_NUMBER_BYTES", 100)
    few, many = ({"int64_contents": [1] * count} for count in (100, 101))
    grpc_bounds.check_bounds(infer(contents=few).SerializeToString())
    grpc_bounds.check_bounds(
        infer(contents={"bytes_contents": [b"x" * 200]}, raw=b"x" * 200).SerializeToString()
    )
    with pytest.raises(grpc_bounds.TooLarge, match="send raw_input_contents"):
        grpc_bounds.check_bounds(infer(contents=many).SerializeToString())
