"""Comparison of the recorded requests that unit tests use with those of TorchServe and nginx."""

import json

from tests.faults.toys import toy
from tests.server.fronted import in_front_of, needs_nginx
from tests.server.recording import ECHO, FILE, MODEL, record
from tests.tools import needs
from torchserve_models.client import Client


@needs_nginx
@needs("curl")
def test_torchserve_passes_requests_on_as_recorded(server):
    with Client(endpoints=server.endpoints) as client:
        client.register(f"{toy(server.store, MODEL, ECHO)}.mar")
        try:
            with in_front_of(server.endpoints, text_models=(MODEL,)) as front:
                answers = record(server.inference, front.url, server.grpc_inference)
        finally:
            client.unregister(MODEL)
            (server.store / f"{MODEL}.mar").unlink()
    assert answers == json.loads(FILE.read_text())
