"""Parse one request of `predict`, from arguments or from a line of JSON Lines."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchserve_models.client.errors import InvalidRequest
from torchserve_models.client.results import Scalar

RESERVED = frozenset(("self", "model", "image", "text", "version", "timeout", "headers"))
"""Arguments of the client's methods, which cannot be names of request parameters."""
CONTENT = ("inputs", "image", "text")
FIELDS = frozenset((*CONTENT, "parameters", "id"))
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\1\0")
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1")


@dataclass(frozen=True)
class Request:
    """A request to classify an image or to summarize texts.

    Attributes:
        content: The bytes of an image, one text or several texts.
        parameters: Parameters of the request.
        id: Any JSON value that the caller uses to identify the request; None if not set.
    """

    content: bytes | str | list[str]
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    id: Any = None


def is_image(head: bytes) -> bool:
    """Return whether the first bytes are those of a JPEG, PNG, GIF, BMP, TIFF, ICO, WebP, AVIF or HEIC file."""
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head.startswith(b"BM"):
        return head[6:10] == bytes(4)  # its reserved bytes: a text may begin with BM as well
    return head.startswith(_MAGIC) or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


def parse_request(line: bytes, where: str) -> Request:
    """Parse a line such as `{"inputs": "Rain fell.", "parameters": {"num_beams": 2}, "id": "a"}`.

    Exactly one of these fields has the input: `inputs` (a text, a list of texts or an image in base64, as in a
    request to the server), `text` (one text) or `image` (the path of an image).

    Raises:
        InvalidRequest: The line is not a valid request; the message starts with `where`.
        OSError: The image cannot be read.
    """
    value = _read_json(line, where)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be a JSON object, not {_json_type(value)}")
    contents = [name for name in CONTENT if name in value]
    unknown = sorted(value.keys() - FIELDS)
    if len(contents) != 1 or unknown:
        raise InvalidRequest(
            f'{where} must have exactly one of "inputs", "text" (a text) and "image" (a path), and may have '
            f'"parameters" and "id"; the object has {", ".join(map(repr, value)) or "no fields"}'
        )
    parameters = {} if value.get("parameters") is None else value["parameters"]
    if not isinstance(parameters, dict):
        raise InvalidRequest(f'{where}: "parameters" must be an object, not {_json_type(parameters)}')
    if reserved := sorted(RESERVED & parameters.keys()):
        raise InvalidRequest(f"{where}: {reserved[0]!r} cannot be a parameter of a request")
    return Request(_content(contents[0], value[contents[0]], where), parameters, value.get("id"))


def _read_json(line: bytes, where: str) -> Any:
    """Parse strict JSON, as the server does. Raises InvalidRequest with the column of a syntax error."""
    try:
        return json.loads(line.decode(), parse_constant=_reject_constant, object_pairs_hook=_unique_names)
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not valid UTF-8"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise InvalidRequest(f"{where} is not valid JSON: {reason}")


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError if a name is repeated."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {repeated[:60]!r} appears twice in one object")
    return members


def _content(name: str, value: Any, where: str) -> bytes | str | list[str]:
    """Return the image or the texts of the field `inputs`, `text` or `image`. Raises InvalidRequest, OSError."""
    if name == "inputs" and isinstance(value, list):
        for item in value:
            if not isinstance(item, str):
                raise InvalidRequest(
                    f"{where}: each element of 'inputs' must be a text, not {_json_type(item)}"
                )
        if not value:
            raise InvalidRequest(f"{where}: 'inputs' is an empty list; it must contain at least one text")
        if any(base64_image(item) is not None for item in value):
            raise InvalidRequest(
                f"{where}: 'inputs' is a list that contains an image; send each image in a separate line"
            )
        return value
    if not isinstance(value, str):
        types = {
            "inputs": "a text, a list of texts or an image in base64",
            "text": "a text",
            "image": "a path",
        }
        raise InvalidRequest(f"{where}: {name!r} must be {types[name]}, not {_json_type(value)}")
    if name == "image":
        try:
            return Path(value).read_bytes()
        except ValueError:
            raise InvalidRequest(f"{where}: 'image' must be the path of a file, not {value!r}") from None
    image = base64_image(value) if name == "inputs" else None
    return value if image is None else image


def _json_type(value: Any) -> str:
    """Return the JSON type of a value, with its article."""
    types: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
    is_word = value is None or isinstance(value, bool)
    return json.dumps(value) if is_word else types.get(type(value), "a number")


def base64_image(text: str) -> bytes | None:
    """Return the image that a text contains in base64 or as a data URL, or None for any other text."""
    if text.startswith("data:image/"):
        text = text.partition(",")[2]
    try:
        if not is_image(base64.b64decode(text[:64], validate=True)):
            return None
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
