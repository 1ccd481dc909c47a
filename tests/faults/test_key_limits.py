"""API keys at the edge: changes of keys, limits, failures of the check, the response cache, and logs."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest

from tests.faults.edge import Answer, Received, needs_nginx
from tests.faults.keyed_edge import (
    METHODS,
    PREDICTION,
    ROUTES,
    SCOPES,
    SETTINGS,
    Keyed,
    call,
    error,
    keyed_edge,
)
from torchserve_models.gateway.nginx.config import Limits

pytestmark = needs_nginx
STATUS = grpc.StatusCode


@pytest.fixture(scope="module")
def keyed(tmp_path_factory) -> Iterator[Keyed]:
    with keyed_edge(tmp_path_factory.mktemp("keys")) as running:
        yield running


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
