"""Tests of parsing requests in every format."""

import base64
import json

import numpy as np
import pytest

from handlers.core.errors import BadRequest, HandlerError, InvalidRequest, TooManyItems
from handlers.core.open_inference_response import OpenInferenceEncoder, RequestedOutput
from handlers.core.request import ParsedRequest, RequestParser
from handlers.core.request_content import ParserSettings

HTTP = {"explain": "False", "url_path": "", "host": "127.0.0.1"}
JSON = HTTP | {
    "Content-Type": "application/json; charset=utf-8",
    "body": {"content-type": "application/json"},
}
GRPC_TENSORS = {"body": {"content-type": "application/json"}}


def parser(fields, headers=HTTP) -> RequestParser:
    names = ("top_k", "early_stopping")
    settings = ParserSettings("net", "1.0", ("image", "data"), max_items=4, parameter_names=names)
    return RequestParser(fields, headers, settings)


def read(fields, headers=HTTP) -> ParsedRequest:
    return parser(fields, headers).parse()


def body(value) -> dict:
    return {"body": bytearray(json.dumps(value).encode())}


def tensor(**changes) -> dict:
    return {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGk="]} | changes


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"body": bytearray(b"hi")}, HTTP),
        ({"body": bytearray(b"hi")}, HTTP | {"content-type": "image/jpeg"}),
        ({"image": bytearray(b"hi")}, HTTP),
        ({"data": bytearray(b"hi")}, HTTP | {"data": {"content-type": "image/png"}}),
        ({"data": bytearray(b"hi")}, {"data": {"content-type": ""}}),
        (body({"inputs": [tensor(parameters={"content_type": "base64"})]}), JSON),
        (body({"inputs": [tensor()], "id": "", "model_name": "net"}), GRPC_TENSORS),
    ],
)
def test_bytes_are_unchanged_in_every_form(fields, headers):
    assert read(fields, headers).payloads == (b"hi",)


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        (body({"inputs": "aGk=", "parameters": {"top_k": 3}}), JSON),
        (body({"inputs": ["aGk="], "parameters": {"top_k": 3}}), JSON),
        (body({"inputs": [tensor()], "parameters": {"top_k": 3}}), JSON),
        (body({"inputs": [tensor(parameters={"top_k": 3})]}), JSON),
        (body({"inputs": [tensor(), tensor(name="top_k", datatype="INT64", data=[3])]}), JSON),
        (body({"inputs": "aGk=", "parameters": {"generate_parameters": {"top_k": 3}}}), JSON),
        (body({"inputs": "aGk="}) | {"top_k": b"3"}, JSON),
    ],
)
def test_strings_and_parameters_are_parsed_in_every_json_form(fields, headers):
    request = read(fields, headers)
    assert request.payloads == ("aGk=",)
    assert request.parameters == {"top_k": 3}


@pytest.mark.parametrize(
    "parameters",
    [{"top_k": b"3"}, {"parameters": b'{"top_k": 3}'}, {"parameters": '{"top_k": 3}'}],
)
def test_form_fields_are_parameters(parameters):
    assert read({"image": b"hi"} | parameters).parameters == {"top_k": 3}


def test_form_fields_are_parsed_as_json_scalars_or_strings():
    fields = {"image": b"x", "a": b"0.5", "b": b"true", "c": b"never", "d": b"NaN"}
    assert read(fields).parameters == {"a": 0.5, "b": True, "c": "never", "d": "NaN"}


def test_grpc_byte_parameters_are_base64_and_strings_over_rest():
    parameter = tensor(name="early_stopping", data=["bmV2ZXI="])
    assert read(body({"inputs": [tensor(), parameter], "id": ""}), GRPC_TENSORS).parameters == {
        "early_stopping": "never"
    }
    parameter["data"] = ["never"]
    assert read(body({"inputs": [tensor(), parameter]}), JSON).parameters == {"early_stopping": "never"}


def test_pixels_keep_shape_and_type():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    message = {"inputs": [tensor(shape=[2, 2, 3], datatype="UINT8", data=pixels.tolist())]}
    (payload,) = read(body(message), JSON).payloads
    assert payload.dtype == np.uint8
    assert (payload == pixels).all()
    message = {"inputs": [tensor(shape=[2, 2, 1, 3], datatype="UINT8", data=pixels.ravel().tolist())]}
    assert [array.shape for array in read(body(message), JSON).payloads] == [(2, 1, 3), (2, 1, 3)]


@pytest.mark.parametrize(
    ("fields", "headers", "message"),
    [
        ({"body": bytearray()}, HTTP, "the body is empty"),
        ({"body": bytearray()}, JSON, "the body is empty"),
        ({}, HTTP, "expected a field named one of 'image', 'data'"),
        ({"photo": b"x"}, HTTP, "expected a field named one of 'image', 'data'"),
        ({"image": b""}, HTTP, "the field 'image' is empty"),
        ({"image": b"x", "data": b"y"}, HTTP, "several inputs"),
        ({"image": b"x", "top_k": b"\xff"}, HTTP, "the field 'top_k' is not UTF-8"),
        ({"image": b"x", "parameters": b"[]"}, HTTP, "'parameters' must be a JSON object"),
        ({"body": bytearray(b"{")}, JSON, "not valid JSON"),
        (
            {"body": bytearray(b"\xff\xd8\xff")},
            JSON,
            "for a raw input set Content-Type: application/octet-stream",
        ),
        ({"body": bytearray(b'{"inputs": NaN}')}, JSON, "NaN is not a JSON number"),
        ({"body": bytearray(b'{"inputs": "a", "inputs": "b"}')}, JSON, "appears twice"),
        ({"body": bytearray(b"[" * 10_000)}, JSON, "nested too deeply"),
        (body([1]), JSON, "must be an object with the field 'inputs', not a list"),
        (body("text"), JSON, "not a string"),
        (body({}), JSON, "'inputs' is missing"),
        (body({"inputs": None}), JSON, "'inputs' is missing or null"),
        (body({"inputs": []}), JSON, "empty list"),
        (body({"inputs": ["a", 1]}), JSON, "not a list with a number"),
        (body({"inputs": [{"b64": "aGk="}]}), JSON, "not a list with an object"),
        (
            body({"inputs": [[[1, 2, 3]]]}),
            JSON,
            "a string (a file in base64) or a list of strings, not a list",
        ),
        (body({"inputs": "a", "id": "7"}), JSON, "unknown field 'id'"),
        (
            body({"inputs": "a", "top_k": 3}),
            JSON,
            "'top_k' is a parameter; send it in the field 'parameters'",
        ),
        (body(json.dumps({"inputs": "a"})), JSON, "not a string: the JSON was encoded twice"),
        (
            body({"inputs": "a"}) | {"image": b"x"},
            JSON,
            "the input is sent twice: as the body and as 'image'",
        ),
        (
            {"body": bytearray(b"text")} | {"data": b"x"},
            HTTP,
            "the input is sent twice: as the body and as 'data'",
        ),
        ({"body": bytearray(b"--2f7c\r\nContent-Disposition: form-data")}, JSON, "a multipart form"),
        ({"body": bytearray(b"image=x&top_k=1")}, JSON, "looks like a form"),
        (body({"inputs": "a", "parameters": 3}), JSON, "'parameters' must be an object, not a number"),
        (body({"inputs": "a", "option": {}}), JSON, "unknown field 'option'"),
        (
            body({"inputs": "a", "parameters": {"k": 1, "generate_parameters": {"k": 2}}}),
            JSON,
            "is sent twice",
        ),
        (body({"inputs": "a", "parameters": {"k": 1}}) | {"k": b"1"}, JSON, "'k' is sent twice"),
        (body({"inputs": [tensor()], "parameters": {"k": 1}}) | {"k": b"1"}, JSON, "'k' is sent twice"),
        ({"image": b"x", "k": b"1", "parameters": b'{"k": 1}'}, HTTP, "'k' is sent twice"),
        (body({"inputs": "a"}), JSON | {"content-encoding": "gzip"}, "not valid gzip"),
    ],
)
def test_malformed_request_is_rejected(fields, headers, message):
    with pytest.raises(BadRequest) as caught:
        read(fields, headers)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([tensor(), tensor()], "two inputs are named 'image'"),
        ([tensor(), tensor(name="data")], "several inputs: 'image' and 'data'; send one"),
        (
            [tensor(), tensor(name="topk", datatype="INT32", data=[3])],
            "'topk' is unknown: inputs other than",
        ),
        ([tensor(name="a"), tensor(name="b")], "'b' is unknown: inputs other than 'image' must have"),
        ([tensor(name="a"), tensor(name="b")], "the name of a parameter (early_stopping, top_k)"),
        ([tensor(parameters={"content_type": "datetime"})], "'content_type' is not adjustable"),
        ([], "no input: expected a tensor named 'image'"),
        ([tensor(name="top_k", datatype="INT32", data=[3])], "no input"),
        ([{"shape": [1]}, tensor()], "object with a 'name'"),
        ([tensor(datatype="BF16")], "unknown datatype 'BF16'"),
        ([tensor(shape=[2])], "the shape [2] has 2 elements, the data 1"),
        ([tensor(shape=[-1])], "'shape' must be a list of at most 8 integers"),
        ([tensor(shape="1")], "'shape' must be a list of at most 8 integers"),
        ([tensor(data="aGk=")], "'data' must be a list"),
        ([tensor(data=[3])], "'3' is not an element of BYTES, which takes strings"),
        ([tensor(data=["a", ["b"]], shape=[2])], "the lists within 'data' differ in length or depth"),
        (
            [tensor(datatype="UINT8", shape=[2, 2], data=[[1, 2], [3]])],
            "the shape [2, 2] has 4 elements, the data 3",
        ),
        ([tensor(parameters={"shared_memory_region": "x"})], "shared memory is not supported; send the data"),
        ([tensor(data=[], shape=[0])], "is empty"),
        ([tensor(data=["?"], parameters={"content_type": "base64"})], "not base64"),
        ([tensor(datatype="UINT8", data=[256])], "UINT8 takes 0 to 255"),
        ([tensor(datatype="UINT8", data=[1.5])], "'1.5' is not an element of UINT8"),
        ([tensor(datatype="UINT8", data=[True])], "'True' is not an element of UINT8"),
        ([tensor(), tensor(name="top_k", datatype="INT32", data=[1, 2], shape=[2])], "one element, not 2"),
        ([tensor(parameters=3)], "'parameters' must be an object"),
        (
            [tensor(parameters={"top_k": 1}), tensor(name="top_k", datatype="INT32", data=[3])],
            "'top_k' is sent twice",
        ),
        ([tensor(data=['{"inputs": "x"}'])], "the input 'image' holds JSON"),
        ([tensor(datatype="FP32", data=[10**400])], "do not fit its datatype FP32"),
        ([tensor(shape=[1] * 100)], "at most 8 integers"),
        ([tensor(shape=[0, 10**30])], "at most 8 integers"),
        ([tensor(shape=[10**4000])], "at most 8 integers"),
    ],
)
def test_malformed_tensor_is_rejected_in_the_protocol(inputs, message):
    opened = parser(body({"id": "7", "inputs": inputs}), JSON)
    with pytest.raises(HandlerError) as caught:
        opened.parse()
    assert message in caught.value.message
    assert opened.encoder.encode_error(caught.value)["error"] == caught.value.message


def test_too_many_inputs_are_rejected():
    with pytest.raises(TooManyItems, match="5 inputs in one request; at most 4"):
        read(body({"inputs": ["a"] * 5}), JSON)


def test_error_over_grpc_is_a_complete_response():
    opened = parser(body({"id": "7", "model_name": "net", "inputs": []}), GRPC_TENSORS)
    with pytest.raises(BadRequest) as caught:
        opened.parse()
    encoder = opened.encoder.encode_error(caught.value)
    assert (encoder["id"], encoder["model_name"], encoder["model_version"]) == ("7", "net", "1.0")
    (output,) = encoder["outputs"]
    assert output["name"] == "error"
    assert json.loads(output["data"][0])["type"] == "InvalidRequest"


def test_invalid_json_over_grpc_gets_a_complete_response():
    opened = parser({"body": bytearray(b"{")}, GRPC_TENSORS)
    with pytest.raises(BadRequest):
        opened.parse()
    assert isinstance(opened.encoder, OpenInferenceEncoder)


def test_selected_outputs_and_id_are_parsed():
    message = {"id": "42", "inputs": [tensor()], "outputs": [{"name": "score"}]}
    encoder = read(body(message), JSON).encoder
    assert (encoder.id, encoder.requested_outputs) == ("42", (RequestedOutput("score"),))


def test_proxied_form_is_parsed():
    form = b"--x\r\nContent-Disposition: form-data; name=image; filename=a.jpg\r\n\r\nhi\r\n--x--\r\n"
    headers = HTTP | {"X-Form-Content-Type": "multipart/form-data; boundary=x"}
    request = read({"body": bytearray(form), "top_k": b"3"}, headers)
    assert (request.payloads, request.parameters) == ((b"hi",), {"top_k": 3})
    with pytest.raises(BadRequest, match="truncated"):
        read({"body": bytearray(form[:-9])}, headers)
    with pytest.raises(BadRequest, match="'image' is sent twice"):
        read({"body": bytearray(form), "image": b"x"}, headers)


def test_repeated_input_name_is_rejected_in_linear_time():
    names = [f'"{number}": 0' for number in range(100_000)]
    text = "{" + ", ".join([*names, '"99999": 1']) + "}"
    with pytest.raises(BadRequest, match=r"'99999' appears twice"):
        read({"body": bytearray(text.encode())}, JSON)


@pytest.mark.parametrize("value", [{"inputs": "aGk="}, json.dumps({"inputs": "aGk="})])
def test_body_parsed_by_the_server_is_accepted(value):
    assert read({"body": value}, JSON).payloads == ("aGk=",)
    assert read({"body": "hi"}, HTTP | {"content-type": "text/plain"}).payloads == (b"hi",)


def test_model_name_in_query_is_not_a_parameter():
    assert read({"body": b"hi", "model_name": b"net", "top_k": b"3"}).parameters == {"top_k": 3}


def test_header_names_are_case_insensitive():
    content = base64.b64encode(b"hi").decode()
    request = read(body({"inputs": content}), HTTP | {"CONTENT-TYPE": "Application/JSON"})
    assert request.payloads == (content,)


CURL = HTTP | {
    "X-Form-Content-Type": "application/x-www-form-urlencoded",
    "Content-Type": "application/octet-stream",
    "body": {"content-type": "application/octet-stream"},
}


@pytest.mark.parametrize(
    ("sent", "payload", "parameters"),
    [
        (b"image=a%26b+%FF%00&top_k=3", b"a&b \xff\x00", {"top_k": 3}),
        (b"top_k=3&data=hi there=\xc3\xa9", "hi there=é".encode(), {"top_k": 3}),
        (b"\xff\xd8\xff\xe0 a jpeg &image=x", b"\xff\xd8\xff\xe0 a jpeg &image=x", {}),
        (b"Profit & loss: a=b&c=d", b"Profit & loss: a=b&c=d", {}),
        (b"x=1&y=2 or so", b"x=1&y=2 or so", {}),
        (b' {"inputs": "hi", "parameters": {"top_k": 3}}', "hi", {"top_k": 3}),
        (b"{words}: hi", b"{words}: hi", {}),
    ],
)
def test_body_declared_as_form_by_curl_is_parsed_by_content(sent, payload, parameters):
    request = read({"body": bytearray(sent)}, CURL)
    assert request.payloads == (payload,)
    assert dict(request.parameters) == parameters


@pytest.mark.parametrize("sent", [b"top_k=3", b"x=1&y=%20"])
def test_body_of_other_fields_is_a_form_without_input(sent):
    with pytest.raises(BadRequest, match="no input: expected a field named one of"):
        read({"body": bytearray(sent)}, CURL)


def test_query_parameters_are_merged_with_form_of_curl():
    request = read({"body": bytearray(b"image=x&top_k=3"), "function_to_apply": bytearray(b"none")}, CURL)
    assert dict(request.parameters) == {"top_k": 3, "function_to_apply": "none"}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "the body is empty"),
        (b"image=", "the field 'image' is empty"),
        (b"image=a&data=b", "several inputs"),
        (b"image=a&image=b", "'image' twice"),
        (b"image=a" + b"&x=1" * 200, "more than 100 fields"),
        (b'{"inputs": }', "not valid JSON"),
        (b"Rain+fell.", "an encoded form value without a field name; send it as 'image=...'"),
        (b"Rain%20fell.", "percent-encoded"),
        (b"image[]=a&image[]=b", "looks like a form"),
    ],
)
def test_malformed_form_of_curl_is_rejected(sent, message):
    with pytest.raises(BadRequest, match=message):
        read({"body": bytearray(sent)}, CURL)


def test_truncated_form_without_proxy_is_rejected():
    with pytest.raises(InvalidRequest, match="set Content-Type: application/x-www-form-urlencoded"):
        read({"body": bytearray(b"image=x")})


def test_null_instances_are_ignored():
    assert read(body({"instances": None, "inputs": "a"}), JSON).payloads == ("a",)


def test_parameters_field_of_query_is_merged_with_any_body():
    query = {"parameters": b'{"top_k": 3}'}
    assert read(body({"inputs": "a"}) | query, JSON).parameters == {"top_k": 3}
    assert read({"body": bytearray(b"a")} | query).parameters == {"top_k": 3}


@pytest.mark.parametrize("content", [base64.b64encode(b"\xffhi"), base64.urlsafe_b64encode(b"\xffhi")])
def test_binary_base64_of_mlserver_codec_is_decoded(content):
    """The elements are bytes over gRPC and with the binary data extension."""
    data = len(content).to_bytes(4, "little") + content
    parameters = {"content_type": "base64", "binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor(data=None, parameters=parameters)]}).encode()
    headers = HTTP | {"Inference-Header-Content-Length": str(len(head))}
    assert read({"body": bytearray(head + data)}, headers).payloads == (b"\xffhi",)


def test_hub_options_beside_inputs_are_ignored():
    """Versions of huggingface.js before 3.0 always send them."""
    options = {"use_cache": True, "wait_for_model": True, "retry_on_error": False}
    for message in ({"options": options}, {"options": None}, {"options": {}, "parameters": None}):
        request = read(body({"inputs": "a"} | message), JSON)
        assert (request.payloads, request.parameters) == (("a",), {})
    with pytest.raises(BadRequest, match="unknown option 'top_k'"):
        read(body({"inputs": "a", "options": {"top_k": 3}}), JSON)
