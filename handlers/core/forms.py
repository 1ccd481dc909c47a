"""Parse forms that the proxy (deploy/nginx) forwards as bytes, with their content type in a separate header.

TorchServe answers a malformed multipart form with 500 before a handler sees it. It also parses everything that curl
sends with --data as a form, because curl declares images and JSON as urlencoded forms, too. TorchServe drops the
parts of such a body that are not a form: everything after a line break, and text without `=` after the last `&`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from handlers.core.errors import InvalidRequest
from handlers.core.multipart import parse_multipart
from handlers.core.raw_parameters import merge_parameters

FORM_CONTENT_TYPE_HEADER = "x-form-content-type"
_NAME = re.compile(rb"[A-Za-z_][\w.-]*=")
_ONLY_FIELDS = re.compile(rb"[A-Za-z_][\w.-]*=[!-%'-~]*(?:&[A-Za-z_][\w.-]*=[!-%'-~]*)*")
"""Fields with values of visible ASCII other than `&`. Unlike forms, texts and images contain other bytes."""
_VISIBLE = re.compile(rb"[!-~]*")
_ENCODED_VALUE = re.compile(rb"[\w.~*'()!-]*\+[\w.~*'()!%+-]*", re.ASCII)
"""Words with `+` between them. Base64 of more than a few bytes also has `/`."""
_NEVER_ESCAPED = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_"
_ALWAYS_ESCAPED = b"%&+\r\n"
_BYTE_CLASSES = bytes(min(byte, 0x80) for byte in range(256))
"""Maps each byte to its class: ASCII to itself, all other bytes to 0x80."""
_MAX_FIELDS = 100
_CHUNK_BYTES = 2**16


def parse_form(
    content_type: str, fields: Mapping[str, Any], headers: Mapping[str, Any], payload_fields: tuple[str, ...]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Parse a form in `body` into fields and headers in TorchServe's layout. Other bodies stay unchanged.

    A body that is declared as urlencoded is a form if it begins with a field's name and has a field for the input, or
    if it consists of fields only.

    Args:
        content_type: The Content-Type that the client sent.
        fields: The request's fields, with the form in `body`.
        headers: The request's headers.
        payload_fields: Names of the fields that hold the input.

    Raises:
        InvalidRequest: The form is malformed.
    """
    body = fields.get("body")
    if not isinstance(body, bytes | bytearray):
        return fields, headers
    others = {name: value for name, value in fields.items() if name != "body"}
    if content_type.lower().startswith("multipart/form-data"):
        form, part_headers = parse_multipart(body, content_type)
        return merge_parameters(others, form), {**headers, **part_headers}
    if _is_form(body, payload_fields):
        return merge_parameters(others, _parse_urlencoded(body)), headers
    if _ENCODED_VALUE.fullmatch(body):
        raise InvalidRequest(
            f"the body is an encoded form value without a field name; send it as '{payload_fields[0]}=...', "
            f"with curl: --data-urlencode '{payload_fields[0]}@FILE'"
        )
    return fields, headers


def check_complete_form(fields: Mapping[str, Any], content_length: str) -> None:
    """Check by the body's length that TorchServe has passed an urlencoded form completely.

    Encoders escape a byte with three characters, never escape letters, digits and `.-_`, and either escape all bytes
    of a class (`_BYTE_CLASSES`) or none. The fields that TorchServe passes can therefore only have a few lengths.

    Raises:
        InvalidRequest: The body's length is not possible, or a field's name is not a word.
    """
    if not (content_length.isdecimal() and len(content_length) < 12):
        return
    pairs = [(name.encode(), bytes(value)) for name, value in fields.items()]
    dropped = int(content_length) - len(b"&".join(b"=".join(pair) for pair in pairs))
    if dropped == 1:  # a last `&` or line break
        dropped = 0
    escaped, odd = divmod(dropped, 2)
    counts = Counter(b"".join(b"".join(pair) for pair in pairs).translate(_BYTE_CLASSES, _NEVER_ESCAPED))
    possible = 1 << sum(counts.pop(byte, 0) for byte in _ALWAYS_ESCAPED)  # bit n: n bytes may be escaped
    for count in counts.values():
        possible |= possible << count
    have_names = all(_NAME.fullmatch(name + b"=") for name, _ in pairs)
    if odd or escaped < 0 or not possible >> escaped & 1 or not have_names:
        raise InvalidRequest(
            "the body is not a complete form, as its Content-Type (application/x-www-form-urlencoded) requires; set "
            "Content-Type: application/json for JSON, text/plain for a text, application/octet-stream for a file; in "
            "a form, encode '&' as %26 and a line break as %0A"
        )


def _is_form(body: bytes | bytearray, payload_fields: tuple[str, ...]) -> bool:
    names = "|".join(map(re.escape, payload_fields)).encode()
    has_input = _NAME.match(body) is not None and re.search(rb"(?:^|&)(?:" + names + rb")=", body) is not None
    if has_input or body.count(b"&") <= _MAX_FIELDS:
        return has_input or _ONLY_FIELDS.fullmatch(body) is not None
    # Not _ONLY_FIELDS, because `re` stores each repetition of a pattern, of which there may be millions.
    return _NAME.match(body) is not None and _VISIBLE.fullmatch(body) is not None


def _parse_urlencoded(body: bytes | bytearray) -> dict[str, bytes]:
    """Return the values of an urlencoded form by name. Raises InvalidRequest."""
    if body.count(b"&") >= _MAX_FIELDS:
        raise InvalidRequest(f"the form has more than {_MAX_FIELDS} fields")
    values: dict[str, bytes] = {}
    for pair in bytes(body).split(b"&"):
        if not pair:
            continue
        key, equals, value = pair.partition(b"=")
        name = _unquote(key).decode("latin-1")
        if not equals:
            raise InvalidRequest(
                f"the form has '{name[:60]}' without '='; encode '&' in a value as %26, or send the text as "
                "text/plain"
            )
        if name in values:
            raise InvalidRequest(f"the form has the field '{name[:60]}' twice")
        values[name] = _unquote(value)
    return values


def _unquote(text: bytes) -> bytes:
    """Decode an urlencoded value in chunks, because `unquote_to_bytes` creates an object for each escape."""
    text = text.replace(b"+", b" ")
    if b"%" not in text:
        return text
    decoded = bytearray()
    start = 0
    while start < len(text):
        end = start + _CHUNK_BYTES
        escape = text.find(b"%", end - 2, end)
        if escape >= 0 and end < len(text):  # do not split an escape
            end = escape
        decoded += unquote_to_bytes(text[start:end])
        start = end
    return bytes(decoded)
