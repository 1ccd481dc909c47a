"""The error responses in the OpenAPI document: errors of the handlers, TorchServe and nginx."""

from typing import Any

from handlers.core import errors
from handlers.core.errors import HandlerError

TORCHSERVE: dict[int, dict[str, str]] = {
    404: {
        "ModelNotFoundException": "Model not found: no-such-model",
        "ModelVersionNotFoundException": "Model version: 9 does not exist for model: t5-small",
    },
    500: {"InternalServerException": "Worker died."},
    503: {"ServiceUnavailableException": 'Model "t5-small" has no worker to serve inference request.'},
}
PROXY: dict[int, dict[str, str]] = {
    404: {"ModelNotFound": "Model not found: no-such-model", "NotFound": "Not Found"},
    408: {"Timeout": "the body did not arrive within 30 s"},
    413: {"TooLarge": "the request is larger than the server accepts"},
    429: {"Overloaded": "the server is busy; retry after the number of seconds in Retry-After"},
    502: {"Unavailable": "the server behind the proxy cannot be reached"},
    503: {
        "NoWorker": "the model has no worker",
        "WorkerDied": "Worker died.",
        "Unavailable": "the model is busy or has no worker; retry",
    },
    504: {
        "Timeout": "no answer in time",
        "DeadlineExceeded": "the request's deadline (X-Request-Timeout) has passed",
    },
}
MEANINGS = {
    400: "Invalid request: its format, a parameter, or an unreadable input.",
    404: "Unknown model or version.",
    408: "The body did not arrive in time.",
    413: "The body, an input, or the number of inputs is too large.",
    429: "The model's queue is full, or a client sends too many requests. Retry-After says when to retry.",
    500: "Internal error. The server's log has the details.",
    502: "The gateway does not respond.",
    503: "TorchServe is unreachable, the model has no worker, its worker died twice, or the batch timed out.",
    504: "No response in time, or the request's deadline passed before it was processed.",
    507: "The server does not have enough memory for this input.",
}
EXAMPLES = {
    "InvalidRequest": "the body is empty; send the input as the body, or JSON with the field 'inputs'",
    "InvalidParameter": "'top_k' must be an integer from 1 to 1000, not 0",
    "InvalidImage": "the file is not in a supported image format; supported formats: JPEG, PNG, ...",
    "InvalidText": "the text is not UTF-8: byte 0 cannot be read",
    "ImageTooLarge": "the image has 20000 x 20000 pixels; at most 50000000 are allowed",
    "TextTooLong": "the text is longer than 1000000 characters",
    "TooManyItems": "40 inputs in one request; at most 32 are allowed",
    "InternalError": "internal error; the worker's log has the details",
    "Overloaded": "the server's time limit for this batch of requests has passed; retry, or send smaller requests",
    "DeadlineExceeded": "the request's deadline passed before the request was processed",
    "OutOfMemory": "there is not enough memory for this input; try a smaller one",
}


def responses_by_status() -> dict[str, Any]:
    """Return the response of each error status: its meaning, its types, and an example of each type."""
    return {str(code): _response(code, types) for code, types in sorted(_by_code().items())}


def error_schema() -> dict[str, Any]:
    """Return the JSON Schema of an error."""
    return {
        "type": "object",
        "description": "The format of every error. `error` repeats the message for Open Inference clients.",
        "required": ["code", "type", "message"],
        "properties": {
            "code": {"type": "integer", "minimum": 400, "maximum": 599},
            "type": {"type": "string"},
            "message": {"type": "string"},
            "error": {"type": "string"},
        },
        "examples": [errors.InvalidParameter(EXAMPLES["InvalidParameter"]).as_dict()],
    }


def _by_code() -> dict[int, dict[str, str]]:
    """Return the error types of each status, with an example message."""
    types_by_code: dict[int, dict[str, str]] = {}
    for class_ in _leaves(HandlerError):
        types_by_code.setdefault(class_.code, {})[class_.__name__] = EXAMPLES.get(
            class_.__name__, MEANINGS.get(class_.code, "")
        )
    for others in (TORCHSERVE, PROXY):
        for code, types in others.items():
            types_by_code.setdefault(code, {}).update(types)
    return types_by_code


def _leaves(class_: type[HandlerError]) -> list[type[HandlerError]]:
    """Return the error classes below `class_` that have no subclasses themselves."""
    leaves = [
        leaf
        for child in class_.__subclasses__()
        if child.__module__ == errors.__name__
        for leaf in _leaves(child)
    ]
    return leaves or [class_]


def _response(code: int, types: dict[str, str]) -> dict[str, Any]:
    examples = {
        name: {"value": {"code": code, "type": name, "message": message, "error": message}}
        for name, message in types.items()
    }
    response: dict[str, Any] = {
        "description": f"{MEANINGS[code]} Types: {', '.join(types)}.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": examples}
        },
    }
    if code in (429, 503):
        seconds = {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds to wait."}
        response["headers"] = {"Retry-After": seconds}
    return response
