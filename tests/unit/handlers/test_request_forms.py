"""The same text and parameters, sent in every form, are read alike or refused: never misread, never an error of ours.

The oracle is the canonical form: JSON `{"inputs": ..., "parameters": ...}` with its content type. Runs one
round; FUZZ_SECONDS=3600 lets it try further seeds for an hour. Seeds are fixed.
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
from handlers.core.json_source import is_json_source
from handlers.core.parameters import parse_parameters
from handlers.core.request import RequestParser
from handlers.summarizer import Summarizer
from handlers.text.clean import clean_text
from handlers.text.parameters import GenerationLimits
from tests.unit.handlers.torchserve import NotReceived, by_grpc, model_infer, received

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES = 30
"""For each form and seed."""
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
Handed = tuple[dict[str, Any], dict[str, Any]]


class Content(NamedTuple):
    text: str
    parameters: Mapping[str, Any]


class Outcome(NamedTuple):
    """What was read, or the error's status."""

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


def outcome(handed: Handed) -> Outcome:
    """What the summarizer reads of a request, up to the tokenizer."""
    parser = RequestParser(
        *handed, "net", "1.0", Summarizer.payload_fields, 4, takes_numbers=False, takes_text=True
    )
    try:
        request = parser.read()
        parameters = parse_parameters(request.parameters, ALLOWED)
        texts = tuple(clean_text(payload, 10_000).lstrip("\ufeff") for payload in request.payloads)
    except HandlerError as error:
        return Outcome(status=error.code)
    return Outcome(texts, parameters)


def canonical(content: Content) -> Outcome:
    body = json.dumps({"inputs": content.text, "parameters": content.parameters})
    return outcome(received(body.encode(), "application/json"))


def scalar(value: Any) -> str:
    return value if isinstance(value, str) and not value.isdigit() else json.dumps(value)


def part(name: str, content: bytes, more: str = "") -> bytes:
    return (
        f'--2f7c\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"
    )


# Each form gets `choose`, which draws from what it is given, and says what a handler would get.
Choose = Callable[..., Any]
SAME, MAY_REFUSE, MUST_REFUSE = "same", "may refuse", "must refuse"
"""What a form owes: the canonical outcome; that or a refusal, as something is lost on the way; a refusal."""


def as_json(content: Content, choose: Choose) -> tuple[Handed, str]:
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
    return received(body, mime, proxied=choose(True, False)), SAME


def as_json_that_curl_calls_a_form(content: Content, choose: Choose) -> tuple[Handed, str]:
    body = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)}).encode()
    proxied = choose(True, False)
    return received(body, URLENCODED, proxied=proxied), SAME if proxied else MUST_REFUSE


def as_json_in_a_charset(content: Content, choose: Choose) -> tuple[Handed, str]:
    charset = choose(*CHARSETS)
    source = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)}, ensure_ascii=False)
    need(encodable(source, charset))
    mime = choose("application/json", "text/plain", "application/octet-stream")
    return received(source.encode(charset), f"{mime}; charset={charset}", proxied=choose(True, False)), SAME


def as_json_with_a_mark(content: Content, choose: Choose) -> tuple[Handed, str]:
    """A byte order mark tells the charset, whatever is declared: Windows' editors and shells write files so."""
    source = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)}, ensure_ascii=False)
    mime = choose(
        "", "application/json", "text/plain", "application/json; charset=utf-8", "text/plain; charset=latin1"
    )
    body = source.encode(choose("utf-16", "utf-8-sig", "utf-32"))
    return received(body, mime, proxied=choose(True, False)), SAME


def as_text(content: Content, choose: Choose) -> tuple[Handed, str]:
    charset = choose(*CHARSETS)
    need(encodable(content.text, charset))
    declared = choose("text/plain; charset={}", 'text/html; Charset="{}"').format(charset)
    query = [(name, scalar(value)) for name, value in content.parameters.items()]
    if charset == "utf-8":
        declared = choose("", "text/plain", declared, "application/octet-stream")
    proxied = choose(True, False)
    route = "predictions" if proxied else "invoke"
    return received(
        content.text.encode(charset), declared, proxied=proxied, query=query, route=route
    ), MAY_REFUSE


def as_multipart(content: Content, choose: Choose) -> tuple[Handed, str]:
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
    return received(body, MULTIPART, proxied=proxied), MAY_REFUSE


def fields_of(content: Content, choose: Choose) -> list[bytes]:
    if not content.parameters:
        return []
    if choose(True, False):
        return [part("parameters", json.dumps(dict(content.parameters)).encode())]
    return [part(name, scalar(value).encode()) for name, value in content.parameters.items()]


def as_json_in_a_field(content: Content, choose: Choose) -> tuple[Handed, str]:
    source = json.dumps({"inputs": content.text, "parameters": dict(content.parameters)}).encode()
    name = choose("text", "data", "file", "inputs")
    mime = choose("", '; filename="a.json"', '; filename="a.json"\r\nContent-Type: application/json')
    forms: list[Callable[[], Handed]] = [
        lambda: received(part(name, source, mime) + b"--2f7c--\r\n", MULTIPART, proxied=choose(True, False)),
        lambda: received(f"{name}={quote_plus(source)}".encode(), URLENCODED, proxied=choose(True, False)),
        lambda: by_grpc({choose(name, "body"): source}),
    ]
    return choose(*forms)(), SAME


def as_urlencoded(content: Content, choose: Choose) -> tuple[Handed, str]:
    encode = choose(quote, quote_plus, lambda text: quote(text, safe="!~*'()"))
    pairs = [("text", content.text), *((name, scalar(value)) for name, value in content.parameters.items())]
    body = "&".join(f"{name}={encode(value)}" for name, value in pairs).encode()
    return received(body, URLENCODED, proxied=choose(True, False)), MAY_REFUSE


def as_text_that_curl_calls_a_form(content: Content, choose: Choose) -> tuple[Handed, str]:
    need(not content.parameters and "=" not in content.text)  # `text=...` is a form
    proxied = choose(True, False)
    return received(
        content.text.encode(), URLENCODED, proxied=proxied
    ), MAY_REFUSE if proxied else MUST_REFUSE


def as_field_that_is_not_encoded(content: Content, choose: Choose) -> tuple[Handed, str]:
    """`curl -d "text=..."`: `+`, escapes and `&name=` mean what they mean in any form, the last separator nothing."""
    need(not content.parameters and not {"+", "%", "\ufeff"} & set(content.text))
    need("&num_beams=" not in content.text and content.text[-1:] not in ("&", "\n"))
    proxied = choose(True, False)
    # Without nginx TorchServe may drop the end, which the length alone does not always tell (test_forms.py).
    need(proxied or not {"&", "\n", "\r"} & set(content.text))
    return received(b"text=" + content.text.encode(), URLENCODED, proxied=proxied), MAY_REFUSE


def as_grpc(content: Content, choose: Choose) -> tuple[Handed, str]:
    entries = {choose("text", "data", "body"): content.text.encode()}
    if content.parameters and choose(True, False):
        entries["parameters"] = json.dumps(dict(content.parameters)).encode()
    else:
        entries |= {name: scalar(value).encode() for name, value in content.parameters.items()}
    return by_grpc(entries), MAY_REFUSE


def as_tensor(content: Content, choose: Choose) -> tuple[Handed, str]:
    tensor = {"name": choose("text", "inputs"), "shape": [1], "datatype": "BYTES", "data": [content.text]}
    message = {"inputs": [tensor], "parameters": dict(content.parameters)}
    route, mime = choose("v2", "predictions"), choose("", "application/json", "text/plain")
    return received(json.dumps(message).encode(), mime, route=route, proxied=choose(True, False)), MAY_REFUSE


def as_binary_tensor(content: Content, choose: Choose) -> tuple[Handed, str]:
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
    return received(head + data, "application/octet-stream", route="v2", headers=headers), MAY_REFUSE


def as_grpc_tensor(content: Content, choose: Choose) -> tuple[Handed, str]:
    need(not content.parameters)
    data = base64.b64encode(content.text.encode()).decode()
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [data]}
    return model_infer(json.dumps({"id": "1", "model_name": "net", "inputs": [tensor]}).encode()), MAY_REFUSE


def misdeclared(content: Content, choose: Choose) -> tuple[Handed, str]:
    """Forms whose content type does not say so, and what is left of objects that were not encoded."""
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
    return received(body, mime, proxied=proxied), MUST_REFUSE


def twice(content: Content, choose: Choose) -> tuple[Handed, str]:
    need("--2f7c" not in content.text)
    text, proxied = content.text.encode(), choose(True, False)
    forms: list[Callable[[], Handed]] = [
        lambda: received(part("text", text) * 2 + b"--2f7c--\r\n", MULTIPART, proxied=proxied),
        lambda: received(
            part("file", text, '; filename="a"') + part("file", b"x", '; filename="b"') + b"--2f7c--\r\n",
            MULTIPART,
            proxied=proxied,
        ),
        lambda: received(f"text={quote(text)}&text=x".encode(), URLENCODED, proxied=proxied),
        lambda: received(
            text,
            "text/plain",
            proxied=proxied,
            query=[("num_beams", "1"), ("num_beams", choose("1", "2"))],
            route="predictions" if proxied else "invoke",
        ),
        lambda: received(
            part("text", text) + part("num_beams", b"1") + b"--2f7c--\r\n",
            MULTIPART,
            proxied=proxied,
            query=[("num_beams", "2")],
            route="predictions" if proxied else "invoke",
        ),
    ]
    return choose(*forms)(), MUST_REFUSE


FORMS = [value for name, value in list(globals().items()) if name.startswith("as_")]
REFUSED = [misdeclared, twice]


class NotApplicable(Exception):
    """A form cannot carry this content."""


def need(condition: bool) -> None:
    if not condition:
        raise NotApplicable


def encodable(text: str, charset: str) -> bool:
    """Also whether the bytes tell the text: not if they begin with a mark of byte order, or are UTF-8 by chance."""
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
    form: Callable[[Content, Choose], tuple[Handed, str]], content: Content, data: st.DataObject
) -> None:
    try:
        content.text.encode()
        handed, owed = form(content, lambda *options: data.draw(st.sampled_from(options)))
    except (UnicodeEncodeError, NotReceived, NotApplicable):
        return
    got, wanted = outcome(handed), canonical(content)
    assert got.status < 500
    if owed == MUST_REFUSE:
        assert got.status != 200, (form.__name__, handed, got)
    elif owed == SAME or got.status == 200:
        if owed == MAY_REFUSE and is_json_source(content.text):
            return  # a text that is JSON is JSON, which is documented
        assert got == wanted, (form.__name__, handed)


@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.full
def test_every_form_is_read_as_the_canonical_one() -> None:
    """Cases 1 to 5."""
    end = time.monotonic() + SECONDS
    for seed in itertools.count():
        for form in FORMS + REFUSED:
            examples = hypothesis.given(st.just(form), CONTENTS, st.data())(check)
            hypothesis.seed(seed)(LIMITS(examples))()
        if time.monotonic() > end:
            break


def test_most_plain_contents_are_accepted_in_every_form() -> None:
    """The check above would pass a parser that refuses everything: here nothing may be refused."""
    content = Content("Rain fell on the café.", {"num_beams": 2, "early_stopping": "never"})
    accepted = set()
    for form, proxied in itertools.product(FORMS, (True, False)):

        def choose(*options: Any, proxied: bool = proxied) -> Any:
            return proxied if options == (True, False) else options[0]

        for each in (content, content._replace(parameters={})):
            try:
                handed, owed = form(each, choose)
            except NotApplicable:
                continue
            if owed != MUST_REFUSE:
                assert outcome(handed) == canonical(each), (form.__name__, handed)
                accepted.add(form)
    assert accepted == set(FORMS)
