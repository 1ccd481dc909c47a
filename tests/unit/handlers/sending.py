"""Helpers that build requests in TorchServe's layout, send them to a handler and decode its answers."""

import json

from tests.unit.handlers.context import flush_metrics

HTTP = {"explain": "False", "url_path": "", "host": "x"}
JSON = HTTP | {"content-type": "application/json", "body": {"content-type": "application/json"}}
OPEN_INFERENCE = {"explain": "False", "host": "x", "body": {"content-type": ""}}
RAW = HTTP | {"body": {"content-type": ""}}
"""Headers of a request without a content type."""


def send(handler, context, *requests):
    """Send a batch of (fields, headers), with copies of the bodies. Return the decoded answers and the statuses."""
    context.receive([headers for _, headers in requests])
    answers = handler.handle([_copied(fields) for fields, _ in requests], context)
    flush_metrics(handler)
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
