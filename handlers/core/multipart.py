"""multipart/form-data (RFC 7578): a body to its fields, where a proxy has handed it on as it is.

TorchServe's own reading of a form answers 500 to one that is malformed, before any handler sees it.
"""

from collections.abc import Mapping

from handlers.core.content_type import header_parameter
from handlers.core.errors import InvalidRequest

_MOST_FIELDS = 100
_LONGEST_HEAD = 8192
_AS_THEY_ARE = ("", "7bit", "8bit", "binary")
"""Content-Transfer-Encodings that change nothing."""


def read_multipart(
    body: bytes | bytearray, content_type: str
) -> tuple[dict[str, bytes], dict[str, Mapping[str, str]]]:
    """Each field's content by its name; and by its name `{"content-type": ...}`, as TorchServe hands it on.

    Raises InvalidRequest.
    """
    boundary = header_parameter("content-type", content_type, "boundary")
    if not boundary or len(boundary) > 200:
        raise InvalidRequest(
            "the form's Content-Type names no boundary; leave this header to the HTTP library"
        )
    mark = b"--" + boundary.encode("latin-1", "replace")
    fields: dict[str, bytes] = {}
    headers: dict[str, Mapping[str, str]] = {}
    start = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if start == 1:
        raise InvalidRequest(
            "the form's boundary is nowhere in the body; leave the Content-Type to the HTTP library"
        )
    start += len(mark)
    while not body.startswith(b"--", start):
        head = body.find(b"\r\n", start)  # blanks may follow a boundary
        if head < 0 or body[start:head].strip():
            raise InvalidRequest("the form has a malformed boundary; its lines end with CR and LF")
        end = body.find(b"\r\n" + mark, head)
        if end < 0:
            raise InvalidRequest("the form is cut off: its last boundary is missing")
        blank = body.find(b"\r\n\r\n", head + 2, end)
        if blank < 0 or blank - head > _LONGEST_HEAD:
            raise InvalidRequest("a part of the form has no header; each begins with Content-Disposition")
        name, part_type = _read_head(bytes(body[head + 2 : blank]))
        if name in fields:
            raise InvalidRequest(f"the form has the field '{name[:60]}' twice")
        if len(fields) == _MOST_FIELDS:
            raise InvalidRequest(f"the form has more than {_MOST_FIELDS} fields")
        fields[name] = bytes(body[blank + 4 : end])
        headers[name] = {"content-type": part_type}
        start = end + 2 + len(mark)
    if body.find(mark, start) >= 0:
        raise InvalidRequest(
            "the form goes on behind its last boundary; a boundary must not occur in a field"
        )
    return fields, headers


def _read_head(head: bytes) -> tuple[str, str]:
    """The name and the Content-Type of a part. Raises InvalidRequest."""
    headers: dict[str, str] = {}
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        headers.setdefault(key.strip().lower().decode("latin-1"), value.decode("utf-8", "replace").strip())
    name = header_parameter("content-disposition", headers.get("content-disposition", ""), "name")
    if not name:
        raise InvalidRequest(
            "a part of the form has no name, as in 'Content-Disposition: form-data; name=...'"
        )
    label = f"the form's field '{name[:60]}'"
    encoding = headers.get("content-transfer-encoding", "").lower()
    if encoding not in _AS_THEY_ARE:
        raise InvalidRequest(f"{label} has the Content-Transfer-Encoding {encoding[:30]!r}; send it as it is")
    part_type = headers.get("content-type", "")
    if part_type.lower().startswith("multipart/"):
        raise InvalidRequest(f"{label} is a form of its own; send one file, as a field of the outer form")
    return name, part_type
