"""Input maps of `Predictions` as multipart forms."""

import httpx
import pytest

from handlers.core.errors import InvalidRequest, TooLarge
from tests.unit.gateway.grpc.grpc_calls import read_form
from torchserve_models.client import ModelNotFound
from torchserve_models.client._stubs.inference_pb2 import PredictionsRequest
from torchserve_models.gateway.grpc.input_map import to_rest

INPUT = {"data": b"\r\n--\x00\xff", "parameters": b'{"top_k": 1}', "gr\u00f6\u00dfe 2": b""}


def translate(fields, model="echo", max_bytes=1000, **others):
    return to_rest(
        PredictionsRequest(model_name=model, input=fields, **others).SerializeToString(), max_bytes
    )


def test_entries_become_parts_without_changes():
    rest = translate(INPUT)
    request = httpx.Request("POST", "http://here", content=rest.body, headers=rest.headers)
    fields, _ = read_form(request)
    assert fields == INPUT
    assert rest.path == "/predictions/echo"
    assert translate(INPUT, model_version="2.0").path == "/predictions/echo/2.0"


def test_reserved_entries_become_headers():
    rest = translate({"data": b"x", "x-request-timeout": b"2.5", "x-request-id": b"mine"})
    assert (rest.headers["x-request-timeout"], rest.headers["x-request-id"]) == ("2.5", "mine")
    assert b"x-request" not in rest.body
    with pytest.raises(InvalidRequest, match="must be printable"):
        translate({"data": b"x", "x-request-id": b"a\r\nb: c"})


@pytest.mark.parametrize(
    "key", ["", 'a"b', "a\r\nb", "a;b", "a=b", "a:b", "a,b", " a", "a ", "a\\", "a" * 257]
)
def test_key_that_torchserve_would_change_is_rejected(key):
    with pytest.raises(InvalidRequest, match="invalid key"):
        translate({key: b"x"})


def test_message_without_input_or_model_is_rejected():
    with pytest.raises(InvalidRequest, match="the input map is empty"):
        translate({"x-request-timeout": b"1"})
    for model in ("", "a/b", ".."):
        with pytest.raises(ModelNotFound):
            translate({"data": b"x"}, model)
    with pytest.raises(InvalidRequest):
        to_rest(b"\xff", 1000)


def test_form_is_limited():
    with pytest.raises(TooLarge):
        translate({"data": bytes(1000)})
