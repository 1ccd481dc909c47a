"""Tests of the Open Inference Protocol: binary data, selected outputs, parameters and error isolation."""

import json
import struct

import numpy as np
import pytest

from handlers.core.tensor import NUMPY_TYPES, pack_bytes, unpack_bytes
from tests.unit.handlers.core.echo import PIXELS, binary, handle, image, one, outputs
from tests.unit.handlers.sending import HTTP, OPEN_INFERENCE, js, raw


@pytest.mark.parametrize("datatype", [name for name in NUMPY_TYPES if name != "BOOL"])
def test_binary_numbers_equal_json_numbers(handler, context, datatype):
    array = PIXELS.astype(NUMPY_TYPES[datatype])
    first, status = one(handler, context, binary([image(datatype)], [array.tobytes()], id="7"))
    second, _ = one(handler, context, js({"inputs": [image(datatype, data=array.tolist())], "id": "7"}))
    assert status == 200
    assert first == second
    assert first["id"] == "7"
    assert outputs(first)["total"] == [66.0]


def test_binary_bytes_elements_and_parameters_are_parsed(handler, context):
    content = pack_bytes([b"one", b"", "drei é".encode()])
    inputs = [
        image("BYTES", [3]),
        {"name": "times", "datatype": "INT64", "shape": [1]},
        {"name": "share", "datatype": "FP32", "shape": [1], "data": [0.5]},
    ]
    answer, status = one(handler, context, binary(inputs, [content, struct.pack("<q", 2)]))
    assert status == 200
    assert outputs(answer)["total"] == [3.0, 0.0, 7.0]
    assert outputs(answer)["description"][0] == "bytes é0.5" * 2


def test_tensor_of_four_axes_is_a_batch(handler, context):
    batch = np.stack([PIXELS, PIXELS * 2])
    answer, _ = one(handler, context, binary([image(shape=batch.shape)], [batch.tobytes()]))
    assert outputs(answer)["description"] == ["uint8[2, 2, 3] é"] * 2
    assert outputs(answer)["total"] == [66.0, 132.0]


def test_raw_binary_request_is_one_input(handler, context):
    request = {"body": bytearray(b"{hello}")}, OPEN_INFERENCE | {"inference-header-content-length": "0"}
    answer, status = one(handler, context, request)
    assert (status, outputs(answer)["total"]) == (200, [7.0])


BAD = [
    (binary([image()], [b"short"]), "UINT8 of the shape [2, 2, 3] takes 12 bytes, not 5"),
    (binary([image()], [PIXELS.tobytes()], extra=b"xy"), "14 bytes follow the JSON"),
    (binary([image(parameters={"binary_data_size": 13})], [PIXELS.tobytes()]), "only 12 bytes are left"),
    (binary([image(parameters={"binary_data_size": -1})], [b""]), "must be an integer of at least 0"),
    (binary([image(parameters={"binary_data_size": True})], [b""]), "must be an integer of at least 0"),
    (binary([image(data=[1] * 12)], [PIXELS.tobytes()]), "both 'data' and 'binary_data_size'"),
    (
        binary([image()], [PIXELS.tobytes()], headers={"Inference-Header-Content-Length": "-1"}),
        "an integer from 0",
    ),
    (
        binary([image()], [PIXELS.tobytes()], headers={"Inference-Header-Content-Length": "9999"}),
        "an integer from 0",
    ),
    (
        binary([image()], [PIXELS.tobytes()], headers={"Inference-Header-Content-Length": "5"}),
        "not valid JSON",
    ),
    (js({"inputs": [image(parameters={"binary_data_size": 12})]}), "requires the header"),
    (binary([image("BYTES", [1])], [b"\xff\xff\xff\xffabc"]), "an element is longer than the data"),
    (binary([image("BYTES", [1])], [b"\1\0"]), "an element is longer than the data"),
    (binary([image("BYTES", [2])], [pack_bytes([b"a"])]), "not 2 elements"),
    (binary([image("BYTES", [1])], [pack_bytes([b"a", b"b"])]), "not 1 elements"),
    (binary([image("BOOL", [2])], [b"\0\2"]), "each BOOL must be the byte 0 or 1"),
    (binary([image(shape=[2**31 - 1, 0, 0, 3])], [b""]), "is empty"),
    (
        binary([image()], [PIXELS.tobytes()], outputs=[{"name": "sum"}]),
        "this model has: description, total, long",
    ),
    (binary([image()], [PIXELS.tobytes()], outputs=[{"name": "description"}] * 2), "selected twice"),
    (
        binary(
            [image()],
            [PIXELS.tobytes()],
            outputs=[{"name": "description", "parameters": {"classification": 3}}],
        ),
        "outputs take: binary_data",
    ),
    (binary([image()], [PIXELS.tobytes()], parameters={"binary_data_output": 1}), "must be true or false"),
    (binary([image()], [PIXELS.tobytes()], id=7), "'id' must be a string"),
    (({"image": b"x"}, OPEN_INFERENCE), "does not support forms"),
    (({"body": bytearray(b"\xff\xd8 an image")}, OPEN_INFERENCE), "not UTF-8"),
    (({"body": bytearray(b'{"inputs": "text"}')}, OPEN_INFERENCE), "'inputs' must be a list"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_invalid_request_is_rejected_without_affecting_others(handler, context, bad, message):
    good = binary([image()], [PIXELS.tobytes()])
    answers = [json.loads(body) for body in handle(handler, context, good, bad, raw("x"))]
    assert [context.statuses[index] for index in range(3)] == [200, 400, 200]
    assert message in answers[1]["error"]
    assert outputs(answers[0])["total"] == [66.0]
    assert answers[2] == ["bytes é"]


def test_request_without_content_type_is_json_on_open_inference_routes(handler, context):
    body = json.dumps({"inputs": [image(data=PIXELS.tolist())]}).encode()
    for headers in (OPEN_INFERENCE, HTTP):
        answer, status = one(handler, context, ({"body": bytearray(body)}, headers))
        assert (status, outputs(answer)["total"]) == (200, [66.0])


def test_input_named_outputs_selects_outputs_over_grpc(handler, context):
    selected = {"name": "outputs", "datatype": "BYTES", "shape": [1], "data": ["dG90YWw="]}
    body = {"inputs": [image(data=PIXELS.tolist()), selected], "id": "", "model_name": "echo"}
    request = {"body": bytearray(json.dumps(body).encode())}, {"body": {"content-type": "application/json"}}
    answer, status = one(handler, context, request)
    assert (status, outputs(answer)) == (200, {"total": [66.0]})
    body["inputs"][0]["data"] = []
    request[0]["body"] = bytearray(json.dumps(body).encode())
    answer, _ = one(handler, context, request)
    assert "raw_input_contents" in answer["outputs"][0]["data"][0]


def test_bytes_elements_are_unchanged():
    items = [b"", b"a" * 300, bytes(range(256))]
    assert unpack_bytes(memoryview(pack_bytes(items)), 3) == items


@pytest.mark.parametrize("name", ["image", "data", "payload", "input-1", "INPUT0", "temperature"])
def test_single_input_may_have_any_name(handler, context, name):
    (expected, _), tensor = (
        one(handler, context, js({"inputs": [image(data=PIXELS.tolist())]})),
        image(name=name),
    )
    for request in (
        js({"inputs": [tensor | {"data": PIXELS.tolist()}]}),
        binary([dict(tensor)], [PIXELS.tobytes()]),
    ):
        answer, status = one(handler, context, request)
        assert (status, answer) == (200, expected)
    beside = {"name": "times", "datatype": "INT64", "shape": [1], "data": [2]}
    answer, status = one(handler, context, js({"inputs": [beside, tensor | {"data": PIXELS.tolist()}]}))
    assert (status, outputs(answer)["description"]) == (200, ["uint8[2, 2, 3] é" * 2])


def test_input_of_another_task_is_rejected(handler, context):
    answer, status = one(handler, context, js({"inputs": [image(name="text") | {"data": PIXELS.tolist()}]}))
    assert status == 400
    assert "takes no input 'text'; name the tensor 'image'" in answer["error"]


def test_second_input_with_unknown_name_is_rejected(handler, context):
    pixels = {"name": "pixels", "datatype": "UINT8", "shape": [2, 2, 3], "data": PIXELS.tolist()}
    answer, status = one(handler, context, js({"inputs": [image(data=PIXELS.tolist()), pixels]}))
    assert status == 400
    assert "the input 'pixels' is unknown: inputs other than 'image'" in answer["message"]
    assert "(share, times)" in answer["message"]
