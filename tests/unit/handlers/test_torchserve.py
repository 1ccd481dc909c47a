"""Comparison of the unit tests' fake of TorchServe and nginx with recorded requests of the real ones."""

import json
from typing import Any

import pytest

from tests.unit.handlers.recorded import recorded_request
from tests.unit.handlers.torchserve import grpc_request, http_request, model_infer_request

JSON = b'{"inputs": "Rain fell.", "parameters": {"max_new_tokens": 3}}'
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = f"multipart/form-data; boundary={'-' * 40}"
RAIN = b"Rain fell."
CAFE = b"caf\xe9"


def form(*parts: tuple[str, bytes]) -> bytes:
    """Return a multipart form as curl writes it. Parts are (header after its name, content)."""
    mark = b"-" * 42
    lines = [
        b"".join(
            [mark, b"\r\nContent-Disposition: form-data; name=", head.encode(), b"\r\n\r\n", content, b"\r\n"]
        )
        for head, content in parts
    ]
    return b"".join([*lines, mark, b"--\r\n"])


CASES: dict[str, dict[str, Any]] = {
    "json": {"body": JSON, "content_type": "application/json"},
    "json that curl calls a form": {"body": JSON, "content_type": URLENCODED},
    "json without a content type": {"body": JSON},
    "json as text/plain": {"body": JSON, "content_type": "text/plain;charset=UTF-8"},
    "json with a merged content type": {"body": JSON, "content_type": "application/json, application/json"},
    "text in latin-1": {"body": CAFE, "content_type": "text/plain; charset=iso-8859-1"},
    "text that curl calls a form": {"body": RAIN, "content_type": URLENCODED},
    "multipart": {
        "body": form(('"text"', RAIN), ('"max_new_tokens"', b"3")),
        "content_type": MULTIPART,
    },
    "multipart file of json": {
        "body": form(('"file"; filename="a.json"\r\nContent-Type: application/json', JSON)),
        "content_type": MULTIPART,
    },
    "multipart field twice": {
        "body": form(('"text"', RAIN), ('"text"', b"Sun shone.")),
        "content_type": MULTIPART,
    },
    "form": {"body": b"text=Rain+fell.&max_new_tokens=3", "content_type": URLENCODED},
    "form in latin-1": {"body": b"text=caf%E9", "content_type": URLENCODED + "; charset=iso-8859-1"},
    "form with an ampersand": {"body": b"text=AT&T rose.", "content_type": URLENCODED},
    "form with a line break": {"body": b"text=Rain fell.\nSun shone.", "content_type": URLENCODED},
    "form that begins with a brace": {"body": b'{"inputs": "Fish &text=chips"}', "content_type": URLENCODED},
    "form field twice": {"body": b"text=Rain+fell.&text=Sun+shone.", "content_type": URLENCODED},
    "query of the prediction route": {
        "body": RAIN,
        "content_type": "text/plain",
        "query": [("num_beams", "1"), ("num_beams", "2")],
    },
    "query named body": {
        "body": RAIN,
        "content_type": "text/plain",
        "query": [("body", "x")],
        "route": "invoke",
    },
    "open inference without a content type": {
        "body": b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["Rain fell."]}]}',
        "route": "v2",
    },
    "nothing": {"body": b""},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("proxied", [False, True])
def test_parsed_http_request_equals_recorded_one(name: str, proxied: bool) -> None:
    case = {**CASES[name], "headers": {"Accept": "*/*"}}
    if proxied and case.get("route") == "invoke":
        case["route"] = "predictions"
    assert http_request(**case, proxied=proxied) == recorded_request(
        name + (", through nginx" if proxied else "")
    )


def test_parsed_grpc_request_equals_recorded_one() -> None:
    assert grpc_request({"text": RAIN, "max_new_tokens": b"3"}) == recorded_request("grpc")
    assert grpc_request({"body": JSON}) == recorded_request("grpc json in body")
    fields, headers = recorded_request("grpc open inference")
    message = json.loads(bytes(fields["body"]))
    assert message["inputs"][0] == {
        "shape": [1],
        "data": ["UmFpbiBmZWxsLg=="],
        "datatype": "BYTES",
        "name": "text",
    }
    assert model_infer_request(bytes(fields["body"])) == (fields, headers)
