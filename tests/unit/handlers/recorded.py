"""Requests as a real TorchServe 0.12 handed them to a worker: tests/server/recording.py wrote the file."""

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from handlers.core.repeated_fields import mark_repeated_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves the file with its version open
    from ts.service import Service

_FILE = Path(__file__).parent / "recorded_requests.json"


@cache
def recorded_requests() -> dict[str, Any]:
    """The whole file: names of cases to `parameters` and `headers`."""
    requests: dict[str, Any] = json.loads(_FILE.read_text())
    return requests


def recorded(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields and headers of a case, made of what the worker received by TorchServe's own code."""

    class MarkedService(Service):  # type: ignore[misc]
        pass

    mark_repeated_names(MarkedService)
    request = recorded_requests()[name]
    frame = {
        "requestId": b"1",
        "parameters": [
            {"name": field, "contentType": content_type, "value": bytearray(value, "latin-1")}
            for field, content_type, value in request["parameters"]
        ],
        "headers": [{"name": name.encode(), "value": value.encode()} for name, value in request["headers"]],
    }
    processors, [fields], _ = MarkedService.retrieve_data_for_inference([frame])
    headers: dict[str, Any] = processors[0].get_request_properties()
    return fields, headers
