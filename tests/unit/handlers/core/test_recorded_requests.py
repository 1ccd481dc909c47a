"""Tests that each recorded request is parsed as its client intended, or rejected."""

import re

import pytest

from handlers.core.errors import BadRequest
from handlers.core.request import ParsedRequest, RequestParser
from handlers.core.request_content import ParserSettings
from tests.unit.handlers.recorded import recorded_request, recorded_requests

PROXIED = ", through nginx"
SHORT = {"max_new_tokens": 3}
JSON = ("Rain fell.", SHORT)
TEXT = (b"Rain fell.", {})
LATIN_1 = ("café", {})
NOT_DECODED = (b"caf\xe9", {})
"""An input that is not UTF-8, which the summarizer rejects."""
TWICE = "'{}' is sent twice"
FORM = "the body is not a complete form"

MEANT: dict[str, tuple[str | bytes, dict[str, object]] | str] = {
    "json": JSON,
    "json with a charset": "the text is UTF-8, but its Content-Type declares utf-16le",
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
    "open inference that curl calls a form": "the Open Inference Protocol does not support forms",
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
"""Expected input and parameters, or words of the error, by name. Requests through nginx without an entry have the
same result as those without nginx."""


def read(name: str) -> ParsedRequest:
    fields, headers = recorded_request(name)
    names = ("text", "data", "file", "inputs")
    settings = ParserSettings("net", "1.0", names, 4, takes_numbers=False, takes_text=True)
    return RequestParser(fields, headers, settings).parse()


@pytest.mark.parametrize("name", recorded_requests())
def test_recorded_request_is_parsed_as_intended(name: str) -> None:
    meant = MEANT[name] if name in MEANT else MEANT[name.removesuffix(PROXIED)]
    if isinstance(meant, str):
        with pytest.raises(BadRequest, match=re.escape(meant)):
            read(name)
        return
    request = read(name)
    assert (*request.payloads, dict(request.parameters)) == meant


def test_every_expectation_has_a_recording() -> None:
    assert MEANT.keys() <= recorded_requests().keys()
