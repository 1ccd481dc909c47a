"""Parse multipart/form-data (RFC 7578) bodies that a proxy forwards unparsed.

TorchServe's parser answers a malformed form with 500, before a handler sees it.
"""

from collections.abc import Mapping

from handlers.core.content_type import header_parameter
from handlers.core.errors import InvalidRequest

_MAX_FIELDS = 100
_MAX_HEAD_BYTES = 8192
_IDENTITY_ENCODINGS = ("", "7bit", "8bit", "binary")
"""Values of Content-Transfer-Encoding that do not change the content."""


def parse_multipart(
    body: bytes | bytearray, content_type: str
) -> tuple[dict[str, bytes], dict[str, Mapping[str, str]]]:
    """Parse a multipart form.

    Returns:
        The content of each field by name, and the headers of each field by name: `{"content-type": ...}`.

    Raises:
        InvalidRequest: The form is malformed.
    """
    boundary = header_parameter("content-type", content_type, "boundary")
    if not boundary or len(boundary) > 200:
        raise InvalidRequest("the form's Content-Type has no boundary; let the HTTP library set this header")
    mark = b"--" + boundary.encode("latin-1", "replace")
    fields: dict[str, bytes] = {}
    headers: dict[str, Mapping[str, str]] = {}
    start = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if start == 1:
        raise InvalidRequest(
            "the form's boundary does not occur in the body; let the HTTP library set the Content-Type"
        )
    start += len(mark)
    while not body.startswith(b"--", start):
        head = body.find(b"\r\n", start)  # spaces may follow a boundary
        if head < 0 or body[start:head].strip():
            raise InvalidRequest("a boundary line of the form is malformed; it must end with CR and LF")
        end = body.find(b"\r\n" + mark, head)
        if end < 0:
            raise InvalidRequest("the form is truncated: its last boundary is missing")
        blank = body.find(b"\r\n\r\n", head + 2, end)
        if blank < 0 or blank - head > _MAX_HEAD_BYTES:
            raise InvalidRequest(
                f"a part of the form has no header, or a header of more than {_MAX_HEAD_BYTES} bytes; each part must "
                "begin with Content-Disposition, followed by a blank line"
            )
        name, part_type = _parse_head(bytes(body[head + 2 : blank]))
        if name in fields:
            raise InvalidRequest(f"the form has the field '{name[:60]}' twice")
        if len(fields) == _MAX_FIELDS:
            raise InvalidRequest(f"the form has more than {_MAX_FIELDS} fields")
        fields[name] = bytes(body[blank + 4 : end])
        headers[name] = {"content-type": part_type}
        start = end + 2 + len(mark)
    if body.find(mark, start) >= 0:
        raise InvalidRequest(
            "the form continues after its last boundary; a boundary must not occur in a field"
        )
    return fields, headers


def _parse_head(head: bytes) -> tuple[str, str]:
    """Return the name and the Content-Type of a part. Raises InvalidRequest."""
    headers: dict[str, str] = {}
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        headers.setdefault(key.strip().lower().decode("latin-1"), value.decode("utf-8", "replace").strip())
    name = header_parameter("content-disposition", headers.get("content-disposition", ""), "name")
    if not name:
        raise InvalidRequest(
            "a part of the form has no name; its header must contain 'Content-Disposition: form-data; name=...'"
        )
    label = f"the form's field '{name[:60]}'"
    encoding = headers.get("content-transfer-encoding", "").lower()
    if encoding not in _IDENTITY_ENCODINGS:
        raise InvalidRequest(
            f"{label} has the Content-Transfer-Encoding {encoding[:30]!r}; send it without encoding"
        )
    part_type = headers.get("content-type", "")
    if part_type.lower().startswith("multipart/"):
        raise InvalidRequest(f"{label} is a nested form; send the file as a field of the outer form")
    return name, part_type
