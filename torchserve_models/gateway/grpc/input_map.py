"""Translate TorchServe's `Predictions` messages to REST: the input map becomes a multipart form.

TorchServe passes the parts of a form to a handler as it passes the entries of the map: one key per part, and bytes.
"""

import re
import secrets

from google.protobuf.message import DecodeError

from handlers.core.deadline import RESERVED_KEYS
from handlers.core.errors import InvalidRequest, TooLarge
from torchserve_models.client import ModelNotFound
from torchserve_models.client.call_types import build_path, import_stubs
from torchserve_models.gateway.grpc.message_bounds import PREDICTIONS_REQUEST, check_bounds
from torchserve_models.gateway.grpc.rest_calls import RestRequest, check_model_name

_NAME = re.compile(r"(?! )[^\x00-\x1f\x7f\":,;=\\]{1,256}(?<! )")
"""A key that TorchServe's form parser returns unchanged."""
_PART = (
    '--{}\r\nContent-Disposition: form-data; name="{}"; filename="f"\r\n'
    "Content-Type: application/octet-stream\r\n\r\n"
)


def to_rest(content: bytes, max_bytes: int) -> RestRequest:
    """Translate a serialized PredictionsRequest.

    Raises:
        InvalidRequest: The message is malformed, or has no input or an invalid key.
        ModelNotFound: No model can have the name.
        TooLarge: The form exceeds `max_bytes`.
    """
    check_bounds(content, PREDICTIONS_REQUEST)
    try:
        message = import_stubs("inference").PredictionsRequest.FromString(content)
    except DecodeError:
        raise InvalidRequest("the message is not a PredictionsRequest") from None
    del content  # frees the memory, as the caller keeps no reference
    model, version = message.model_name, message.model_version
    if not model:
        raise ModelNotFound("the message has no model_name")
    check_model_name(model, version)
    fields = dict(message.input)
    message.Clear()
    headers = {
        name: value[:256].decode("latin-1") for name in RESERVED_KEYS if (value := fields.pop(name, None))
    }
    if any(not (value.isascii() and value.isprintable()) for value in headers.values()):
        raise InvalidRequest(f"the values of {', '.join(headers)} in the input map must be printable ASCII")
    if not fields:
        raise InvalidRequest("the input map is empty; send the input as 'data' or 'body'")
    boundary = secrets.token_hex(16)
    pieces: list[bytes] = []
    for name, value in fields.items():
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"the input map has the invalid key {name[:60]!r}; keys have 1 to 256 characters other than "
                '":,;=\\ and control characters, and no space at the ends'
            )
        pieces += [_PART.format(boundary, name).encode(), value, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    body = b"".join(pieces)
    if len(body) > max_bytes:
        raise TooLarge(f"the input map exceeds {max_bytes >> 20} MiB")
    headers["content-type"] = f"multipart/form-data; boundary={boundary}"
    path = build_path("predictions", model, *([version] if version else []))
    return RestRequest(model, version, path, headers, body)
