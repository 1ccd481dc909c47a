"""The Open Inference Protocol at a handler: binary data both ways, selected outputs, and errors that stay alone."""

import json
import struct

import numpy as np
import pytest

from handlers.core.handler import Handler
from handlers.core.parameters import Parameter
from handlers.core.tensor import NUMPY_TYPES, Tensor, pack_bytes, unpack_bytes
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.sending import HTTP, OPEN_INFERENCE, js, raw


class Echo(Handler):
    """Says of each input what it was."""

    payload_fields = ("image", "data")

    def load(self, folder, config, device):
        pass

    def parameters(self):
        return (Parameter("times", int, low=1, high=3), Parameter("share", float, low=0, high=1))

    def decode(self, payload, parameters):
        kind = (
            f"{payload.dtype}{list(payload.shape)}"
            if isinstance(payload, np.ndarray)
            else type(payload).__name__
        )
        total = float(np.sum(payload)) if isinstance(payload, np.ndarray) else float(len(payload))
        return f"{kind} é{parameters.get('share', '')}" * parameters.get("times", 1), total

    def predict(self, items):
        return list(items)

    def encode(self, answer):
        return answer[0]

    def outputs(self, answers):
        shape = (len(answers),)
        return [
            Tensor("said", "BYTES", shape, [said for said, _ in answers]),
            Tensor("total", "FP32", shape, [total for _, total in answers]),
            Tensor("long", "BOOL", shape, [len(said) > 20 for said, _ in answers]),
        ]

    def warm_up(self):
        pass


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path, {"handler": {"max_items": 3}}, model_name="echo")


@pytest.fixture
def handler(context):
    handler = Echo()
    handler.initialize(context)
    return handler


def binary(inputs, contents=(), extra=b"", headers=None, **message):
    """A request of the extension: each input takes its content behind the JSON."""
    contents = list(contents)
    for tensor, content in zip(inputs, contents, strict=False):
        tensor.setdefault("parameters", {}).setdefault("binary_data_size", len(content))
    text = json.dumps({"inputs": inputs} | message).encode()
    own = {"Inference-Header-Content-Length": str(len(text))} if headers is None else headers
    return {"body": bytearray(text + b"".join(contents) + extra)}, OPEN_INFERENCE | own


def image(datatype="UINT8", shape=(2, 2, 3), **more):
    return {"name": "image", "datatype": datatype, "shape": list(shape)} | more


def ask(handler, context, *requests):
    """The raw answers and their statuses."""
    context.receive([headers for _, headers in requests])
    return handler.handle([fields for fields, _ in requests], context)


def one(handler, context, request):
    (body,) = ask(handler, context, request)
    return json.loads(body), context.statuses[0]


def outputs(answer):
    return {output["name"]: output["data"] for output in answer["outputs"]}


PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


@pytest.mark.parametrize("datatype", [name for name in NUMPY_TYPES if name != "BOOL"])
def test_numbers_as_binary_data_are_what_json_makes_of_them(handler, context, datatype):
    array = PIXELS.astype(NUMPY_TYPES[datatype])
    first, status = one(handler, context, binary([image(datatype)], [array.tobytes()], id="7"))
    second, _ = one(handler, context, js({"inputs": [image(datatype, data=array.tolist())], "id": "7"}))
    assert status == 200
    assert first == second
    assert first["id"] == "7"
    assert outputs(first)["total"] == [66.0]


def test_bytes_elements_and_parameters_as_binary_data(handler, context):
    content = pack_bytes([b"one", b"", "drei é".encode()])
    inputs = [
        image("BYTES", [3]),
        {"name": "times", "datatype": "INT64", "shape": [1]},
        {"name": "share", "datatype": "FP32", "shape": [1], "data": [0.5]},
    ]
    answer, status = one(handler, context, binary(inputs, [content, struct.pack("<q", 2)]))
    assert status == 200
    assert outputs(answer)["total"] == [3.0, 0.0, 7.0]
    assert outputs(answer)["said"][0] == "bytes é0.5" * 2


def test_four_axes_are_a_batch(handler, context):
    batch = np.stack([PIXELS, PIXELS * 2])
    answer, _ = one(handler, context, binary([image(shape=batch.shape)], [batch.tobytes()]))
    assert outputs(answer)["said"] == ["uint8[2, 2, 3] é"] * 2
    assert outputs(answer)["total"] == [66.0, 132.0]


def test_the_shortest_form_is_the_input_alone(handler, context):
    request = {"body": bytearray(b"{hello}")}, OPEN_INFERENCE | {"inference-header-content-length": "0"}
    answer, status = one(handler, context, request)
    assert (status, outputs(answer)["total"]) == (200, [7.0])


def read_binary(body, headers):
    """The answer as tritonclient takes it apart."""
    length = int(headers["Inference-Header-Content-Length"])
    message, rest, found = json.loads(body[:length]), body[length:], {}
    for output in message["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        found[output["name"]] = output["data"] if size is None else rest[:size]
        rest = rest[size or 0 :]
    assert rest == b""
    return message, found


def test_outputs_as_binary_data(handler, context):
    request = binary([image()], [PIXELS.tobytes()], parameters={"binary_data_output": True})
    (body,) = ask(handler, context, request)
    message, found = read_binary(body, context.response_headers[0])
    assert context.types[0] == "application/octet-stream"
    assert found["said"] == pack_bytes(["uint8[2, 2, 3] é".encode()])
    assert np.frombuffer(found["total"], "<f4").tolist() == [66.0]
    assert found["long"] == b"\0"
    assert [output["shape"] for output in message["outputs"]] == [[1]] * 3


def test_each_output_says_how_it_comes(handler, context):
    wanted = [{"name": "total", "parameters": {"binary_data": True}}, {"name": "said"}]
    (body,) = ask(handler, context, binary([image()], [PIXELS.tobytes()], outputs=wanted))
    message, found = read_binary(body, context.response_headers[0])
    assert [output["name"] for output in message["outputs"]] == ["total", "said"]
    assert found == {"total": struct.pack("<f", 66), "said": ["uint8[2, 2, 3] é"]}
    wanted[0]["parameters"]["binary_data"] = False
    request = binary([image()], [PIXELS.tobytes()], outputs=wanted, parameters={"binary_data_output": True})
    (body,) = ask(handler, context, request)
    assert read_binary(body, context.response_headers[0])[1]["total"] == [66.0]


def test_json_alone_has_no_header_length(handler, context):
    answer, _ = one(handler, context, binary([image()], [PIXELS.tobytes()], outputs=[{"name": "total"}]))
    assert context.response_headers[0] == {}
    assert context.types[0] == "application/json"
    assert outputs(answer) == {"total": [66.0]}


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
    (js({"inputs": [image(parameters={"binary_data_size": 12})]}), "needs the header"),
    (binary([image("BYTES", [1])], [b"\xff\xff\xff\xffabc"]), "an element ends behind the data"),
    (binary([image("BYTES", [1])], [b"\1\0"]), "an element ends behind the data"),
    (binary([image("BYTES", [2])], [pack_bytes([b"a"])]), "not 2 elements"),
    (binary([image("BYTES", [1])], [pack_bytes([b"a", b"b"])]), "not 1 elements"),
    (binary([image("BOOL", [2])], [b"\0\2"]), "a BOOL is the byte 0 or 1"),
    (binary([image(shape=[2**31 - 1, 0, 0, 3])], [b""]), "is empty"),
    (binary([image()], [PIXELS.tobytes()], outputs=[{"name": "sum"}]), "this model has: said, total, long"),
    (binary([image()], [PIXELS.tobytes()], outputs=[{"name": "said"}] * 2), "selected twice"),
    (
        binary(
            [image()], [PIXELS.tobytes()], outputs=[{"name": "said", "parameters": {"classification": 3}}]
        ),
        "outputs take: binary_data",
    ),
    (binary([image()], [PIXELS.tobytes()], parameters={"binary_data_output": 1}), "must be true or false"),
    (binary([image()], [PIXELS.tobytes()], id=7), "'id' must be a string"),
    (({"image": b"x"}, OPEN_INFERENCE), "takes no form"),
    (({"body": bytearray(b"\xff\xd8 an image")}, OPEN_INFERENCE), "not UTF-8"),
    (({"body": bytearray(b'{"inputs": "text"}')}, OPEN_INFERENCE), "'inputs' must be a list"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_an_error_says_what_is_wrong_and_stays_alone(handler, context, bad, message):
    good = binary([image()], [PIXELS.tobytes()])
    answers = [json.loads(body) for body in ask(handler, context, good, bad, raw("x"))]
    assert [context.statuses[index] for index in range(3)] == [200, 400, 200]
    assert message in answers[1]["error"]
    assert outputs(answers[0])["total"] == [66.0]
    assert answers[2] == ["bytes é"]


def test_a_request_without_a_content_type_is_json_on_every_route(handler, context):
    body = json.dumps({"inputs": [image(data=PIXELS.tolist())]}).encode()
    for headers in (OPEN_INFERENCE, HTTP):
        answer, status = one(handler, context, ({"body": bytearray(body)}, headers))
        assert (status, outputs(answer)["total"]) == (200, [66.0])


def test_outputs_are_selected_over_grpc_by_an_input_of_that_name(handler, context):
    selected = {"name": "outputs", "datatype": "BYTES", "shape": [1], "data": ["dG90YWw="]}
    body = {"inputs": [image(data=PIXELS.tolist()), selected], "id": "", "model_name": "echo"}
    request = {"body": bytearray(json.dumps(body).encode())}, {"body": {"content-type": "application/json"}}
    answer, status = one(handler, context, request)
    assert (status, outputs(answer)) == (200, {"total": [66.0]})
    body["inputs"][0]["data"] = []
    request[0]["body"] = bytearray(json.dumps(body).encode())
    answer, _ = one(handler, context, request)
    assert "raw_input_contents" in answer["outputs"][0]["data"][0]


def test_bytes_elements_come_back_as_they_were():
    items = [b"", b"a" * 300, bytes(range(256))]
    assert unpack_bytes(memoryview(pack_bytes(items)), 3) == items


@pytest.mark.parametrize("name", ["image", "data", "payload", "input-1", "INPUT0", "temperature"])
def test_the_one_input_may_have_any_name(handler, context, name):
    """Case 18."""
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
    assert (status, outputs(answer)["said"]) == (200, ["uint8[2, 2, 3] é" * 2])


def test_the_input_of_another_kind_of_model_is_refused(handler, context):
    answer, status = one(handler, context, js({"inputs": [image(name="text") | {"data": PIXELS.tolist()}]}))
    assert status == 400
    assert "takes no input 'text'; name the tensor 'image'" in answer["error"]


def test_a_wrong_name_beside_the_input_is_about_names(handler, context):
    """Case 18."""
    pixels = {"name": "pixels", "datatype": "UINT8", "shape": [2, 2, 3], "data": PIXELS.tolist()}
    answer, status = one(handler, context, js({"inputs": [image(data=PIXELS.tolist()), pixels]}))
    assert status == 400
    assert "the input 'pixels' is unknown: beside the one input 'image'" in answer["message"]
    assert "(share, times)" in answer["message"]


MLSERVER = {  # recorded: mlserver 1.7.1, NumpyRequestCodec.encode_request(array).dict()
    "id": None,
    "parameters": {"content_type": "np", "headers": None},
    "inputs": [
        {
            "name": "input-1",
            "shape": [2, 2, 3],
            "datatype": "UINT8",
            "parameters": {"content_type": "np", "headers": None},
            "data": PIXELS.ravel().tolist(),
        }
    ],
    "outputs": None,
}


def test_what_standard_clients_add_is_passed_over(handler, context):
    """Cases 11 and 18."""
    expected, _ = one(handler, context, js({"inputs": [image(data=PIXELS.tolist())]}))
    assert one(handler, context, js(MLSERVER)) == (expected, 200)
    headers = {"headers": {"Ce-Id": "7"}}
    assert one(handler, context, js(MLSERVER | {"parameters": headers})) == (expected, 200)
    triton = MLSERVER | {"parameters": {"timeout": 5_000_000, "priority": 1, "binary_data_output": False}}
    assert one(handler, context, js(triton)) == (expected, 200)
    wanted = [{"name": "total", "parameters": {"content_type": "np", "headers": None, "binary_data": None}}]
    answer, status = one(handler, context, js(MLSERVER | {"outputs": wanted}))
    assert (status, outputs(answer)) == (200, {"total": [66.0]})


def hugging_face_input(name, content_type, data):
    """As the codecs of MLServer's Hugging Face runtime write it (mlserver_huggingface/codecs)."""
    parameters = {"content_type": content_type, "headers": None}
    return {"name": name, "shape": [1], "datatype": "BYTES", "parameters": parameters, "data": [data]}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([hugging_face_input("args", "str", "a text")], ("str é", 6)),
        ([hugging_face_input("args", "raw", "a text")], ("str é", 6)),
        ([hugging_face_input("images", "pillow_image", "/9j/4A==")], ("bytes é", 4)),
        ([hugging_face_input("images", "base64", "/9j/4A==")], ("bytes é", 4)),
        (
            [hugging_face_input("args", "str", "a text"), hugging_face_input("times", "raw", 2)],
            ("str éstr é", 6),
        ),
        (
            [hugging_face_input("args", "str", "a text"), hugging_face_input("share", "raw", 0.5)],
            ("str é0.5", 6),
        ),
    ],
)
@pytest.mark.parametrize("content_type", ["str", "hf"])
def test_codecs_of_mlservers_hugging_face_runtime(handler, context, inputs, expected, content_type):
    message = {"id": None, "parameters": {"content_type": content_type}, "inputs": inputs, "outputs": None}
    answer, status = one(handler, context, js(message))
    assert status == 200, answer
    found = outputs(answer)
    assert (found["said"], found["total"]) == ([expected[0]], [expected[1]])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (hugging_face_input("args", "hg_json", '{"a": 1}'), "'content_type' cannot be changed here"),
        (hugging_face_input("args", "pillow_image", "no*base64"), "an element is not base64"),
        (hugging_face_input("args", "str", 5), "'5' is not an element of BYTES"),
    ],
)
def test_codecs_that_would_change_the_answer(handler, context, given, words):
    answer, status = one(handler, context, js({"inputs": [given]}))
    assert status == 400
    assert words in answer["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"parameters": {"content_type": "datetime"}},
            "'content_type' cannot be changed here: it must be 'np'",
        ),
        ({"parameters": {"headers": "x: 1"}}, "'headers' is ignored here, and must be an object"),
        ({"parameters": {"sequence_id": 7}}, "unknown parameter 'sequence_id'"),
        ({"parameters": {"timeout": "soon"}}, "'timeout' is ignored here, and must be an integer"),
    ],
)
def test_what_would_change_the_answer_is_not_passed_over(handler, context, change, words):
    """Case 11."""
    answer, status = one(handler, context, js(MLSERVER | change))
    assert status == 400
    assert words in answer["message"]
