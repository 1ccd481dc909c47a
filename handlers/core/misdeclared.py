"""Recognize bodies that are not the input itself although nothing declares what they are.

A form under another content type, and objects that a client failed to encode, would otherwise be read as a text.
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
"""What JavaScript makes of an object where a string is expected."""
_JSON_IN_A_FIELD = re.compile(
    rb"[A-Za-z_][\w.-]*=\s*(?:\{\s*[\"'\\]|\[\s*\{\s*[\"'\\]|\[\s*\"[^\"\n]*\"[^\n]*\]\s*\Z)"
)
"""An object, a list of objects, or a list of strings on one line."""
_VISIBLE = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2}|%[0-9A-Fa-f]?\Z)*")
_ESCAPE = re.compile(rb"%(?:20|22|7B|0A|0D)", re.IGNORECASE)
"""Spaces, quotes, braces and line breaks are escaped in every percent-encoding."""


def check_is_input(content: bytes | bytearray | memoryview | str, field_names: Sequence[str]) -> None:
    """Check that a raw body is no form and no object that a client has failed to encode.

    Args:
        field_names: Fields of a form that carry the input.

    Raises:
        InvalidRequest: It is one of these.
    """
    head = content[:_HEAD_BYTES]
    head = head.encode("utf-8", "replace") if isinstance(head, str) else bytes(head)
    if match := _MULTIPART.match(head):
        boundary = match[1].decode("ascii", "replace")[:70]
        raise InvalidRequest(
            "the body is a multipart form, and the Content-Type does not say so; set Content-Type: "
            f"multipart/form-data; boundary={boundary} (HTTP libraries set it if you leave it to them)"
        )
    if _OBJECT.match(head):
        raise InvalidRequest(
            "the body is what JavaScript writes for an object; encode it with JSON.stringify and set "
            "Content-Type: application/json"
        )
    names = b"|".join(re.escape(name.encode()) for name in (*field_names, "parameters"))
    # The values of a form's fields have no line breaks.
    field = re.match(rb"\s*&?(?:" + names + rb")(?:\[\w*\]|%5B\w*%5D)*=[^\n]*\s*\Z", head, re.IGNORECASE)
    if field or _JSON_IN_A_FIELD.match(head):
        raise InvalidRequest(
            "the body looks like a form, and is not read as one; for a form of fields such as "
            f"'{field_names[0]}=...' set Content-Type: application/x-www-form-urlencoded. A text that looks so goes "
            "into the JSON field 'inputs'"
        )
    if _VISIBLE.fullmatch(head) and _ESCAPE.search(head):
        raise InvalidRequest(
            "the body is percent-encoded, which only the fields of a form are; send it as it is, or as a field "
            f"(with curl: --data-urlencode '{field_names[0]}@FILE')"
        )
