"""What a caller gives, made ready to send: images, texts and parameters."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torchserve_models.client.deadlines import START, TIMEOUT
from torchserve_models.client.errors import InvalidParameter, InvalidRequest, InvalidText
from torchserve_models.client.results import Scalar

Image = bytes | bytearray | memoryview | Path

HEADER_NAME = re.compile(r"[a-z0-9._-]+")
RESERVED_HEADERS = frozenset(
    (
        "accept",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "te",
        "transfer-encoding",
    )
)

INT64 = range(-(2**63), 2**63)


def image_bytes(image: Image) -> bytes:
    """The file's bytes as they are; the server decodes them. Raises OSError for a path that cannot be read."""
    if isinstance(image, Path):
        return image.read_bytes()
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    raise InvalidRequest(f"an image is bytes or a pathlib.Path, not {type(image).__name__}")


def text_list(text: str | Sequence[str]) -> tuple[str, ...]:
    """One text or several. Raises InvalidRequest or InvalidText."""
    texts = (text,) if isinstance(text, str) else tuple(text)
    if not texts:
        raise InvalidRequest("there is no text to summarize")
    for item in texts:
        if not isinstance(item, str):
            raise InvalidRequest(f"a text is a str, not {type(item).__name__}")
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise InvalidText(f"the text cannot be written as UTF-8 at character {error.start}") from None
    return texts


def check_parameters(parameters: Mapping[str, Scalar | None]) -> dict[str, Scalar]:
    """Without those that are None. Only the kind is checked: which there are, and their ranges, the server knows."""
    given: dict[str, Scalar] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if not isinstance(value, (bool, int, float, str)):
            raise InvalidParameter(
                f"{name} must be a number, a boolean or a string, not {type(value).__name__}"
            )
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise InvalidParameter(f"{name} must be a finite number, not {value}")
        if type(value) is int and value not in INT64:
            raise InvalidParameter(f"{name} does not fit into 64 bits")
        given[name] = value
    return given


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers with names in lower case. Raises InvalidRequest for what REST or gRPC cannot carry."""
    checked: dict[str, str] = {}
    for given, value in (headers or {}).items():
        name = given.lower()
        if name in (TIMEOUT, START):
            raise InvalidRequest(f"the client sends the header {given!r} itself; set timeout= instead")
        is_reserved = name in RESERVED_HEADERS or name.startswith("grpc-") or name.endswith("-bin")
        if is_reserved or not HEADER_NAME.fullmatch(name):
            raise InvalidRequest(f"{given!r} is not a header that can be set here")
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise InvalidRequest(f"the value of the header {given!r} must be printable ASCII, not {value!r}")
        checked[name] = value
    return checked
