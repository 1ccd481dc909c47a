"""API keys at the edge: nginx and the gateway in front of a fake TorchServe, over REST and gRPC."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import httpx
import pytest

from tests.faults.edge import Answer, FakeServer, Received, needs_nginx
from torchserve_models.client import AccessDenied, Client, Endpoints
from torchserve_models.client._stubs import inference_pb2 as inference
from torchserve_models.client._stubs import open_inference_grpc_pb2 as open_inference
from torchserve_models.gateway.keys.api_key import ApiKey
from torchserve_models.gateway.keys.key_file import KeyFile
from torchserve_models.gateway.nginx.config import Limits, NginxConfig
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.supervision.edge_supervisor import EdgeSupervisor

pytestmark = needs_nginx
SCOPES = {
    "all": ("inference",),
    "images": ("inference:images",),
    "management": ("management",),
    "metrics": ("metrics",),
}
SETTINGS = GatewaySettings(image_model="images", summarizers={"t5": "texts", "bart": "other"})
STATUS = grpc.StatusCode
TORCHSERVE = "/org.pytorch.serve.grpc"


def answer(request: Received) -> Answer:
    """Respond like TorchServe: with a list of models, or with the number of bytes of a body."""
    if request.target.startswith("/models"):
        return Answer(body=b'{"models": []}')
    return Answer(body=b"%d bytes" % len(request.body))


class Keyed:
    """A running edge, and the keys of its file by the names in SCOPES."""

    def __init__(self, running: EdgeSupervisor, file: KeyFile, torchserve: FakeServer):
        self.running, self.file, self.torchserve = running, file, torchserve
        self.texts: dict[str, str] = {}

    def create(self, name: str, *scopes: str, **options) -> ApiKey:
        key, self.texts[name] = ApiKey.create(name, scopes, **options)
        self.file.add(key)
        return key

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.texts[name]}"} if name else {}

    def client(self, name: str = "") -> httpx.Client:
        return httpx.Client(base_url=self.running.url, timeout=30, headers=self.headers(name))


@contextmanager
def keyed_edge(folder: Path, settings: GatewaySettings = SETTINGS, **changes: object) -> Iterator[Keyed]:
    file = KeyFile(folder / "keys.json")
    with FakeServer(answer) as torchserve:
        at = f"http://{torchserve.address}"
        config = NginxConfig(
            **dict.fromkeys(("http", "grpc", "gateway", "internal"), "127.0.0.1:0"),
            endpoints=Endpoints(inference=at, management=at, metrics=at, health="http://127.0.0.1:9"),
            **{"open_management": True, **changes},  # type: ignore[arg-type]
        )
        with EdgeSupervisor(config, replace(settings, key_file=file.path)) as running:
            keyed = Keyed(running, file, torchserve)
            for name, scopes in SCOPES.items():
                keyed.create(name, *scopes)
            yield keyed


@pytest.fixture(scope="module")
def keyed(tmp_path_factory) -> Iterator[Keyed]:
    with keyed_edge(tmp_path_factory.mktemp("keys")) as running:
        yield running


def error(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["code"] == response.status_code
    assert body["error"] == body["message"]
    return response.status_code, body["type"]


ROUTES = [
    ("POST", "/predictions/images", {"all", "images"}),
    ("POST", "/predictions/images/1.0?top_k=1", {"all", "images"}),
    ("POST", "/predictions/texts", {"all"}),
    ("POST", "/predictions/x/../images", {"all", "images"}),
    ("POST", "/predictions/images%3fa", {"all"}),
    ("POST", "/predict", {"all", "images"}),
    ("POST", "/predict/image_classes/", {"all", "images"}),
    ("POST", "/v1/models/images:predict", {"all", "images"}),
    ("POST", "/v2/models/images/infer", {"all", "images"}),
    ("POST", "/v2/models/images/versions/1.0/infer", {"all", "images"}),
    ("POST", "/v2/models/texts/infer", {"all"}),
    ("POST", "/model", {"all", "images"}),
    ("POST", "/predict/text_summarize", {"all"}),
    ("POST", "/predict/text_summarize?model=bart", {"all"}),
    ("GET", "/v1/models", {"all", "images"}),
    ("GET", "/v2/models/images", {"all", "images"}),
    ("GET", "/v2/models/texts/versions/1.0", {"all"}),
    ("GET", "/models", {"management"}),
    ("POST", "/models?url=x.mar", {"management"}),
    ("PUT", "/models/images?min_worker=2", {"management"}),
    ("GET", "/metrics", {"metrics"}),
    ("GET", "/edge/metrics", {"metrics"}),
]


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


def call(keyed: Keyed, path: str, message: object, name: str) -> grpc.StatusCode:
    """Call a gRPC method and return its status."""
    metadata = [(key.lower(), value) for key, value in keyed.headers(name).items()]
    with grpc.insecure_channel(keyed.running.config.grpc) as channel:
        method = channel.unary_unary(path, request_serializer=lambda sent: sent.SerializeToString())
        try:
            method(message, metadata=metadata, timeout=30)
        except grpc.RpcError as failure:
            return failure.code()
    return STATUS.OK


PREDICTION = inference.PredictionsRequest(model_name="images", input={"data": b"x"})
OPEN_INFERENCE = {
    "ModelInfer": (open_inference.ModelInferRequest, "model_name"),
    "ModelMetadata": (open_inference.ModelMetadataRequest, "name"),
}
METHODS = [
    (f"{service}/{method}", create(**{field: model}), allowed)
    for service, methods in {
        f"{TORCHSERVE}.inference.InferenceAPIsService": {
            "Predictions": (partial(inference.PredictionsRequest, input={"data": b"x"}), "model_name"),
            "StreamPredictions": (partial(inference.PredictionsRequest, input={"data": b"x"}), "model_name"),
        },
        f"{TORCHSERVE}.openinference.GRPCInferenceService": OPEN_INFERENCE,
        "/inference.GRPCInferenceService": OPEN_INFERENCE,
    }.items()
    for method, (create, field) in methods.items()
    for model, allowed in (("images", {"all", "images"}), ("texts", {"all"}))
]


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


def test_changes_apply_to_open_connections_at_once(keyed):
    """The same connection is used before and after the changes."""
    with keyed.client() as client:
        opened = []
        for round_number in range(3):
            key = keyed.create("new", "inference", "metrics")
            headers = keyed.headers("new")
            response = client.post("/predictions/images", content=b"x", headers=headers)
            opened.append(response.extensions["network_stream"].get_extra_info("client_addr"))
            assert response.status_code == 200, round_number
            keyed.file.remove(key.id)
            response = client.post("/predictions/images", content=b"x", headers=headers)
            opened.append(response.extensions["network_stream"].get_extra_info("client_addr"))
            assert error(response) == (401, "Unauthorized")
        assert len(set(opened)) == 1


def test_rate_of_a_key_is_limited(keyed):
    keyed.create("limited", "inference", rate=3)
    with keyed.client("limited") as client:
        responses = [client.post("/predictions/images", content=b"x") for _ in range(12)]
        rejected = [response for response in responses if response.status_code != 200]
        assert [response.status_code for response in responses[:3]] == [200] * 3
        assert rejected
        for response in rejected:
            assert error(response) == (429, "Overloaded")
            assert response.headers["retry-after"] == "1"
            assert "with this API key" in response.json()["message"]
    path, statuses = METHODS[0][0], set()
    for _ in range(12):
        statuses.add(call(keyed, path, PREDICTION, "limited"))
    assert STATUS.RESOURCE_EXHAUSTED in statuses
    with keyed.client("all") as client:
        assert client.post("/predictions/images", content=b"x").status_code == 200


def test_requests_in_progress_of_a_key_are_limited(tmp_path):
    release = threading.Event()
    with keyed_edge(tmp_path, limits=Limits(key_requests=3)) as keyed, ThreadPoolExecutor(8) as pool:
        keyed.torchserve.answer = lambda _: Answer(release=release)
        with keyed.client("all") as client:
            try:
                waiting = [pool.submit(client.post, "/predictions/images", content=b"x") for _ in range(3)]
                end = time.monotonic() + 20
                while keyed.torchserve.in_progress < 3:
                    assert time.monotonic() < end
                    time.sleep(0.02)
                for path, headers in (
                    ("/predictions/images", {}),
                    ("/model", {}),
                    ("/v2/models/images/infer", {"Authorization": f"BEARER  {keyed.texts['all']}"}),
                ):
                    response = client.post(path, content=b"x", headers=headers)
                    assert error(response) == (429, "Overloaded"), path
                assert call(keyed, METHODS[0][0], PREDICTION, "all") is STATUS.RESOURCE_EXHAUSTED
                # Clients that only know the id of the key do not use up its limit, and do not share it.
                forged = f"tsm_{keyed.texts['all'].split('_')[1]}_{'a' * 43}"
                response = client.post(
                    "/predictions/images", content=b"x", headers={"Authorization": f"Bearer {forged}"}
                )
                assert response.status_code == 401
            finally:
                release.set()
            assert [future.result().status_code for future in waiting] == [200] * 3
            assert client.post("/predictions/images", content=b"x").status_code == 200


def test_killed_gateway_loses_no_request(tmp_path):
    """Requests wait until the next gateway checks their keys."""
    with keyed_edge(tmp_path) as keyed, keyed.client("images") as client, ThreadPoolExecutor(4) as pool:
        stopped = threading.Event()

        def send() -> list[int]:
            statuses = []
            while not stopped.is_set():
                statuses.append(client.post("/predictions/images", content=b"x").status_code)
            return statuses

        senders = [pool.submit(send) for _ in range(4)]
        try:
            for _ in range(2):
                end = time.monotonic() + 1
                while time.monotonic() < end:
                    keyed.running.supervise()
                    time.sleep(0.02)
                gateway = keyed.running.gateway
                assert gateway.pid is not None
                os.kill(gateway.pid, signal.SIGKILL)
                end = time.monotonic() + 30
                restarts = keyed.running.restarts["gateway"].get("died", 0)
                while keyed.running.restarts["gateway"].get("died", 0) == restarts or not gateway.is_ready:
                    assert time.monotonic() < end
                    keyed.running.supervise()
                    time.sleep(0.02)
        finally:
            stopped.set()
        statuses = [status for sender in senders for status in sender.result()]
    assert len(statuses) > 50
    assert set(statuses) == {200}


def test_requests_fail_while_keys_cannot_be_checked(tmp_path):
    with keyed_edge(tmp_path) as keyed, keyed.client("all") as client:
        assert client.post("/predictions/images", content=b"x").status_code == 200
        saved = keyed.file.path.read_bytes()
        keyed.file.path.write_bytes(b"{")
        for path in ("/predictions/images", "/v2/models/images/infer", "/model"):
            response = client.post(path, content=b"x")
            assert error(response) == (503, "Unavailable")
            assert response.headers["retry-after"] == "1"
        assert error(client.get("/models")) == (503, "Unavailable")
        assert call(keyed, METHODS[0][0], PREDICTION, "all") is STATUS.UNAVAILABLE
        assert client.get("/livez").status_code == 200
        keyed.file.path.write_bytes(saved)
        assert client.post("/predictions/images", content=b"x").status_code == 200
        # No gateway: nobody restarts it in this test.
        keyed.running.gateway.kill()
        assert keyed.running.gateway.listener is not None
        keyed.running.gateway.listener.close()
        response = client.post("/predictions/images", content=b"x")
        assert error(response) == (503, "Unavailable")
        assert call(keyed, METHODS[0][0], PREDICTION, "all") is STATUS.UNAVAILABLE


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


def test_cached_answers_are_not_shared_between_keys(tmp_path):
    description = [
        {
            "modelName": "images",
            "modelVersion": "1.0",
            "workers": [{"id": "9000", "startTime": "2026-01-01T00:00:00.000Z", "status": "READY"}],
        }
    ]

    def cacheable(request: Received) -> Answer:
        if request.method == "GET":
            return Answer(body=json.dumps(description).encode())
        return Answer(body=b"computed")

    settings = replace(SETTINGS, cache_bytes=2**20, cache_check_timeout_s=20)
    with keyed_edge(tmp_path, settings) as keyed:
        keyed.torchserve.answer = cacheable
        results = []
        for name in ("all", "all", "images", "images"):
            with keyed.client(name) as client:
                response = client.post("/predictions/images", content=b"x")
                assert response.text == "computed"
                results.append(response.headers["x-cache"])
        assert results == ["MISS", "HIT", "MISS", "HIT"]
        with keyed.client() as client:
            assert client.post("/predictions/images", content=b"x").status_code == 401
        with keyed.client("management") as client:
            assert client.post("/predictions/images", content=b"x").status_code == 403
        predictions = [request for request in keyed.torchserve.received if request.method == "POST"]
        assert len(predictions) == 2
        for request in predictions:
            assert (
                not {"authorization", "x-edge-key-id", "x-gateway-key", "x-api-key"} & request.headers.keys()
            )


def test_no_log_contains_a_key(tmp_path, capfd):
    with keyed_edge(tmp_path, access_log="/dev/stdout requests") as keyed:
        ids = {name: keyed.create(name, *scopes).id for name, scopes in SCOPES.items()}
        for name in SCOPES:
            with keyed.client(name) as client:
                for method, path, _ in ROUTES:
                    client.request(method, path, content=b"x" if method == "POST" else None)
            for path, message, _ in METHODS:
                call(keyed, path, message, name)
        with keyed.client("all") as client:
            client.headers["Authorization"] += "x"
            client.post("/predictions/images", content=b"x")
            keyed.file.path.write_bytes(b"{")
            client.post("/predictions/images", content=b"x", headers=keyed.headers("all"))
        secrets = [text.split("_", 2)[2] for text in keyed.texts.values()]
        config = (keyed.running._work.path / "nginx.conf").read_text()
    captured = capfd.readouterr()
    log = captured.out + captured.err
    assert f"key={ids['images']}" in log
    assert "is not valid" in log
    for secret in secrets:
        assert secret not in log
        assert secret not in config
