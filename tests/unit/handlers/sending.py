"""Requests as TorchServe hands them to a handler, and its answers decoded."""

import json

HTTP = {"explain": "False", "url_path": "", "host": "x"}
JSON = HTTP | {"content-type": "application/json", "body": {"content-type": "application/json"}}
OPEN_INFERENCE = {"explain": "False", "host": "x", "body": {"content-type": ""}}
RAW = HTTP | {"body": {"content-type": ""}}
"""A body whose client names no content type; TorchServe repeats the body's type, which goes before the request's."""


def send(handler, context, *requests):
    """Each request is (fields, headers); the decoded answers and the statuses. The handler gets copies of bodies."""
    context.receive([headers for _, headers in requests])
    answers = handler.handle([_copied(fields) for fields, _ in requests], context)
    return [json.loads(answer) for answer in answers], [context.statuses[i] for i in range(len(requests))]


def _copied(fields):
    return {
        name: bytearray(value) if isinstance(value, bytearray) else value for name, value in fields.items()
    }


def raw(data: bytes | str):
    content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return {"body": bytearray(content)}, RAW


def js(value):
    return {"body": bytearray(json.dumps(value).encode())}, JSON
