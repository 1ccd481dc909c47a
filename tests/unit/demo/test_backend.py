"""The pages' requests to the server."""

import json

import httpx
import pytest

from torchserve_models.client import Client, Endpoints
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.demo.backend import Backend
from torchserve_models.demo.catalog import Catalog

TOP_K = [{"name": "top_k", "type": "integer", "default": 5}]


@pytest.fixture
def backend_of():
    """Return a function that creates a backend for a fake server with one image model, and a list of its requests."""

    def make(metadata):
        sent = []

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path.startswith("/predictions"):
                sent.append((request.headers["content-type"], request.content))
                return httpx.Response(200, json=[{"label": "a", "score": 1.0}])
            if request.url.path == "/models":
                return httpx.Response(200, json={"models": [{"modelName": "net"}]})
            model = {
                "modelName": "net",
                "modelVersion": "1",
                "minWorkers": 1,
                "maxWorkers": 1,
                "batchSize": 8,
            }
            model |= {"maxBatchDelay": 1, "responseTimeout": 60}
            model["customizedMetadata"] = {"task": "image-classification"} | metadata
            return httpx.Response(200, json=[model])

        backend = Backend(Endpoints())
        backend._client = Client(transport=httpx.MockTransport(answer), retries=0)
        backend._catalog = Catalog(backend._client)
        return backend, sent

    return make


@pytest.mark.parametrize(
    ("metadata", "limit"),
    [
        ({"max_bytes": 5 << 20}, 5 << 20),
        ({"max_bytes": 64 << 20}, MAX_MESSAGE_BYTES),
        ({}, MAX_MESSAGE_BYTES),
    ],
)
def test_upload_limit_comes_from_the_server(backend_of, metadata, limit):
    assert backend_of(metadata)[0].max_upload_bytes() == limit


def test_file_is_sent_raw_if_all_parameters_are_defaults(backend_of):
    backend, sent = backend_of({"labels": 1000, "parameters": TOP_K})
    backend.classify("net", b"file")
    assert sent == [("application/octet-stream", b"file")]
    backend, sent = backend_of({"labels": 3, "parameters": TOP_K})
    backend.classify("net", b"file")
    assert json.loads(sent[0][1])["parameters"] == {"top_k": 3}
