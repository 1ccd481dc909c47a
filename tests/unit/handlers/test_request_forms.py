"""Comparison of all request formats: the same text and parameters are parsed to the same result or rejected.

The reference is JSON `{"inputs": ..., "parameters": ...}` with its content type. Seeds are fixed. FUZZ_SECONDS=3600
tests more seeds for an hour.
"""

import base64
import codecs
import itertools
import json
import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import hypothesis
import pytest
from hypothesis import strategies as st

from handlers.core.errors import HandlerError
from handlers.core.json_detection import looks_like_json
from handlers.core.parameters import parse_parameters
from handlers.core.request import RequestParser
from handlers.core.request_content import ParserSettings
from handlers.summarizer import Summarizer
from handlers.text.clean import clean_text
from handlers.text.parameters import GenerationLimits
from tests.unit.handlers.torchserve import (
    AnsweredByTorchServe,
    grpc_request,
    http_request,
    model_infer_request,
)

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES = 30
"""Number of examples for each form and seed."""
ALLOWED = GenerationLimits(256, 8).parameters()
MULTIPART = "multipart/form-data; boundary=2f7c"
URLENCODED = "application/x-www-form-urlencoded"
CHARSETS = (
    "utf-8",
    "utf-16le",
    "utf-16",
    "iso-8859-1",
    "windows-1252",
    "shift_jis",
    "gb18030",
    "koi8-r",
    "utf-32be",
)
LIMITS = hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
HandlerRequest = tuple[dict[str, Any], dict[str, Any]]


class Content(NamedTuple):
    text: str
    parameters: Mapping[str, Any]


class Outcome(NamedTuple):
    """The parsed inputs and parameters, or the status of the error."""

    texts: tuple[str, ...] = ()
    parameters: Mapping[str, Any] | None = None
    status: int = 200


FRAGMENTS = st.sampled_from(
    [
        *(
            "&",
            "=",
            "%",
            "+",
            "%zz",
            "%41",
            "?",
            "#",
            ";",
            "\n",
            "\r\n",
            "\r",
            "\t",
            "\0",
            " ",
            '"',
            "'",
            "\\",
            "\\u00e9",
        ),
        *(
            "text=",
            "&text=",
            "&num_beams=2",
            "--2f7c",
            "\r\n--2f7c--\r\n",
            "\ufeff",
            "</s>",
            "<pad>",
            "<extra_id_0>",
        ),
        *(
            '{"inputs": "x"}',
            '{"inputs": ',
            "[1]",
            "{}",
            "{",
            "[",
            "null",
            "12",
            "true",
            "é",
            "橋",
            "😀",
            "\u2028",
            "{{a}}",
        ),
        *(
            "AT&T rose",
            "100 % of it",
            "Rain fell.",
            "data:text/plain;base64,aGk=",
            "aGk=",
            "\x1b$B",
            "a:b",
            "key: value\n",
        ),
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=12), min_size=1, max_size=6).map("".join)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "num_beams": st.integers(-1, 9),
        "max_new_tokens": st.integers(0, 300) | st.just("30"),
        "length_penalty": st.floats(-3, 6, allow_nan=False) | st.integers(-3, 6),
        "early_stopping": st.booleans() | st.just("never"),
        "top_k": st.just(3),
    },
)
CONTENTS = st.builds(Content, TEXTS, PARAMETERS)

SETTINGS = ParserSettings("net", "1.0", Summarizer.payload_fields, 4, takes_numbers=False, takes_text=True)


def outcome(request: HandlerRequest) -> Outcome:
    """Return the inputs and parameters that the summarizer parses, before tokenization, or the error."""
    parser = RequestParser(*request, SETTINGS)
    try:
        parsed = parser.parse()
        parameters = parse_parameters(parsed.parameters, ALLOWED)
        texts = tuple(clean_text(payload, 10_000).lstrip("\ufeff") for payload in parsed.payloads)
    except HandlerError as error:
        return Outcome(status=error.code)
    return Outcome(texts, parameters)


def canonical_outcome(content: Content) -> Outcome:
    body = json.dumps({"inputs": content.text, "parameters": content.parameters})
    return outcome(http_request(body.encode(), "application/json"))


def scalar(value: Any) -> str:
    return value if isinstance(value, str) and not value.isdigit() else json.dumps(value)


def part(name: str, content: bytes, more: str = "") -> bytes:
    return (
        f'--2f7c\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"
    )


# Each form has `choose`, which selects a random variant, and returns the request as a handler receives it.
Choose = Callable[..., Any]
SAME, MAY_REJECT, MUST_REJECT = "same", "may reject", "must reject"
"""Expected result of a request format: the canonical result; the canonical result or an error, because TorchServe
drops some data; or an error."""


def as_json(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    message = {"inputs": choose(content.text, [content.text]), "parameters": dict(content.parameters)}
    source = json.dumps(message, ensure_ascii=choose(True, False), indent=choose(None, 2))
    types = (
        "",
        "application/json",
        "text/plain;charset=UTF-8",
        "text/json",
        "application/jsonlines",
        "image/jpeg",
    )
    mime = choose(*types, "application/json, application/json", "text/plain", "application/octet-stream")
    body = choose("", "\ufeff", " \n").encode() + source.encode()
    return http_request(body, mime, proxied=choose(True, False)), SAME


def as_json_that_curl_calls_a_form(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    body = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)}).encode()
    proxied = choose(True, False)
    return http_request(body, URLENCODED, proxied=proxied), SAME if proxied else MUST_REJECT


def as_json_in_a_charset(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    charset = choose(*CHARSETS)
    source = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)}, ensure_ascii=False)
    need(encodable(source, charset))
    mime = choose("application/json", "text/plain", "application/octet-stream")
    return http_request(
        source.encode(charset), f"{mime}; charset={charset}", proxied=choose(True, False)
    ), SAME


def as_json_with_a_mark(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    """Return JSON with a byte order mark, which takes precedence over the declared charset (Windows writes it)."""
    source = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)}, ensure_ascii=False)
    mime = choose(
        "", "application/json", "text/plain", "application/json; charset=utf-8", "text/plain; charset=latin1"
    )
    body = source.encode(choose("utf-16", "utf-8-sig", "utf-32"))
    return http_request(body, mime, proxied=choose(True, False)), SAME


def as_text(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    charset = choose(*CHARSETS)
    need(encodable(content.text, charset))
    declared = choose("text/plain; charset={}", 'text/html; Charset="{}"').format(charset)
    query = [(name, scalar(value)) for name, value in content.parameters.items()]
    if charset == "utf-8":
        declared = choose("", "text/plain", declared, "application/octet-stream")
    proxied = choose(True, False)
    route = "predictions" if proxied else "invoke"
    return http_request(
        content.text.encode(charset), declared, proxied=proxied, query=query, route=route
    ), MAY_REJECT


def as_multipart(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    name = choose("text", "data", "file", "inputs")
    file = choose("", '; filename="a.txt"')
    charset = choose(*CHARSETS)
    need(encodable(content.text, charset) and "--2f7c" not in content.text)
    proxied = choose(True, False)
    of_part = choose(True, False)
    mime = f"\r\nContent-Type: text/plain; charset={charset}" if of_part and charset != "utf-8" else ""
    parts = [part(name, content.text.encode(charset), file + mime), *fields_of(content, choose)]
    if not of_part and charset != "utf-8":
        parts.append(part("_charset_", charset.encode()))
        parts = [parts[0], parts[-1]] if not content.parameters else parts
        need(charset not in ("utf-16le", "utf-16", "utf-32be") or not content.parameters)
    body = b"".join(parts) + b"--2f7c--\r\n"
    return http_request(body, MULTIPART, proxied=proxied), MAY_REJECT


def fields_of(content: Content, choose: Choose) -> list[bytes]:
    if not content.parameters:
        return []
    if choose(True, False):
        return [part("parameters", json.dumps(dict(content.parameters)).encode())]
    return [part(name, scalar(value).encode()) for name, value in content.parameters.items()]


def as_json_in_a_field(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    source = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)}).encode()
    name = choose("text", "data", "file", "inputs")
    mime = choose("", '; filename="a.json"', '; filename="a.json"\r\nContent-Type: application/json')
    forms: list[Callable[[], HandlerRequest]] = [
        lambda: http_request(
            part(name, source, mime) + b"--2f7c--\r\n", MULTIPART, proxied=choose(True, False)
        ),
        lambda: http_request(
            f"{name}={quote_plus(source)}".encode(), URLENCODED, proxied=choose(True, False)
        ),
        lambda: grpc_request({choose(name, "body"): source}),
    ]
    return choose(*forms)(), SAME


def as_urlencoded(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    encode = choose(quote, quote_plus, lambda text: quote(text, safe="!~*'()"))
    pairs = [("text", content.text), *((name, scalar(value)) for name, value in content.parameters.items())]
    body = "&".join(f"{name}={encode(value)}" for name, value in pairs).encode()
    return http_request(body, URLENCODED, proxied=choose(True, False)), MAY_REJECT


def as_text_that_curl_calls_a_form(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    need(not content.parameters and "=" not in content.text)  # `text=...` is a form
    proxied = choose(True, False)
    return http_request(
        content.text.encode(), URLENCODED, proxied=proxied
    ), MAY_REJECT if proxied else MUST_REJECT


def as_field_that_is_not_encoded(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    """Return the form of `curl -d "text=..."`, in which `+`, `%` and `&name=` are special, but a final `&` is not."""
    need(not content.parameters and not {"+", "%", "\ufeff"} & set(content.text))
    need("&num_beams=" not in content.text and content.text[-1:] not in ("&", "\n"))
    proxied = choose(True, False)
    # Without nginx, TorchServe may drop the end, which the length does not always reveal (test_forms.py).
    need(proxied or not {"&", "\n", "\r"} & set(content.text))
    return http_request(b"text=" + content.text.encode(), URLENCODED, proxied=proxied), MAY_REJECT


def as_grpc(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    entries = {choose("text", "data", "body"): content.text.encode()}
    if content.parameters and choose(True, False):
        entries["parameters"] = json.dumps(dict(content.parameters)).encode()
    else:
        entries |= {name: scalar(value).encode() for name, value in content.parameters.items()}
    return grpc_request(entries), MAY_REJECT


def as_tensor(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    tensor = {"name": choose("text", "inputs"), "shape": [1], "datatype": "BYTES", "data": [content.text]}
    message = {"inputs": [tensor], "parameters": dict(content.parameters)}
    route, mime = choose("v2", "predictions"), choose("", "application/json", "text/plain")
    return http_request(
        json.dumps(message).encode(), mime, route=route, proxied=choose(True, False)
    ), MAY_REJECT


def as_binary_tensor(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    data = content.text.encode()
    data = struct.pack("<I", len(data)) + data
    tensor = {
        "name": "text",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": dict(content.parameters)}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return http_request(head + data, "application/octet-stream", route="v2", headers=headers), MAY_REJECT


def as_grpc_tensor(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    need(not content.parameters)
    data = base64.b64encode(content.text.encode()).decode()
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [data]}
    return model_infer_request(
        json.dumps({"id": "1", "model_name": "net", "inputs": [tensor]}).encode()
    ), MAY_REJECT


def form_of_another_type(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    """Return a form with another content type, or an incorrectly encoded object."""
    mime, proxied = (
        choose("", "text/plain", "application/octet-stream", "application/json"),
        choose(True, False),
    )
    fields = "&".join(f"{name}={quote(scalar(value))}" for name, value in content.parameters.items())
    source = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)})
    body = choose(
        f"{choose('text', 'inputs', 'data')}={quote(content.text)}&{fields}".encode(),
        part("text", content.text.encode()) + b"--2f7c--\r\n",
        b"[object Object]",
        quote(source, safe="").encode(),
        choose("'", "b'", "\u200b", "\0", "\u2028", "\x1e").encode() + source.encode(),
        f"payload={source}".encode(),
        json.dumps(source).encode(),
    )
    return http_request(body, mime, proxied=proxied), MUST_REJECT


def repeated_field(content: Content, choose: Choose) -> tuple[HandlerRequest, str]:
    need("--2f7c" not in content.text)
    text, proxied = content.text.encode(), choose(True, False)
    forms: list[Callable[[], HandlerRequest]] = [
        lambda: http_request(part("text", text) * 2 + b"--2f7c--\r\n", MULTIPART, proxied=proxied),
        lambda: http_request(
            part("file", text, '; filename="a"') + part("file", b"x", '; filename="b"') + b"--2f7c--\r\n",
            MULTIPART,
            proxied=proxied,
        ),
        lambda: http_request(f"text={quote(text)}&text=x".encode(), URLENCODED, proxied=proxied),
        lambda: http_request(
            text,
            "text/plain",
            proxied=proxied,
            query=[("num_beams", "1"), ("num_beams", choose("1", "2"))],
            route="predictions" if proxied else "invoke",
        ),
        lambda: http_request(
            part("text", text) + part("num_beams", b"1") + b"--2f7c--\r\n",
            MULTIPART,
            proxied=proxied,
            query=[("num_beams", "2")],
            route="predictions" if proxied else "invoke",
        ),
    ]
    return choose(*forms)(), MUST_REJECT


FORMS = [value for name, value in list(globals().items()) if name.startswith("as_")]
REJECTED = [form_of_another_type, repeated_field]


class NotApplicable(Exception):
    """A request format that cannot represent the content."""


def need(condition: bool) -> None:
    if not condition:
        raise NotApplicable


def encodable(text: str, charset: str) -> bool:
    """Return True if the encoded text can be decoded again: without a byte order mark, and not UTF-8 by chance."""
    try:
        content = text.encode(charset)
        if codecs.decode(content, charset) != text or (charset != "utf-16" and content.startswith(MARKS)):
            return False
    except UnicodeError:
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    if charset.startswith(("utf-16", "utf-32")):
        return 0 in content
    return charset == "utf-8" or content.isascii()


def check(
    form: Callable[[Content, Choose], tuple[HandlerRequest, str]], content: Content, data: st.DataObject
) -> None:
    try:
        content.text.encode()
        request, owed = form(content, lambda *options: data.draw(st.sampled_from(options)))
    except (UnicodeEncodeError, AnsweredByTorchServe, NotApplicable):
        return
    got, expected = outcome(request), canonical_outcome(content)
    assert got.status < 500
    if owed == MUST_REJECT:
        assert got.status != 200, (form.__name__, request, got)
    elif owed == SAME or got.status == 200:
        if owed == MAY_REJECT and looks_like_json(content.text):
            return  # a text that is JSON is JSON, which is documented
        assert got == expected, (form.__name__, request)


@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.full
def test_every_form_is_parsed_like_the_canonical_form() -> None:
    end = time.monotonic() + SECONDS
    for seed in itertools.count():
        for form in FORMS + REJECTED:
            examples = hypothesis.given(st.just(form), CONTENTS, st.data())(check)
            hypothesis.seed(seed)(LIMITS(examples))()
        if time.monotonic() > end:
            break


def test_plain_contents_are_mostly_accepted_in_every_form() -> None:
    """Complements the test above, which a parser that rejects everything would pass."""
    content = Content("Rain fell on the café.", {"num_beams": 2, "early_stopping": "never"})
    accepted = set()
    for form, proxied in itertools.product(FORMS, (True, False)):

        def choose(*options: Any, proxied: bool = proxied) -> Any:
            return proxied if options == (True, False) else options[0]

        for variant in (content, content._replace(parameters={})):
            try:
                request, owed = form(variant, choose)
            except NotApplicable:
                continue
            if owed != MUST_REJECT:
                assert outcome(request) == canonical_outcome(variant), (form.__name__, request)
                accepted.add(form)
    assert accepted == set(FORMS)
