"""Requests as a real TorchServe 0.12 handed them to a worker: tests/server/recording.py wrote the file."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.unit.handlers.torchserve import handed_on

_FILE = Path(__file__).parent / "recorded_requests.json"


@cache
def recorded_requests() -> dict[str, Any]:
    """The whole file: names of cases to `parameters` (name, content type, content in Latin-1) and `headers`."""
    requests: dict[str, Any] = json.loads(_FILE.read_text())
    return requests


def recorded(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields and headers of a case."""
    request = recorded_requests()[name]
    fields = [(field, mime, content.encode("latin-1")) for field, mime, content in request["parameters"]]
    return handed_on(fields, dict(request["headers"]))
