"""Bodies that claim to be urlencoded forms: curl says so of whatever it sends with --data, pictures and JSON too.

TorchServe answers 500 to such a picture before any handler sees it. The proxy of deploy/nginx therefore hands on the
body as bytes, with what the client called it in a header of its own, and it is looked at here.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from handlers.core.errors import InvalidRequest

HEADER = "x-form-content-type"
_NAME = re.compile(rb"[A-Za-z_][\w.-]*=")
_MOST_FIELDS = 100


def open_form(
    fields: Mapping[str, Any], headers: Mapping[str, Any], payload_fields: tuple[str, ...]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The fields and headers as TorchServe hands on a true form, or JSON; anything else stays one raw body.

    It is a form if it begins with a field's name and has a field for the input. Raises InvalidRequest.
    """
    body = fields.get("body")
    if not isinstance(body, bytes | bytearray):
        return fields, headers
    others = {name: value for name, value in fields.items() if name != "body"}
    if _is_form(body, payload_fields):
        return others | _read(body), headers
    if body.lstrip()[:1] == b"{" and b'"inputs"' in body:
        kept = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        return fields, kept | {"content-type": "application/json"}
    return fields, headers


def _is_form(body: bytes | bytearray, payload_fields: tuple[str, ...]) -> bool:
    names = "|".join(map(re.escape, payload_fields)).encode()
    return _NAME.match(body) is not None and re.search(rb"(?:^|&)(?:" + names + rb")=", body) is not None


def _read(body: bytes | bytearray) -> dict[str, bytes]:
    """Values are bytes: Latin-1 is only their way through the parser."""
    try:
        pairs = parse_qsl(
            body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise InvalidRequest(f"the form has more than {_MOST_FIELDS} fields") from None
    found: dict[str, bytes] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequest(f"the form has the field '{name[:60]}' twice")
        found[name] = value.encode("latin-1")
    return found
