"""The errors of the API's documentation, made of the one error tree, TorchServe's own and the proxy's beside it."""

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
    429: {"Overloaded": "the server is busy; send it again after the seconds of Retry-After"},
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
    400: "The request is at fault: its form, a parameter, or an input that cannot be read.",
    404: "No such model or version.",
    408: "The body did not arrive in time.",
    413: "Too large: the body, an input, or the number of inputs.",
    429: "Busy: the queue is full, or a client asks too often. The header Retry-After says when to come back.",
    500: "The server's fault; its log has the reason.",
    502: "The gateway does not answer.",
    503: "TorchServe cannot be reached, no worker, a worker that died twice, or not computed within its time.",
    504: "No answer in time, or the request's deadline had passed before it was begun.",
    507: "This input does not fit into memory.",
}
EXAMPLES = {
    "InvalidRequest": "the body is empty; send the input as the body, or JSON with the field 'inputs'",
    "InvalidParameter": "'top_k' must be an integer from 1 to 1000, not 0",
    "InvalidImage": "the body is not an image in a format that is read here",
    "InvalidText": "the text is not UTF-8: byte 0 cannot be read",
    "ImageTooLarge": "the image has 400000000 pixels (20000 x 20000); at most 50000000 are allowed",
    "TextTooLong": "the text is longer than 1000000 characters",
    "TooManyItems": "40 inputs in one request; at most 32 are allowed",
    "InternalError": "internal error; the worker's log has the details",
    "Overloaded": "the server's time for this batch of requests is over; retry, or ask for less",
    "DeadlineExceeded": "the request's deadline passed before it was begun",
    "OutOfMemory": "there is not enough memory for this input; try a smaller one",
}


def responses() -> dict[str, Any]:
    """For each status its meaning, its types and an example of each."""
    return {str(code): _response(code, types) for code, types in sorted(_by_code().items())}


def error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "Every error. `error` repeats the message, where the Open Inference Protocol's clients look.",
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
    """The types of each status, with a message."""
    found: dict[int, dict[str, str]] = {}
    for kind in _leaves(HandlerError):
        found.setdefault(kind.code, {})[kind.__name__] = EXAMPLES.get(
            kind.__name__, MEANINGS.get(kind.code, "")
        )
    for others in (TORCHSERVE, PROXY):
        for code, types in others.items():
            found.setdefault(code, {}).update(types)
    return found


def _leaves(kind: type[HandlerError]) -> list[type[HandlerError]]:
    below = [
        leaf
        for child in kind.__subclasses__()
        if child.__module__ == errors.__name__
        for leaf in _leaves(child)
    ]
    return below or [kind]


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
