"""nginx's limits in front of a real TorchServe: body sizes, slow clients, full queues, TLS and rates."""

import asyncio
import collections
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import httpx
import psutil
import pytest

from tests.faults.toys import toy
from tests.live_server import alive
from tests.server.fronted import IMAGE, LABEL, SLOW, error, in_front_of, needs_nginx, through
from tests.tools import needs
from torchserve_models.client import AsyncClient, Client, Endpoints, Overloaded, TorchServeError
from torchserve_models.gateway.nginx.config import Tls
from torchserve_models.paths import ROOT

pytestmark = needs_nginx
QUEUE = 20


@pytest.fixture(scope="module")
def front(server):
    with in_front_of(server.endpoints) as running:
        yield running


@pytest.fixture(scope="module")
def http(front):
    with httpx.Client(base_url=front.url, timeout=60) as client:
        yield client


@pytest.fixture
def slow_model(server):
    """Serve a toy model with one worker and a queue of QUEUE requests."""
    with Client(endpoints=server.endpoints) as client:
        client.register(f"{toy(server.store, 'obedient', queue=QUEUE)}.mar")
        try:
            yield "obedient"
        finally:
            client.unregister("obedient")
            (server.store / "obedient.mar").unlink()


def test_too_large_body_gets_the_error_format(http):
    body = b"\0" * (17 << 20)
    pieces = (body[at : at + 2**16] for at in range(0, len(body), 2**16))
    for content in (body, pieces):  # with a length, and chunked
        for path in (
            ("/predictions/resnet-50", "/predict") if content is body else ("/predictions/resnet-50",)
        ):
            error(http.post(path, content=content), 413, "TooLarge")
    assert http.post("/predictions/resnet-50", content=IMAGE).status_code == 200


def test_413_of_a_handler_is_passed_on(http):
    response = http.post(
        "/predictions/t5-small", content=b"a" * 1_500_000, headers={"content-type": "text/plain"}
    )
    error(response, 413, "TextTooLong")


def test_large_header_or_url_is_rejected(http):
    error(http.post("/predictions/resnet-50", content=IMAGE, headers={"x": "a" * 65536}), 431, "TooLarge")
    error(http.get("/predictions/" + "a" * 8000), 414, "TooLarge")
    assert http.post("/predictions/resnet-50", content=IMAGE, headers={"x": "a" * 3000}).status_code == 200


def test_responses_have_an_id_and_hide_nginxs_version(http):
    for path in ("/nothing", "/v2", "/models", "/predictions/resnet-50"):
        response = http.get(path, headers={"x-request-id": "mine-7"})
        assert response.headers["x-request-id"] == "mine-7"
        assert response.headers["server"] == "nginx"
        assert "nginx/" not in response.text + str(response.headers)
    ids = {
        http.get("/v2", headers={"x-request-id": bad}).headers["x-request-id"]
        for bad in ("", "a b", "x" * 200)
    }
    assert len(ids) == 3
    assert all(len(request_id) == 32 for request_id in ids)


def test_malformed_request_is_rejected(front):
    with socket.create_connection(front.config.http.rsplit(":", 1)) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = connection.recv(10_000)
    assert b" 400 " in answer
    assert b"nginx/" not in answer


def is_cut(connection, more):
    """Send `more`, and return whether the server has closed the connection."""
    try:
        connection.sendall(more)
        return connection.recv(100) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_slow_clients_are_disconnected_without_affecting_others(front, http):
    head = b"POST /predictions/resnet-50 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    # An incomplete header, a header that arrives byte by byte, and an incomplete body.
    kinds = [(head, b""), (head, b"x"), (head + b"\r\nabc", b"")]
    begin = time.monotonic()
    slow = []
    for number in range(90):
        start, more = kinds[number % 3]
        connection = socket.create_connection(front.config.http.rsplit(":", 1))
        connection.sendall(start)
        connection.setblocking(False)
        slow.append((connection, more))
    seconds, answered = 0.0, 0
    while slow:
        assert http.post("/predictions/resnet-50", content=IMAGE).status_code == 200
        answered += 1
        assert time.monotonic() - begin < SLOW * 4
        for connection, more in list(slow):
            if is_cut(connection, more):
                connection.close()
                slow.remove((connection, more))
                seconds = seconds or time.monotonic() - begin
        time.sleep(0.1)
    assert seconds > SLOW * 0.8  # no client is disconnected early
    assert answered > 3


async def burst(url, model, count, body):
    """Send `count` concurrent requests; return each response with its duration in seconds."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def one():
            begin = time.monotonic()
            response = await client.post(f"/predictions/{model}", content=body)
            return response, time.monotonic() - begin

        return await asyncio.gather(*(one() for _ in range(count)))


def test_requests_beyond_the_queue_are_rejected(front, slow_model):
    answers = asyncio.run(burst(front.url, slow_model, 200, b"sleep 0.05"))
    statuses = collections.Counter(response.status_code for response, _ in answers)
    assert statuses.keys() == {200, 429}
    assert statuses[200] >= QUEUE
    for response, _ in answers:
        if response.status_code == 429:
            error(response, 429, "Overloaded")
            assert response.headers["retry-after"] == "1"


def test_client_that_honors_retry_after_succeeds(front, slow_model):
    """With retries, every client gets an answer."""

    async def send_all():
        async with AsyncClient(endpoints=Endpoints(inference=front.url), retries=8, timeout=60) as client:
            call = client._operations._tasks._post(
                slow_model, None, "text/plain", b"sleep 0.01", lambda value: value
            )
            call = replace(call, read=bytes.decode)
            return await asyncio.gather(*(client._run(call) for _ in range(60)))

    assert len(asyncio.run(send_all())) == 60


def test_missing_worker_is_503_and_broken_handler_is_500(front, http, server, slow_model):
    message = error(http.post(f"/predictions/{slow_model}", content=b"raise"), 500, "InternalError")
    assert "handler failed" in message
    with Client(endpoints=server.endpoints) as client:
        client.scale(slow_model, 0)
    time.sleep(1.1)  # the previous diagnosis is cached for a second
    deadline = time.monotonic() + 15
    while "no worker" not in http.get(f"/v2/models/{slow_model}/ready").json().get("reason", ""):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    responses = [http.post(f"/predictions/{slow_model}", content=b"x") for _ in range(3)]
    for response in responses:
        assert slow_model in error(response, 503, "NoWorker")
        assert response.headers["retry-after"] == "1"
    time.sleep(1.0)  # probe responses are based on a state that is up to 1.5 s old
    response = http.get(f"/v2/models/{slow_model}/ready")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    # A model that is scaled to 0 does not affect the readiness of the server.
    assert http.get("/v2/health/ready").status_code == 200
    assert http.get("/ping").json()["status"] == "Healthy"


def test_second_death_of_a_worker_is_reported(http, slow_model, tmp_path):
    response = http.post(f"/predictions/{slow_model}", content=f"exit once {tmp_path / 'died'}".encode())
    assert (tmp_path / "died").exists()
    assert (response.status_code, response.headers["x-retried"]) == (200, "1")
    response = http.post(f"/predictions/{slow_model}", content=b"exit")
    assert error(response, 503, "WorkerDied") == "Worker died."
    assert (response.headers["x-retried"], response.headers["retry-after"]) == ("1", "1")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_prediction_route_allows_post_only_without_a_worker(http, server, slow_model, method):
    with Client(endpoints=server.endpoints) as client:
        client.scale(slow_model, 0)
    response = http.request(method, f"/predictions/{slow_model}", timeout=10)
    error(response, 405, "NotAllowed")
    assert response.headers["allow"] == "POST"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    files = Tls(folder / "cert.pem", folder / "key.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
    subject = ["subjectAltName=IP:127.0.0.1", "-out", files.certificate, "-keyout", files.key]
    subprocess.run([*command.split(), *subject], check=True, capture_output=True, timeout=60)
    return files


@needs("openssl")
def test_tls_and_open_management_serve_every_protocol(server, certificate):
    ca = certificate.certificate
    with in_front_of(server.endpoints, tls=certificate, open_management=True) as running:
        assert running.url.startswith("https://")
        at = through(running, server)
        for protocol in ("rest", "grpc", "open-inference-grpc"):
            secure = replace(at, grpc_inference=f"https://{at.grpc_inference}", management=running.url)
            with Client(endpoints=secure, protocol=protocol, ca_file=ca, retries=0) as client:
                assert client.classify("resnet-50", IMAGE, top_k=1)[0].label == LABEL
                assert client.server_ready()
        with Client(endpoints=secure, ca_file=ca) as client:
            assert "resnet-50" in {model.name for model in client.list_models()}
        assert "handler_requests" in httpx.get(f"{running.url}/metrics", verify=False).text
        with pytest.raises(httpx.HTTPError):  # the certificate is not trusted
            httpx.get(running.url)
        answer = httpx.get(f"http://{running.config.http}/v2")  # plain HTTP on a TLS port
        error(answer, 400, "InvalidRequest")


def outcome(client):
    try:
        return client.classify("resnet-50", IMAGE)[0].label
    except TorchServeError as refused:
        return type(refused)


def test_rate_is_limited_per_client(server):
    with in_front_of(server.endpoints, rate=1, burst=3) as running:
        with httpx.Client(base_url=running.url) as client:
            answers = [client.get("/v2") for _ in range(8)]
            # Health routes are not rate limited, so that a load balancer can always probe them.
            assert {client.get("/v2/health/live").status_code for _ in range(8)} == {200}
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert "too many requests" in error(answer, 429, "Overloaded")
                assert answer.headers["retry-after"] == "1"
        with Client(endpoints=through(running, server), protocol="grpc", retries=0) as client:
            assert Overloaded in {outcome(client) for _ in range(8)}


def test_missing_torchserve_is_reported():
    nowhere = Endpoints.at(inference_port=1, management_port=1, metrics_port=1, grpc_port=1)
    with in_front_of(nowhere) as running:
        error(httpx.post(f"{running.url}/predictions/resnet-50", content=IMAGE), 503, "Unavailable")
        response = httpx.get(f"{running.url}/v2/health/live")
        assert (response.status_code, response.json()["live"]) == (503, False)
        running.gateway.listener.close()  # so that connections to the dead gateway are refused
        os.kill(running.gateway.pid, signal.SIGKILL)
        error(httpx.get(f"{running.url}/v2"), 502, "Unavailable")
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url)


def test_command_stops_both_processes(server):
    ports = [part for name in ("", "grpc-") for part in (f"--{name}port", "0")]
    line = [
        sys.executable,
        "-P",
        "-m",
        "torchserve_models",
        "gateway",
        "--run-dir",
        str(server.run_dir),
        *ports,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as running:
        url = running.stdout.readline().split()[1].rstrip(",")
        try:
            assert httpx.post(f"{url}/predictions/resnet-50", content=IMAGE, timeout=30).status_code == 200
            children = psutil.Process(running.pid).children(recursive=True)
            taken = url.rsplit(":", 1)[1]
            second = subprocess.run(
                [*line, "--port", taken], env=environment, capture_output=True, timeout=60
            )
            assert second.returncode == 1
            assert b"is already in use" in second.stderr
        finally:
            running.terminate()  # not SIGINT, which may be ignored if the tests run in the background
        assert running.wait(20) == 0
    assert len(children) >= 3  # the gateway, nginx and at least one nginx worker
    assert not any(alive(child) for child in children)


def test_killed_command_leaves_no_process(server):
    code = (
        "import time; from tests.server.fronted import in_front_of\n"
        "from torchserve_models.client import Endpoints\n"
        "with in_front_of(Endpoints()) as running:\n    print(running.url, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout.readline().startswith("http://")
        children = psutil.Process(running.pid).children(recursive=True)
        running.kill()
    _, left = psutil.wait_procs(children, timeout=10)
    assert left == []
