"""API keys at the edge: the scope of each route and method, over REST and gRPC."""

from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest

from tests.faults.edge import Answer, needs_nginx
from tests.faults.keyed_edge import (
    METHODS,
    PREDICTION,
    ROUTES,
    SCOPES,
    TORCHSERVE,
    Keyed,
    answer,
    call,
    error,
    keyed_edge,
)
from torchserve_models.client import AccessDenied, Client, Endpoints
from torchserve_models.client._stubs import inference_pb2 as inference
from torchserve_models.client._stubs import open_inference_grpc_pb2 as open_inference

pytestmark = needs_nginx
STATUS = grpc.StatusCode


@pytest.fixture(scope="module")
def keyed(tmp_path_factory) -> Iterator[Keyed]:
    with keyed_edge(tmp_path_factory.mktemp("keys")) as running:
        yield running


@pytest.mark.parametrize(("method", "path", "allowed"), ROUTES)
def test_each_rest_route_needs_its_scope(keyed, method, path, allowed):
    content = b"x" if method == "POST" else None
    with keyed.client() as client:
        keyed.torchserve.received.clear()
        response = client.request(method, path, content=content)
        assert error(response) == (401, "Unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        for name in SCOPES:
            response = client.request(method, path, content=content, headers=keyed.headers(name))
            if name in allowed:
                assert response.status_code not in (401, 403), (name, response.text)
            else:
                assert error(response) == (403, "AccessDenied"), name
                assert "the API key lacks the scope" in response.json()["message"]
                assert "www-authenticate" not in response.headers
        # The gateway itself polls TorchServe's management API for its probes.
        forwarded = [request for request in keyed.torchserve.received if "x-request-id" in request.headers]
        assert len(forwarded) <= len(allowed)
        for request in keyed.torchserve.received:
            assert "authorization" not in request.headers
            assert not any(text in str(request) for text in keyed.texts.values())


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer x", "Basic {}", "{}", "Bearer {}x", "Bearer {} {}", "Token {}"],
)
def test_other_authorizations_are_unauthorized(keyed, authorization):
    text = keyed.texts["all"]
    headers = {"Authorization": authorization.replace("{}", text)}
    with keyed.client() as client:
        status = client.post("/predictions/images", content=b"x", headers=headers).status_code
    assert status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_scheme_is_case_insensitive(keyed, scheme):
    headers = {"Authorization": f"{scheme} {keyed.texts['all']}"}
    with keyed.client() as client:
        assert client.post("/predictions/images", content=b"x", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/readyz/images", "/ping", "/v2/health/live", "/", "/docs"]
)
def test_probes_and_documentation_need_no_key(keyed, path):
    with keyed.client() as client:
        assert client.get(path).status_code not in (401, 403)
        assert client.get("/nothing").status_code == 404
        assert client.get("/predictions/images").status_code == 405


def test_clients_cannot_reach_the_check_or_forge_its_headers(keyed):
    forged = {
        "X-Gateway-Key": "",
        "X-Edge-Key-Id": "0" * 12,
        "X-Admission": "",
        "X-Api-Key": keyed.texts["all"],
    }
    with keyed.client() as client:
        for path in ("/.admit", "/admit/inference", "/v2/../admit/inference", "/docs/..%2fadmit/management"):
            assert client.get(path, headers=keyed.headers("all")).status_code == 404
        assert client.post("/predictions/images", content=b"x", headers=forged).status_code == 401


def test_large_body_is_not_read_without_a_key(keyed):
    with keyed.client() as client:
        keyed.torchserve.received.clear()
        assert error(client.post("/predictions/images", content=bytes(10 * 2**20))) == (401, "Unauthorized")
        pieces = (bytes(2**16) for _ in range(160))
        assert error(client.post("/predictions/images", content=pieces)) == (401, "Unauthorized")
        assert not [request for request in keyed.torchserve.received if "x-request-id" in request.headers]
        for content in (bytes(10 * 2**20), (bytes(2**16) for _ in range(160))):
            response = client.post("/predictions/images", content=content, headers=keyed.headers("images"))
            assert response.status_code == 200
        assert response.text == f"{10 * 2**20} bytes"
    message = inference.PredictionsRequest(model_name="images", input={"data": bytes(3 * 2**20)})
    assert call(keyed, METHODS[0][0], message, "") is STATUS.UNAUTHENTICATED
    assert call(keyed, METHODS[0][0], message, "all") is STATUS.OK


@pytest.mark.parametrize(("path", "message", "allowed"), METHODS)
def test_each_grpc_method_needs_its_scope(keyed, path, message, allowed):
    keyed.torchserve.received.clear()
    assert call(keyed, path, message, "") is STATUS.UNAUTHENTICATED
    for name in SCOPES:
        status = call(keyed, path, message, name)
        if name in allowed:
            assert status not in (STATUS.UNAUTHENTICATED, STATUS.PERMISSION_DENIED), name
        else:
            assert status is STATUS.PERMISSION_DENIED, name
    forwarded = [request for request in keyed.torchserve.received if "x-request-id" in request.headers]
    assert len(forwarded) <= len(allowed)
    for request in keyed.torchserve.received:
        assert "authorization" not in request.headers
        assert not any(text in str(request) for text in keyed.texts.values())


def test_grpc_health_needs_no_key(keyed):
    empty = open_inference.ServerLiveRequest()
    for path in (
        f"{TORCHSERVE}.inference.InferenceAPIsService/Ping",
        f"{TORCHSERVE}.openinference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerMetadata",
        "/inference.GRPCInferenceService/ModelReady",
    ):
        assert call(keyed, path, empty, "") not in (STATUS.UNAUTHENTICATED, STATUS.PERMISSION_DENIED)
    # A query does not change the method.
    path = f"{TORCHSERVE}.inference.InferenceAPIsService/Predictions?/Ping"
    assert call(keyed, path, PREDICTION, "") is STATUS.UNAUTHENTICATED


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_python_client_sends_its_key(keyed, protocol):
    url, target = keyed.running.url, keyed.running.config.grpc
    endpoints = replace(Endpoints.gateway(url), grpc_inference=target)
    image = b"\x89PNG\r\n\x1a\n"
    keyed.torchserve.answer = lambda _: Answer(body=b'[{"label": "cat", "score": 1.0}]')
    try:
        with Client(endpoints=endpoints, protocol=protocol, api_key=keyed.texts["all"]) as client:
            assert client.classify("images", image)
        with (
            Client(endpoints=endpoints, protocol=protocol) as client,
            pytest.raises(AccessDenied, match="an API key is required") as caught,
        ):
            client.classify("images", image)
        assert caught.value.code == 401
    finally:
        keyed.torchserve.answer = answer


def test_management_stays_closed_without_its_option(tmp_path):
    with keyed_edge(tmp_path, open_management=False) as keyed:
        for name, path in (("management", "/models"), ("metrics", "/metrics"), ("metrics", "/edge/metrics")):
            with keyed.client(name) as client:
                response = client.get(path)
                assert error(response) == (403, "AccessDenied")
                assert "--open-management" in response.json()["message"]


def test_cross_site_pages_cannot_use_management_with_a_key(keyed):
    with keyed.client("management") as client:
        response = client.get("/models", headers={"Origin": "https://evil.example"})
        assert error(response) == (403, "AccessDenied")
        assert "host names and pages" in response.json()["message"]
