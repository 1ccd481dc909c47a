"""Reject raw bodies that are a form or an incorrectly encoded object.

Without this check, a form with the wrong content type or an incorrectly encoded object would be processed as an input
text.
"""

import re
from collections.abc import Sequence

from handlers.core.errors import InvalidRequest

_HEAD_BYTES = 4096
_MULTIPART = re.compile(
    rb"\s*--([^\s-]\S{0,199}|-+[^\s-]\S{0,180})[ \t]*\r?\ncontent-(?:disposition|type|transfer-encoding|id)[ \t]*:",
    re.IGNORECASE,
)
_OBJECT = re.compile(rb"\s*\[object [A-Za-z]+\](?:,\[object [A-Za-z]+\])*\s*\Z")
"""An object that JavaScript converted to a string."""
_JSON_IN_A_FIELD = re.compile(
    rb"[A-Za-z_][\w.-]*=\s*(?:\{\s*[\"'\\]|\[\s*\{\s*[\"'\\]|\[\s*\"[^\"\n]*\"[^\n]*\]\s*\Z)"
)
"""An object, a list of objects, or a list of strings on one line."""
_VISIBLE = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2}|%[0-9A-Fa-f]?\Z)*")
_ESCAPE = re.compile(rb"%(?:20|22|7B|0A|0D)", re.IGNORECASE)
"""Escapes of spaces, quotes, braces and line breaks, which every percent-encoding contains."""


def check_raw_body(content: bytes | bytearray | memoryview | str, field_names: Sequence[str]) -> None:
    """Check that a raw body is neither a form nor an incorrectly encoded object.

    Args:
        content: The body.
        field_names: Names of the form fields that hold the input.

    Raises:
        InvalidRequest: The body is a form or such an object.
    """
    head = content[:_HEAD_BYTES]
    head = head.encode("utf-8", "replace") if isinstance(head, str) else bytes(head)
    if match := _MULTIPART.match(head):
        boundary = match[1].decode("ascii", "replace")[:70]
        raise InvalidRequest(
            "the body is a multipart form, but has another Content-Type; set Content-Type: "
            f"multipart/form-data; boundary={boundary} (HTTP libraries set this header themselves)"
        )
    if _OBJECT.match(head):
        raise InvalidRequest(
            "the body is a JavaScript object as text, such as [object Object]; encode the object with JSON.stringify "
            "and set Content-Type: application/json"
        )
    names = b"|".join(re.escape(name.encode()) for name in (*field_names, "parameters"))
    # Values of form fields have no line breaks.
    field = re.match(rb"\s*&?(?:" + names + rb")(?:\[\w*\]|%5B\w*%5D)*=[^\n]*\s*\Z", head, re.IGNORECASE)
    if field or _JSON_IN_A_FIELD.match(head):
        raise InvalidRequest(
            "the body looks like a form, but has another Content-Type; for a form with fields such as "
            f"'{field_names[0]}=...' set Content-Type: application/x-www-form-urlencoded; send a text that looks "
            "like a form in the JSON field 'inputs'"
        )
    if _VISIBLE.fullmatch(head) and _ESCAPE.search(head):
        raise InvalidRequest(
            "the body is percent-encoded, which only forms support; send it without encoding, or as a form field "
            f"(with curl: --data-urlencode '{field_names[0]}@FILE')"
        )
