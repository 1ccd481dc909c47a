"""Requests that a real TorchServe 0.12 passed to a worker, recorded with tests/server/recording.py."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.unit.handlers.torchserve import convert_with_torchserve

_FILE = Path(__file__).parent / "recorded_requests.json"


@cache
def recorded_requests() -> dict[str, Any]:
    """Return the `parameters` (name, type, content in Latin-1) and `headers` of all recorded requests, by name."""
    requests: dict[str, Any] = json.loads(_FILE.read_text())
    return requests


def recorded_request(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields and headers of a recorded request."""
    request = recorded_requests()[name]
    fields = [(field, mime, content.encode("latin-1")) for field, mime, content in request["parameters"]]
    return convert_with_torchserve(fields, dict(request["headers"]))
