"""Tests of the supervisor's HTTP server: routes, invalid requests, and slow or numerous clients."""

import contextlib
import http.client
import json
import socket
import time
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.serving.health.observed import MODEL, READY, SERVING
from torchserve_models.serving.health import http_server
from torchserve_models.serving.health.http_server import HealthServer
from torchserve_models.serving.health.metrics import SupervisorMetrics
from torchserve_models.serving.health.observations import ServerObservation

BROKEN = replace(SERVING, model=replace(MODEL, name="a b/c", workers=()))
OTHER = replace(SERVING, model=replace(MODEL, version="2", default=False, workers=()))


class FakeMonitor:
    def __init__(self):
        self.versions = (SERVING, OTHER)
        self.phase = "running"
        self.stalled_s = 0.1
        self.recorded = 5.0
        self.metrics = SupervisorMetrics(lambda: (self.snapshot(), time.monotonic()))

    def snapshot(self):
        now = time.monotonic()
        activity = replace(READY.activity, heartbeat=now)
        versions = [
            replace(
                version,
                model=replace(
                    version.model,
                    workers=tuple(replace(worker, activity=activity) for worker in version.model.workers),
                ),
            )
            for version in self.versions
        ]
        return ServerObservation(now, time.time(), self.phase, tuple(versions), {"no/way": "not found"}, now)

    refreshed = snapshot

    def hold(self, pid):
        self.held_pid = pid
        return pid == 7


class Restarted(FakeMonitor):
    """State after a restart that could not restore the default version of `m` and any version of `gone`."""

    def snapshot(self):
        losses = {("m", "0"): "its archive is gone", ("gone", "5"): "its archive is gone"}
        return replace(super().snapshot(), missing=losses, lost_defaults={"m": "0", "gone": "5"})

    refreshed = snapshot


@pytest.fixture
def monitor():
    return FakeMonitor()


@pytest.fixture
def port(monitor):
    with socket.create_server(("127.0.0.1", 0)) as server_socket:
        number = server_socket.getsockname()[1]
    server = HealthServer("127.0.0.1", number, monitor)
    server.start()
    yield number
    server.close()
    server.close()


def get(port, path, method="GET", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/livez", 200, {"live": True}),
        ("/readyz", 200, {"ready": True}),
        ("/readyz?strict=0", 200, {"ready": True}),
        ("/readyz/m", 200, {"ready": True}),
        ("/readyz/m/1?strict=true", 200, {"ready": True}),
        ("/readyz/m/2", 503, {"ready": False, "reason": "the version has no worker"}),
        (
            "/readyz/no%2Fway",
            503,
            {"ready": False, "reason": "TorchServe cannot describe the model: not found"},
        ),
        ("/readyz/no", 404, {"ready": False, "reason": "Model not found: no"}),
        ("/readyz/m/3", 404, {"ready": False, "reason": "Model version: 3 does not exist for model: m"}),
    ],
)
def test_probes_report_readiness_and_liveness(port, path, status, body):
    assert get(port, path) == (status, json.dumps(body).encode() + b"\n")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/readyz", 503),
        ("/readyz/m", 503),
        ("/readyz/m/1", 200),
        ("/readyz/m/0", 503),
        ("/readyz/gone", 503),
        ("/readyz/gone/5", 503),
        ("/readyz/no", 404),
    ],
)
def test_lost_versions_make_probes_fail(path, status):
    monitor = Restarted()
    assert http_server.handle_get(monitor, path)[0] == status
    ready = monitor.metrics.registry.get_sample_value("torchserve_supervisor_ready", {"model": "m"})
    assert ready == 0.0


def test_strict_mode_names_degraded_models(port, monitor):
    status, body = get(port, "/readyz?strict=1")
    assert status == 503
    assert (
        "m 2: 0 of 1 workers can answer; no/way: TorchServe cannot describe the model"
        in json.loads(body)["reason"]
    )


def test_phase_change_makes_the_server_unready_at_once(port, monitor):
    monitor.phase = "stopping"
    assert json.loads(get(port, "/readyz")[1]) == {"ready": False, "reason": "the server is stopping"}
    assert get(port, "/readyz/m")[0] == 503
    assert get(port, "/livez")[0] == 200


def test_hanging_monitor_is_not_live(port, monitor):
    monitor.stalled_s = 31.0
    assert get(port, "/livez")[0] == 503


def test_state_is_json(port):
    status, body = get(port, "/state")
    state = json.loads(body)
    assert status == 200
    assert (state["phase"], state["ready"], state["strict"], state["reason"]) == ("ready", True, False, None)
    assert [(model["name"], model["version"]) for model in state["models"]] == [("m", "1"), ("m", "2")]
    assert state["models"][0]["workers"][0]["pid"] == 7


def test_metrics_are_exposed(port, monitor):
    monitor.metrics.kills.labels("m", "stuck").inc()
    families = {
        family.name: family.samples
        for family in text_string_to_metric_families(get(port, "/metrics")[1].decode())
    }
    assert families["torchserve_supervisor_ready"][0][1:3] == ({"model": "m"}, 1.0)
    values = [sample.value for sample in families["torchserve_supervisor_model_ready"]]
    assert values == [1.0, 0.0]
    assert families["torchserve_supervisor_worker_kills"][0][1:3] == ({"model": "m", "reason": "stuck"}, 1.0)


def test_recorded_snapshot_is_reported(port):
    before = time.time()
    status, body = get(port, "/recorded")
    value = json.loads(body)
    assert (status, value["recorded"]) == (200, 5.0)
    assert before <= value["now"] <= time.time()


def test_worker_can_be_held(port, monitor):
    assert get(port, "/workers/7/hold", "POST")[0] == 202
    assert monitor.held_pid == 7
    assert get(port, "/workers/8/hold", "POST")[0] == 404


@pytest.mark.parametrize(
    "path", ["/workers/-7/hold", "/workers/7", "/workers/7/hold/", "/livez", "/workers//hold"]
)
def test_other_posts_are_rejected(port, path):
    assert get(port, path, "POST")[0] == 405


def test_web_page_cannot_hold_a_worker(port, monitor):
    monitor.held_pid = None
    assert get(port, "/workers/7/hold", "POST", {"Origin": "http://evil.example"})[0] == 403
    assert get(port, "/workers/7/hold")[0] == 404
    assert monitor.held_pid is None


def test_other_routes_and_methods_are_rejected(port):
    assert get(port, "/")[0] == get(port, "/readyz/")[0] == get(port, "/readyz/a/b/c")[0] == 404
    assert get(port, "//[")[0] == get(port, "/livez//")[0] == get(port, "/%5B%FF")[0] == 404
    assert get(port, "/livez", "POST")[0] == 405
    assert get(port, "/readyz", "HEAD") == (200, b"")


def raw(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(4096):
                received += chunk
        return received


def test_invalid_http_is_rejected(port):
    assert raw(port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(port, b"GET /readyz HTTP/1.1\r\nX: " + b"x" * 10_000).startswith(b"HTTP/1.1 431 ")
    # A body is not read as another request.
    body = b"GET /livez HTTP/1.1\r\n\r\n"
    response = raw(port, b"GET /readyz HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert response.count(b"HTTP/1.1 ") == 1


def test_connection_stays_open_for_the_next_probe(port):
    two = raw(port, b"GET /livez HTTP/1.1\r\n\r\nGET /readyz HTTP/1.0\r\n\r\n")
    assert two.count(b"HTTP/1.1 200 OK") == 2
    assert two.index(b'"live"') < two.index(b'"ready"')


def test_pipelined_requests_are_limited(port):
    received = raw(port, b"GET /state HTTP/1.1\r\n\r\n" * 3000)
    assert 1 <= received.count(b"HTTP/1.1 200 OK") <= http_server.MAX_PIPELINED
    assert get(port, "/livez")[0] == 200


def test_silent_client_is_disconnected(port, monkeypatch):
    monkeypatch.setattr(http_server, "REQUEST_TIMEOUT_S", 0.2)
    assert raw(port, b"GET /readyz HTTP/1.1\r\n") == b""


def test_probe_is_answered_despite_a_thousand_idle_connections(port):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(800)
        ]
        assert get(port, "/readyz")[0] == 200
        closed = 0
        for connection in sockets[:400]:
            connection.settimeout(1.0)
            with contextlib.suppress(ConnectionError):
                closed += connection.recv(1) == b""
                continue
            closed += 1
        assert closed == 400  # the oldest ones made room


def test_taken_port_is_an_error(port, monitor):
    with pytest.raises(OSError, match="address already in use"):
        HealthServer("127.0.0.1", port, monitor).start()
