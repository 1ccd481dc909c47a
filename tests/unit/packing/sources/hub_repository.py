"""The repository of the fake hub in tests, and its entry in the lock file."""

import json

from tests.unit.packing.conftest import Bench

WEIGHTS = "model.safetensors"


def lock_of(bench: Bench) -> dict:
    return json.loads(bench.layout.lock.read_text())
