"""Tests of KServe's V1 protocol: parsing instances and encoding predictions."""

import base64
import json

import pytest

from handlers.core.errors import HandlerError
from handlers.core.kserve_v1 import KServeV1Encoder
from handlers.core.request import RequestParser
from handlers.core.request_content import ParserSettings
from tests.unit.handlers.sending import JSON, OPEN_INFERENCE

V1_ROUTE = OPEN_INFERENCE  # TorchServe hands on both routes alike, without url_path


class Words:
    """An answer encoder that encodes each answer as an object."""

    def encode(self, answer):
        return {"summary_text": answer}

    def outputs(self, answers):
        raise NotImplementedError


def parser(message, headers=V1_ROUTE):
    fields = {"body": bytearray(json.dumps(message).encode())}
    return RequestParser(fields, headers, ParserSettings("net", "1.0", ("image", "data"), 4))


B64 = base64.b64encode(b"\xffhi").decode()


@pytest.mark.parametrize(
    ("instance", "payload"),
    [
        ("a text", "a text"),
        ({"b64": B64}, b"\xffhi"),
        ({"data": "a text"}, "a text"),
        ({"image": {"b64": B64}}, b"\xffhi"),
        ({"image_bytes": {"b64": B64}}, b"\xffhi"),
        ({"b64": f"data:image/png;base64,{B64}"}, b"\xffhi"),
        ({"b64": base64.urlsafe_b64encode(b"\xffhi").decode()}, b"\xffhi"),
    ],
)
@pytest.mark.parametrize("headers", [V1_ROUTE, JSON, JSON | {"url_path": ""}])
def test_instance_in_each_form_is_parsed_on_each_route(instance, payload, headers):
    opened = parser({"instances": [instance, instance], "parameters": {"top_k": 2}, "inputs": None}, headers)
    request = opened.parse()
    assert request.payloads == (payload, payload)
    assert request.parameters == {"top_k": 2}
    assert request.encoder == KServeV1Encoder()


def test_signature_name_of_tensorflow_serving_is_ignored():
    assert parser({"signature_name": "serving_default", "instances": ["a"]}).parse().payloads == ("a",)


def test_each_instance_has_one_prediction():
    encoder = parser({"instances": ["a", "b"]}).parse().encoder
    answer = encoder.encode_answers(Words(), ["x", "y"])
    assert answer == {"predictions": [{"summary_text": "x"}, {"summary_text": "y"}]}
    assert encoder.encode_answers(Words(), ["x"]) == {"predictions": [{"summary_text": "x"}]}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"instances": []}, "'instances' must be a list with at least one element"),
        ({"instances": None}, "'instances' must be a list"),
        ({"instances": "text"}, "'instances' must be a list"),
        (
            {"instances": [[[1, 2, 3]]]},
            'instances[0] must be a string, {"b64": string}, or an object with one',
        ),
        ({"instances": ["a", {"b64": 3}]}, "instances[1] must be"),
        ({"instances": [{"b64": "?"}]}, "'instances[0]': an element is not base64"),
        ({"instances": [{"b64": B64, "data": "x"}]}, "instances[0] must be"),
        ({"instances": [{"photo": "x"}]}, "'image', 'data'"),
        (
            {"instances": ["a"], "inputs": "b"},
            "unknown field 'inputs'; use the fields 'instances' and 'parameters'",
        ),
        ({"instances": ["a"], "signature_name": "tokens"}, "'signature_name' is not adjustable"),
        ({"instances": ["a"], "parameters": 3}, "'parameters' must be an object"),
        ({"instances": ["a"] * 5}, "5 inputs in one request"),
    ],
)
def test_invalid_instance_is_rejected(message, words):
    opened = parser(message)
    with pytest.raises(HandlerError) as caught:
        opened.parse()
    assert words in caught.value.message
    assert opened.encoder.encode_error(caught.value)["error"] == caught.value.message
