"""JSON responses, and error responses in the project's error format."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from handlers.core.errors import HandlerError
from torchserve_models.client import Timeout, TorchServeError

RETRY_AFTER_S = 1
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that has disconnected."""
# Starlette's errors contain only the status phrase.
_MESSAGES = {
    "Not Found": "unknown route; /docs lists the routes",
    "Method Not Allowed": "this route does not allow the method; allowed: {Allow}",
}
_TYPES = {404: "NotFound", 405: "NotAllowed", 408: "Timeout"}


class UnicodeJSONResponse(JSONResponse):
    """A JSON response in UTF-8, in the handlers' format. Lone surrogates, as in error messages, remain escaped."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def error_response(error: Exception) -> Response:
    """Return the response to an error of the handlers, of the client, or of Starlette's routing."""
    headers: dict[str, str] = {}
    if isinstance(error, ClientDisconnect):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if isinstance(error, HandlerError):
        code, type_, message = error.code, error.type, error.message
    elif isinstance(error, TorchServeError):
        # Without a status, TorchServe did not respond.
        code = error.code or (504 if isinstance(error, Timeout) else 503)
        type_, message = error.type, error.message
    elif isinstance(error, HTTPException):
        code, type_ = error.status_code, _TYPES.get(error.status_code, "InvalidRequest")
        headers = dict(error.headers or {})
        message = _MESSAGES.get(str(error.detail), "{detail}").format(detail=error.detail, **headers)
    else:
        code, type_, message = 500, "InternalError", "internal error; the gateway's log has the details"
    if code in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    body = {"code": code, "type": type_, "message": message, "error": message}
    return UnicodeJSONResponse(body, code, headers)


async def handle_error(_: Request, error: Exception) -> Response:
    return error_response(error)
