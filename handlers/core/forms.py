"""Forms that the proxy of deploy/nginx hands on as bytes, with what the client called them in a header of its own.

TorchServe answers 500, before any handler sees it, to a malformed multipart form, and to what curl sends with --data:
curl says of whatever it is, pictures and JSON too, that it is an urlencoded form.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from handlers.core.errors import InvalidRequest
from handlers.core.multipart import read_multipart

HEADER = "x-form-content-type"
_NAME = re.compile(rb"[A-Za-z_][\w.-]*=")
_FIELDS_ALONE = re.compile(rb"[A-Za-z_][\w.-]*=[!-%'-~]*(?:&[A-Za-z_][\w.-]*=[!-%'-~]*)*")
"""Values of visible ASCII other than `&`: a true form has no spaces, and prose and pictures are more than this."""
_VISIBLE = re.compile(rb"[!-~]*")
_MOST_FIELDS = 100
_CHUNK = 2**16


def open_form(
    sent: str, fields: Mapping[str, Any], headers: Mapping[str, Any], payload_fields: tuple[str, ...]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The fields and headers as TorchServe hands on a true form, or JSON; anything else stays one raw body.

    `sent` is the Content-Type that the client gave. What it calls urlencoded is a form if it begins with a field's
    name and has a field for the input, or is nothing but fields. Raises InvalidRequest.
    """
    body = fields.get("body")
    if not isinstance(body, bytes | bytearray):
        return fields, headers
    others = {name: value for name, value in fields.items() if name != "body"}
    if sent.lower().startswith("multipart/form-data"):
        return joined(others, read_multipart(body, sent)), headers
    if _is_form(body, payload_fields):
        return joined(others, _read(body)), headers
    if body.lstrip()[:1] == b"{" and b'"inputs"' in body:
        kept = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        return fields, kept | {"content-type": "application/json"}
    return fields, headers


def joined(some: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Of the query and the body, or of two places of a form: what is said twice would be ignored once.

    Raises InvalidRequest.
    """
    for name in others:
        if name in some:
            raise InvalidRequest(f"'{name[:60]}' is given twice")
    return {**some, **others}


def _is_form(body: bytes | bytearray, payload_fields: tuple[str, ...]) -> bool:
    names = "|".join(map(re.escape, payload_fields)).encode()
    has_input = _NAME.match(body) is not None and re.search(rb"(?:^|&)(?:" + names + rb")=", body) is not None
    if has_input or body.count(b"&") <= _MOST_FIELDS:
        return has_input or _FIELDS_ALONE.fullmatch(body) is not None
    # Of a pattern with millions of repetitions `re` would remember each.
    return _NAME.match(body) is not None and _VISIBLE.fullmatch(body) is not None


def _read(body: bytes | bytearray) -> dict[str, bytes]:
    """Values are bytes; names are Latin-1."""
    if body.count(b"&") >= _MOST_FIELDS:
        raise InvalidRequest(f"the form has more than {_MOST_FIELDS} fields")
    found: dict[str, bytes] = {}
    for pair in bytes(body).split(b"&"):
        if not pair:
            continue
        key, _, value = pair.partition(b"=")
        name = _unquoted(key).decode("latin-1")
        if name in found:
            raise InvalidRequest(f"the form has the field '{name[:60]}' twice")
        found[name] = _unquoted(value)
    return found


def _unquoted(text: bytes) -> bytes:
    """The text that `text` encodes. In chunks: decoding makes an object of each escape."""
    text = text.replace(b"+", b" ")
    if b"%" not in text:
        return text
    decoded = bytearray()
    start = 0
    while start < len(text):
        end = start + _CHUNK
        escape = text.find(b"%", end - 2, end)
        if escape >= 0 and end < len(text):  # the chunk would end within an escape
            end = escape
        decoded += unquote_to_bytes(text[start:end])
        start = end
    return bytes(decoded)
