"""JSON answers, and every error as the project's error object."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from handlers.core.errors import HandlerError
from torchserve_models.client import Timeout, TorchServeError

RETRY_AFTER = 1
# Of starlette's routing, which says no more than the status.
_MESSAGES = {
    "Not Found": "there is no such route; /docs lists them",
    "Method Not Allowed": "this method is not allowed here; this route takes {Allow}",
}
_TYPES = {404: "NotFound", 405: "NotAllowed", 408: "Timeout"}


class Raw(JSONResponse):
    """As the handlers write JSON: UTF-8; half a surrogate pair, which a message may repeat, stays an escape."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def refuse(error: Exception) -> Response:
    """The answer for an error of the handlers' tree, of the client's, or of starlette's routing."""
    headers: dict[str, str] = {}
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nginx's status for it; nobody reads this
    if isinstance(error, HandlerError):
        code, type_, message = error.code, error.type, error.message
    elif isinstance(error, TorchServeError):
        # Without a status there was no answer of TorchServe's.
        code = error.code or (504 if isinstance(error, Timeout) else 503)
        type_, message = error.type, error.message
    elif isinstance(error, HTTPException):
        code, type_ = error.status_code, _TYPES.get(error.status_code, "InvalidRequest")
        headers = dict(error.headers or {})
        message = _MESSAGES.get(str(error.detail), "{detail}").format(detail=error.detail, **headers)
    else:
        code, type_, message = 500, "InternalError", "internal error; the gateway's log has the details"
    if code in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER)
    body = {"code": code, "type": type_, "message": message, "error": message}
    return Raw(body, code, headers)


async def on_error(_: Request, error: Exception) -> Response:
    return refuse(error)
