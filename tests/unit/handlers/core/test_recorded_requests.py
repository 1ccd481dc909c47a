"""Each recorded way of sending a request becomes the request that its client meant, or an error."""

import re

import pytest

from handlers.core.errors import BadRequest
from handlers.core.request import Request, RequestParser
from tests.unit.handlers.recorded import recorded, recorded_requests

PROXIED = ", through nginx"
SHORT = {"max_new_tokens": 3}
JSON = ("Rain fell.", SHORT)
TEXT = (b"Rain fell.", {})
LATIN_1 = ("café", {})
NOT_DECODED = (b"caf\xe9", {})
"""Which the summarizer refuses: it is not UTF-8."""
TWICE = "'{}' is given twice"
FORM = "could not read the whole body as the form"

MEANT: dict[str, tuple[str | bytes, dict[str, object]] | str] = {
    "json": JSON,
    "json with a charset": "the text is UTF-8, and its Content-Type says utf-16le",
    "json that curl calls a form": FORM,
    "json that curl calls a form, through nginx": JSON,
    "json without a content type": JSON,
    "json as text/plain": JSON,
    "json as text/json": JSON,
    "json as application/jsonlines": JSON,
    "json with a merged content type": JSON,
    "json with two content types": JSON,
    "text": TEXT,
    "text with a charset": ("Rain fell.", {}),
    "text without a content type": TEXT,
    "text that curl calls a form": FORM,
    "text that curl calls a form, through nginx": TEXT,
    "text in latin-1": LATIN_1,
    "multipart": (b"Rain fell.", SHORT),
    "multipart file": TEXT,
    "multipart part of json": JSON,
    "multipart file of json": JSON,
    "multipart part in latin-1": NOT_DECODED,
    "multipart part in latin-1, through nginx": LATIN_1,
    "multipart file in latin-1": NOT_DECODED,
    "multipart file in latin-1, through nginx": LATIN_1,
    "multipart with a charset field": LATIN_1,
    "multipart field named body": JSON,
    "multipart field named inputs": (b"Rain fell.", {"top_k": 3}),
    "multipart field twice": TWICE.format("text"),
    "multipart field twice, through nginx": "the form has the field 'text' twice",
    "multipart file twice": TWICE.format("file"),
    "multipart file twice, through nginx": "the form has the field 'file' twice",
    "multipart parameter twice": TWICE.format("num_beams"),
    "multipart parameter twice, through nginx": "the form has the field 'num_beams' twice",
    "form": (b"Rain fell.", SHORT),
    "form of json": JSON,
    "form in latin-1": LATIN_1,
    "form with an ampersand": FORM,
    "form with an ampersand, through nginx": "'T rose.' without '='",
    "form with a line break": FORM,
    "form with a line break, through nginx": (b"Rain fell.\nSun shone.", {}),
    "form that begins with a brace": FORM,
    "form that begins with a brace, through nginx": ("Fish &text=chips", {}),
    "form of prose": FORM,
    "form of prose, through nginx": (b"Fish&chips", {}),
    "form field twice": TWICE.format("text"),
    "form field twice, through nginx": "the form has the field 'text' twice",
    "query": (b"Rain fell.", SHORT),
    "query parameter twice": TWICE.format("num_beams"),
    "query of the prediction route": TEXT,  # which TorchServe drops
    "query of the prediction route, through nginx": TWICE.format("num_beams"),
    "query beside a form": TWICE.format("num_beams"),
    "query named body": TWICE.format("body"),
    "open inference": ("Rain fell.", {}),
    "open inference without a content type": ("Rain fell.", {}),
    "open inference that curl calls a form": "the Open Inference Protocol takes no form",
    "open inference that curl calls a form, through nginx": ("Rain fell.", {}),
    "open inference on the prediction route": ("Rain fell.", {}),
    "nothing": "the body is empty",
    "grpc": (b"Rain fell.", SHORT),
    "grpc json": JSON,
    "grpc json in data": JSON,
    "grpc json in body": JSON,
    "grpc inputs and parameters": (b"Rain fell.", SHORT),
    "grpc open inference": (b"Rain fell.", {}),
}
"""An input and its parameters, or words of the error; through nginx the same, unless it has an entry of its own."""


def read(name: str) -> Request:
    fields, headers = recorded(name)
    names = ("text", "data", "file", "inputs")
    return RequestParser(
        fields, headers, "net", "1.0", names, max_items=4, takes_numbers=False, takes_text=True
    ).read()


@pytest.mark.parametrize("name", recorded_requests())
def test_a_recorded_request_is_read_as_it_was_meant(name: str) -> None:
    """Cases 1 to 4."""
    meant = MEANT[name] if name in MEANT else MEANT[name.removesuffix(PROXIED)]
    if isinstance(meant, str):
        with pytest.raises(BadRequest, match=re.escape(meant)):
            read(name)
        return
    request = read(name)
    assert (*request.payloads, dict(request.parameters)) == meant


def test_each_expectation_has_its_recording() -> None:
    assert MEANT.keys() <= recorded_requests().keys()
