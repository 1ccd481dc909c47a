"""A fake of TorchServe 0.12 and nginx that converts requests to fields and headers like the recorded ones.

`test_torchserve.py` compares it with recorded requests.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from handlers.core.content_type import header_parameter
from handlers.core.repeated_fields import mark_repeated_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves the file with its version open
    from ts.service import Service

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
Field = tuple[str, str, bytes]
"""Name, content type and content."""


class MarkedService(Service):  # type: ignore[misc]
    pass


mark_repeated_names(MarkedService)


class AnsweredByTorchServe(Exception):
    """A request that TorchServe answers with an error before a handler receives it."""


def http_request(
    body: bytes,
    content_type: str = "",
    *,
    proxied: bool = False,
    query: Sequence[tuple[str, str]] = (),
    route: str = "predictions",
    headers: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields and headers that a handler receives for a POST request. Raises AnsweredByTorchServe.

    `route`: predictions, invoke or v2. Through the proxy, predictions with a query take the route invoke.
    """
    sent = dict(headers or {}) | ({"Content-Type": content_type} if content_type else {})
    sent["Content-Length"] = str(len(body))
    if proxied:
        sent |= _of_proxy(content_type, route)
        route = "invoke" if query and route == "predictions" else route
    if route != "invoke":
        query = ()
    fields = [(name, "", value.encode()) for name, value in query]
    seen_type = sent.get("Content-Type", "")
    mime = seen_type.partition(";")[0].strip()
    if mime.lower() == FORMS[0]:
        fields += list(_urlencoded(body))
    elif mime.lower() == FORMS[1]:
        fields += list(_multipart(body, seen_type))
    else:
        fields.append(("body", mime, body))
    if route != "invoke":
        sent["explain"] = "False"
    if route == "predictions":
        sent["url_path"] = ""
    return convert_with_torchserve(fields, sent)


def grpc_request(entries: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields and headers of a gRPC `Predictions` call."""
    return convert_with_torchserve([(name, "", value) for name, value in entries.items()], {})


def model_infer_request(message: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields and headers of a `ModelInfer` call, which TorchServe converts to JSON."""
    return convert_with_torchserve([("body", "application/json", message)], {})


def convert_with_torchserve(
    fields: Iterable[Field], headers: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert fields and headers with TorchServe's code."""
    frame = {
        "requestId": b"1",
        "parameters": [
            {"name": name, "contentType": content_type, "value": bytearray(value)}
            for name, content_type, value in fields
        ],
        "headers": [{"name": name.encode(), "value": value.encode()} for name, value in headers.items()],
    }
    processors, [data], _ = MarkedService.retrieve_data_for_inference([frame])
    return data, processors[0].get_request_properties()


def _of_proxy(content_type: str, route: str) -> dict[str, str]:
    """Return the headers that deploy/nginx/nginx.conf.template sets."""
    assumed = "application/json" if route == "v2" else "application/octet-stream"
    if content_type.lower().startswith(FORMS):
        return {"Content-Type": assumed, "X-Form-Content-Type": content_type}
    return {"Content-Type": content_type or assumed}


def _urlencoded(body: bytes) -> Iterable[Field]:
    body = body.partition(b"\n")[0].removesuffix(b"\r")
    if b"\r" in body:
        raise AnsweredByTorchServe
    *others, last = body.split(b"&")
    for pair in [*others, last] if b"=" in last else others:
        name, _, value = pair.partition(b"=")
        name = _unquoted(name).strip()
        if name:
            try:
                yield name.decode(), "", _unquoted(value)
            except UnicodeDecodeError:
                raise AnsweredByTorchServe from None


def _unquoted(text: bytes) -> bytes:
    for escape in text.split(b"%")[1:]:
        if len(escape) < 2 or not all(digit in b"0123456789abcdefABCDEF" for digit in escape[:2]):
            raise AnsweredByTorchServe
    return unquote_to_bytes(text.replace(b"+", b" "))


def _multipart(body: bytes, content_type: str) -> Iterable[Field]:
    mark = b"--" + header_parameter("content-type", content_type, "boundary").encode()
    for part in body.split(b"\r\n" + mark)[:-1]:
        head, _, content = part.removeprefix(mark).removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = [line.decode("latin-1") for line in head.split(b"\r\n")]
        values = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        disposition = values.get("content-disposition", "")
        if not disposition:
            raise AnsweredByTorchServe
        is_file = header_parameter("content-disposition", disposition, "filename") != ""
        part_type = values.get("content-type", "application/octet-stream").partition(";")[0]
        yield (
            header_parameter("content-disposition", disposition, "name"),
            part_type if is_file else "",
            content,
        )
