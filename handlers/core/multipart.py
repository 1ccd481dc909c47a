"""multipart/form-data (RFC 7578): a body to its fields, where a proxy has handed it on as it is.

TorchServe's own reading of a form answers 500 to one that is malformed, before any handler sees it.
"""

from email.message import Message

from handlers.core.errors import InvalidRequest

_MOST_FIELDS = 100
_LONGEST_HEAD = 8192


def read_multipart(body: bytes | bytearray, content_type: str) -> dict[str, bytes]:
    """Each field's content by its name. Raises InvalidRequest."""
    boundary = _parameter("content-type", content_type, "boundary")
    if not boundary or len(boundary) > 200:
        raise InvalidRequest("the form's Content-Type names no boundary")
    mark = b"--" + boundary.encode("latin-1", "replace")
    fields: dict[str, bytes] = {}
    start = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if start == 1:
        raise InvalidRequest("the form's boundary is nowhere in the body")
    start += len(mark)
    while not body.startswith(b"--", start):
        head = body.find(b"\r\n", start)  # blanks may follow a boundary
        if head < 0 or body[start:head].strip():
            raise InvalidRequest("the form has a malformed boundary")
        end = body.find(b"\r\n" + mark, head)
        if end < 0:
            raise InvalidRequest("the form is cut off: its last boundary is missing")
        blank = body.find(b"\r\n\r\n", head + 2, end)
        if blank < 0 or blank - head > _LONGEST_HEAD:
            raise InvalidRequest("a part of the form has no header")
        name = _part_name(bytes(body[head + 2 : blank]))
        if name in fields:
            raise InvalidRequest(f"the form has the field '{name[:60]}' twice")
        if len(fields) == _MOST_FIELDS:
            raise InvalidRequest(f"the form has more than {_MOST_FIELDS} fields")
        fields[name] = bytes(body[blank + 4 : end])
        start = end + 2 + len(mark)
    return fields


def _part_name(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            name = _parameter("content-disposition", value.decode("utf-8", "replace").strip(), "name")
            if not name:
                break
            return name
    raise InvalidRequest("a part of the form has no name")


def _parameter(header: str, value: str, name: str) -> str:
    message = Message()
    message[header] = value.replace("\r", " ").replace("\n", " ")
    try:
        found = message.get_param(name, header=header)
    except ValueError:  # RFC 2231 numbers of thousands of digits
        return ""
    return found if isinstance(found, str) else ""
