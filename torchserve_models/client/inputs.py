"""Checks and conversion of the caller's inputs: images, texts, parameters and headers."""

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
    """Return the bytes of an image file, unchanged; the server decodes them.

    Raises:
        InvalidRequest: `image` is neither bytes nor a path.
        OSError: The file cannot be read.
    """
    if isinstance(image, Path):
        return image.read_bytes()
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    raise InvalidRequest(f"an image must be bytes or a pathlib.Path, not {type(image).__name__}")


def text_list(text: str | Sequence[str]) -> tuple[str, ...]:
    """Return one text or several as a tuple.

    Raises:
        InvalidRequest: The list is empty, or an element is not a str.
        InvalidText: A text cannot be written as UTF-8.
    """
    texts = (text,) if isinstance(text, str) else tuple(text)
    if not texts:
        raise InvalidRequest("the list of texts is empty; pass at least one text")
    for item in texts:
        if not isinstance(item, str):
            raise InvalidRequest(f"a text must be a str, not {type(item).__name__}")
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise InvalidText(f"the text cannot be written as UTF-8 at character {error.start}") from None
    return texts


def check_parameters(parameters: Mapping[str, Scalar | None]) -> dict[str, Scalar]:
    """Check the types of parameters; return the parameters that are not None. The server checks names and ranges.

    Raises:
        InvalidParameter: A value is not a number, boolean or string, or does not fit into 64 bits.
    """
    checked: dict[str, Scalar] = {}
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
            raise InvalidParameter(f"{name} must be a signed 64-bit integer, not {value}")
        checked[name] = value
    return checked


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers with lower-case names. Raises InvalidRequest for a header that REST or gRPC cannot carry."""
    checked: dict[str, str] = {}
    for header, value in (headers or {}).items():
        name = header.lower()
        if name in (TIMEOUT, START):
            raise InvalidRequest(f"the client sends the header {header!r} itself; set timeout= instead")
        is_reserved = name in RESERVED_HEADERS or name.startswith("grpc-") or name.endswith("-bin")
        if is_reserved or not HEADER_NAME.fullmatch(name):
            raise InvalidRequest(f"{header!r} is not a header that the caller can set")
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise InvalidRequest(f"the value of the header {header!r} must be printable ASCII, not {value!r}")
        checked[name] = value
    return checked
