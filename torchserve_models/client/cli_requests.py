"""One request of `predict`: an image or texts, with parameters; and the line of JSON Lines that says it."""

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
"""The client's own arguments, which are no parameters of a request."""
CONTENT = ("inputs", "image", "text")
FIELDS = frozenset((*CONTENT, "parameters", "id"))
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\1\0")
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1")


@dataclass(frozen=True)
class Request:
    """`content`: the bytes of an image, a text or several. `id` is the caller's own JSON value, None if none."""

    content: bytes | str | list[str]
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    id: Any = None


def is_image(head: bytes) -> bool:
    """By the first bytes: JPEG, PNG, GIF, BMP, TIFF, ICO, WebP, AVIF or HEIC."""
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head.startswith(b"BM"):
        return head[6:10] == bytes(4)  # its reserved bytes: a text may begin with BM as well
    return head.startswith(_MAGIC) or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


def parse_request(line: bytes, where: str) -> Request:
    """Read a line such as `{"inputs": "Rain fell.", "parameters": {"num_beams": 2}, "id": "a"}`.

    `inputs` is a text, a list of texts or an image in base64, as in the server's own JSON; `text` and `image` (a
    path) stand for one of each. Raises InvalidRequest, or OSError for a path that cannot be read.
    """
    value = _read_json(line, where)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be a JSON object, not {_kind(value)}")
    contents = [name for name in CONTENT if name in value]
    unknown = sorted(value.keys() - FIELDS)
    if len(contents) != 1 or unknown:
        raise InvalidRequest(
            f'{where} must have one of "inputs", "text" (a text) and "image" (a path), and may have "parameters" '
            f'and "id"; it has {", ".join(map(repr, value)) or "nothing"}'
        )
    parameters = {} if value.get("parameters") is None else value["parameters"]
    if not isinstance(parameters, dict):
        raise InvalidRequest(f'{where}: "parameters" must be an object, not {_kind(parameters)}')
    if reserved := sorted(RESERVED & parameters.keys()):
        raise InvalidRequest(f"{where}: {reserved[0]!r} is not a parameter of a request")
    return Request(_content(contents[0], value[contents[0]], where), parameters, value.get("id"))


def _read_json(line: bytes, where: str) -> Any:
    """Strict JSON, as the server reads it. Raises InvalidRequest with the column of the line that is wrong."""
    try:
        return json.loads(line.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_names)
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8: byte {error.start} cannot be read"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise InvalidRequest(f"{where} is not valid JSON: {reason}")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {repeated[:60]!r} appears twice in one object")
    return found


def _content(name: str, value: Any, where: str) -> bytes | str | list[str]:
    if name == "inputs" and isinstance(value, list):
        for item in value:
            if not isinstance(item, str):
                raise InvalidRequest(f"{where}: an element of 'inputs' must be a text, not {_kind(item)}")
        if not value:
            raise InvalidRequest(f"{where}: 'inputs' is an empty list")
        if any(base64_image(item) is not None for item in value):
            raise InvalidRequest(f"{where} has several images; give each a line of its own")
        return value
    if not isinstance(value, str):
        kinds = {
            "inputs": "a text, a list of texts or an image in base64",
            "text": "a text",
            "image": "a path",
        }
        raise InvalidRequest(f"{where}: {name!r} must be {kinds[name]}, not {_kind(value)}")
    if name == "image":
        try:
            return Path(value).read_bytes()
        except ValueError:
            raise InvalidRequest(f"{where}: {value!r} is not a path") from None
    image = base64_image(value) if name == "inputs" else None
    return value if image is None else image


def _kind(value: Any) -> str:
    """What a JSON value is called."""
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
    is_word = value is None or isinstance(value, bool)
    return json.dumps(value) if is_word else kinds.get(type(value), "a number")


def base64_image(text: str) -> bytes | None:
    """The image that a text is in base64, or as a data URL; None for any other text."""
    if text.startswith("data:image/"):
        text = text.partition(",")[2]
    try:
        if not is_image(base64.b64decode(text[:64], validate=True)):
            return None
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
