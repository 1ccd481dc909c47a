"""Forms that the proxy of deploy/nginx hands on as bytes, with what the client called them in a header of its own.

TorchServe answers 500, before any handler sees it, to a malformed multipart form, and to what curl sends with --data:
curl says of whatever it is, images and JSON too, that it is an urlencoded form. What it can read of such a body it
hands on, and drops the rest: all behind a line break, and behind the last `&` what has no `=`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from handlers.core.errors import InvalidRequest
from handlers.core.multipart import read_multipart
from handlers.core.raw_parameters import joined

HEADER = "x-form-content-type"
_NAME = re.compile(rb"[A-Za-z_][\w.-]*=")
_FIELDS_ALONE = re.compile(rb"[A-Za-z_][\w.-]*=[!-%'-~]*(?:&[A-Za-z_][\w.-]*=[!-%'-~]*)*")
"""Values of visible ASCII other than `&`: a true form has no spaces, and prose and images are more than this."""
_VISIBLE = re.compile(rb"[!-~]*")
_ENCODED_VALUE = re.compile(rb"[\w.~*'()!-]*\+[\w.~*'()!%+-]*", re.ASCII)
"""Words with `+` between them. Base64 of any length has `/` as well."""
_NEVER_ESCAPED = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_"
_ALWAYS_ESCAPED = b"%&+\r\n"
_BYTE_CLASSES = bytes(min(byte, 0x80) for byte in range(256))
"""ASCII as it is, and one for all other bytes."""
_MOST_FIELDS = 100
_CHUNK = 2**16


def open_form(
    sent: str, fields: Mapping[str, Any], headers: Mapping[str, Any], payload_fields: tuple[str, ...]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The fields and headers as TorchServe hands on a true form; anything else stays one raw body.

    `sent` is the Content-Type that the client gave. What it calls urlencoded is a form if it begins with a field's
    name and has a field for the input, or is nothing but fields. Raises InvalidRequest.
    """
    body = fields.get("body")
    if not isinstance(body, bytes | bytearray):
        return fields, headers
    others = {name: value for name, value in fields.items() if name != "body"}
    if sent.lower().startswith("multipart/form-data"):
        form, part_headers = read_multipart(body, sent)
        return joined(others, form), {**headers, **part_headers}
    if _is_form(body, payload_fields):
        return joined(others, _read(body)), headers
    if _ENCODED_VALUE.fullmatch(body):
        raise InvalidRequest(
            f"the body is an encoded value without a field's name; send it as '{payload_fields[0]}=...', with curl: "
            f"--data-urlencode '{payload_fields[0]}@FILE'"
        )
    return fields, headers


def check_whole(fields: Mapping[str, Any], content_length: str) -> None:
    """Check that an urlencoded form that TorchServe has read was handed on whole, as far as its length tells.

    Names are words. Encoders escape a byte as three. None escapes letters, digits and `.-_`; each treats all bytes of
    one value alike, and all that are not ASCII: a form can have few lengths. Raises InvalidRequest for others.
    """
    if not (content_length.isdecimal() and len(content_length) < 12):
        return
    named = [(name.encode(), bytes(value)) for name, value in fields.items()]
    dropped = int(content_length) - len(b"&".join(b"=".join(pair) for pair in named))
    if dropped == 1:  # a last `&` or line break
        dropped = 0
    escaped, odd = divmod(dropped, 2)
    counts = Counter(b"".join(b"".join(pair) for pair in named).translate(_BYTE_CLASSES, _NEVER_ESCAPED))
    possible = 1 << sum(counts.pop(byte, 0) for byte in _ALWAYS_ESCAPED)  # bit n: n bytes may be escaped
    for count in counts.values():
        possible |= possible << count
    is_named = all(_NAME.fullmatch(name + b"=") for name, _ in named)
    if odd or escaped < 0 or not possible >> escaped & 1 or not is_named:
        raise InvalidRequest(
            "TorchServe could not read the whole body as the form that its Content-Type "
            "(application/x-www-form-urlencoded) says it is. Set Content-Type: application/json for JSON, text/plain "
            "for a text, application/octet-stream for a file; in a form, write '&' as %26 and a line break as %0A"
        )


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
        key, equals, value = pair.partition(b"=")
        name = _unquoted(key).decode("latin-1")
        if not equals:
            raise InvalidRequest(
                f"the form has '{name[:60]}' without '='; write '&' in a value as %26, or send the text as text/plain"
            )
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
