"""The gateway's Open Inference gRPC service, called like by nginx, with a real handler in a fake TorchServe."""

import json
import struct

import numpy as np
import pytest

from handlers.core.tensor import pack_bytes, unpack_bytes
from tests.unit.client.fake_torchserve import NO_WORKER, Refused
from tests.unit.gateway.grpc.grpc_calls import PIXELS, call, frame, infer
from torchserve_models.client._stubs import open_inference_grpc_pb2 as messages
from torchserve_models.gateway.grpc import inference_service


def raw_outputs(response_message):
    return dict(
        zip(
            [output.name for output in response_message.outputs],
            response_message.raw_output_contents,
            strict=True,
        )
    )


def number(**kind):
    return messages.InferParameter(**kind)


async def test_raw_contents_parameters_and_outputs_are_translated(http, torchserve):
    parameters = {"times": number(int64_param=2), "timeout": number(int64_param=5_000_000)}
    message = infer("INPUT0", raw=PIXELS.tobytes(), parameters=parameters)
    message.outputs.add(name="total")
    message.outputs.add(name="description")
    response_message, status, _ = await call(http, "ModelInfer", message)
    assert status == 0
    assert (response_message.id, response_message.model_name, response_message.model_version) == (
        "seven",
        "echo",
        "1.0",
    )
    assert [output.name for output in response_message.outputs] == ["total", "description"]
    assert [(output.datatype, list(output.shape)) for output in response_message.outputs] == [
        ("FP32", [1]),
        ("BYTES", [1]),
    ]
    outputs = raw_outputs(response_message)
    assert struct.unpack("<f", outputs["total"]) == (66.0,)
    assert unpack_bytes(memoryview(outputs["description"]), 1) == ["uint8[2, 2, 3] é".encode() * 2]
    assert [request.url.path for request in torchserve.requests] == ["/v2/models/echo/infer"]


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
async def test_typed_contents_get_typed_outputs(http, datatype, field):
    message = infer(datatype=datatype, contents={field: PIXELS.ravel().tolist()})
    response_message, _, _ = await call(http, "ModelInfer", message)
    assert not response_message.raw_output_contents
    text, total, long = response_message.outputs
    assert text.contents.bytes_contents[0].decode().endswith("[2, 2, 3] é")
    assert list(total.contents.fp32_contents) == [66.0]
    assert list(long.contents.bool_contents) == [False]


async def test_bytes_are_accepted_typed_and_raw(http):
    elements = [b"one", b"\xff", b""]
    typed, _, _ = await call(
        http, "ModelInfer", infer(datatype="BYTES", shape=[3], contents={"bytes_contents": elements})
    )
    raw, _, _ = await call(http, "ModelInfer", infer(datatype="BYTES", shape=[3], raw=pack_bytes(elements)))
    assert list(typed.outputs[1].contents.fp32_contents) == [3.0, 1.0, 0.0]
    assert np.frombuffer(raw_outputs(raw)["total"], "<f4").tolist() == [3.0, 1.0, 0.0]


async def test_half_precision_is_accepted_raw(http):
    half = PIXELS.astype("<f2").tobytes()
    response_message, _, _ = await call(http, "ModelInfer", infer(datatype="FP16", raw=half))
    assert unpack_bytes(memoryview(raw_outputs(response_message)["description"]), 1) == [
        "float16[2, 2, 3] é".encode()
    ]


async def test_double_and_uint64_parameters_of_triton_are_accepted(http):
    """Triton's double_param and uint64_param are the fields 4 and 5 of InferParameter."""
    share, times = messages.InferParameter(), messages.InferParameter()
    share.MergeFromString(b"\x21" + struct.pack("<d", 0.5))
    times.MergeFromString(b"\x28\x02")
    message = infer(raw=PIXELS.tobytes(), parameters={"share": share, "times": times})
    response_message, status, details = await call(http, "ModelInfer", message)
    assert (status, details) == (0, "")
    assert raw_outputs(response_message)["description"][4:].decode() == "uint8[2, 2, 3] é0.5" * 2


async def test_version_deadline_and_request_id_are_forwarded(http, torchserve):
    headers = {"grpc-timeout": "2500m", "x-request-timeout": "9", "x-request-id": "mine"}
    message = infer(raw=PIXELS.tobytes(), model_version="2.0")
    _, status, _ = await call(http, "ModelInfer", message, **headers)
    assert status == 0
    (request,) = torchserve.requests
    assert request.url.path == "/predictions/echo/2.0"
    assert (float(request.headers["x-request-timeout"]), request.headers["x-request-id"]) == (2.5, "mine")


async def test_too_large_input_is_an_invalid_argument(http, torchserve):
    torchserve.failing["echo"] = Refused(413, "ImageTooLarge", "100 pixels")
    _, status, details = await call(http, "ModelInfer", infer(raw=PIXELS.tobytes()))
    assert (status, details) == (3, "100 pixels")


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
        (infer(datatype="BF16"), "'contents' has no field for the datatype 'BF16'"),
        (infer(contents={"fp32_contents": [1.0] * 12}), "elements of type UINT8 must be in 'uint_contents'"),
        (infer(contents={"uint_contents": [300] * 12}), "values must be from 0 to 255 (UINT8)"),
        (infer(datatype="INT8", contents={"int_contents": [-129] * 12}), "values must be from -128 to 127"),
        (infer(datatype="UINT64"), "UINT64 of the shape [2, 2, 3] takes 96 bytes, not 0"),
        (
            infer(raw=PIXELS.tobytes(), contents={"uint_contents": [1]}),
            "'contents' in addition to raw_input_contents",
        ),
        (
            messages.ModelInferRequest(model_name="echo", raw_input_contents=[b"x"]),
            "1 raw_input_contents for 0 inputs",
        ),
        (messages.ModelInferRequest(model_name="echo"), "no input: expected a tensor named 'image'"),
    ],
)
async def test_invalid_request_is_an_invalid_argument(http, message, words):
    _, status, details = await call(http, "ModelInfer", message)
    assert status == 3
    assert words in details


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\0\0\5abc", frame(b"\xff\xff"), frame(b"\x0b"), frame(b"\x2a\x05\x0a"), b"x" * 9]
)
async def test_malformed_message_is_an_invalid_argument(http, content):
    _, status, details = await call(http, "ModelInfer", None, content)
    assert (status, details != "") == (3, True)


async def test_torchserve_errors_become_grpc_statuses(http, torchserve):
    message = infer(raw=PIXELS.tobytes())
    for refused, expected in (
        (Refused(404, "ModelNotFoundException", "Model not found: echo"), 5),
        (Refused(413, "TooManyItems", "5 inputs"), 3),
        (Refused(504, "DeadlineExceeded", "late"), 4),
        (Refused(507, "OutOfMemory", "no memory"), 8),
        (Refused(500, "InternalServerException", "Worker died."), 14),
        (Refused(503, "InternalServerException", "Prediction failed"), 13),
    ):
        torchserve.failing["echo"] = refused
        _, status, details = await call(http, "ModelInfer", message)
        assert (status, bool(details)) == (expected, True), refused.value
    torchserve.failing["echo"] = Refused(503, "ServiceUnavailableException", NO_WORKER.format("echo"))
    _, status, _ = await call(http, "ModelInfer", message)
    assert status == 8  # the model has workers, so its queue is full


async def test_torchserves_name_of_the_service_has_the_same_answers(http):
    message = infer("INPUT0", raw=PIXELS.tobytes())
    answers = []
    for service in (inference_service.SERVICE, inference_service.TORCHSERVE_SERVICE):
        content = frame(message.SerializeToString())
        response = await http.post(f"/{service}/ModelInfer", content=content)
        answers.append((response.headers["x-grpc-status"], response.content))
    assert answers[0] == answers[1]
    assert answers[0][0] == "0"


async def test_torchserves_name_of_the_service_quotes_texts(http):
    content = frame(
        infer(datatype="BYTES", shape=[1], contents={"bytes_contents": [b"x"]}).SerializeToString()
    )
    texts = []
    for service in (inference_service.SERVICE, inference_service.TORCHSERVE_SERVICE):
        response = await http.post(f"/{service}/ModelInfer", content=content)
        message = messages.ModelInferResponse.FromString(response.content[5:])
        texts.append(message.outputs[0].contents.bytes_contents[0].decode())
    assert texts[1] == f'"{texts[0]}"'
    assert "é" in texts[0]


@pytest.mark.parametrize(("name", "version"), [("a/b", ""), ("..", ""), ("echo", "1/0")])
async def test_model_name_that_no_url_can_contain_is_not_found(http, torchserve, name, version):
    message = infer(raw=PIXELS.tobytes(), model_version=version)
    message.model_name = name
    _, status, details = await call(http, "ModelInfer", message)
    assert (status, details) == (5, f"Model not found: {version or name}")
    assert torchserve.requests == []


async def test_torchserve_response_of_another_protocol_is_an_error(http, torchserve, monkeypatch):
    monkeypatch.setattr(torchserve.handler, "handle", lambda *_: [json.dumps({"description": 1}).encode()])
    _, status, details = await call(http, "ModelInfer", infer(raw=PIXELS.tobytes()))
    assert (status, "does not follow the Open Inference Protocol" in details) == (14, True)


async def test_health_and_metadata_are_returned(http):
    response_message, _, _ = await call(http, "ServerMetadata", messages.ServerMetadataRequest())
    assert (response_message.name, response_message.version, list(response_message.extensions)) == (
        "Torchserve",
        "0.12.0",
        ["binary_tensor_data"],
    )
    response_message, _, _ = await call(http, "ModelMetadata", messages.ModelMetadataRequest(name="images"))
    assert (response_message.name, list(response_message.versions), response_message.platform) == (
        "images",
        ["1.0", "2.0"],
        "torchserve",
    )
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in response_message.inputs] == [
        ("image", "BYTES", [-1])
    ]
    _, status, _ = await call(http, "ModelMetadata", messages.ModelMetadataRequest(name="absent"))
    assert status == 5
    # Nothing is known yet: the application was not started.
    response_message, _, _ = await call(http, "ServerReady", messages.ServerReadyRequest())
    assert response_message.ready is False
    response_message, _, _ = await call(http, "ModelReady", messages.ModelReadyRequest(name="texts"))
    assert response_message.ready is False
    _, status, _ = await call(http, "ServerLive", None, frame(b"\xff"))
    assert status == 3


async def test_unknown_method_is_unimplemented(http):
    _, status, details = await call(http, "ModelConfig", messages.ServerLiveRequest())
    assert (status, details) == (12, "unknown method ModelConfig")
