"""The services of deploy/compose.yaml, run by podman: limits, restarts and shutdown.

Requires root, podman and two images: that of scripts/image (IMAGE, by default localhost/torchserve-models) and the
nginx image in the file. Run it with `scripts/test -m slow tests/image/test_services.py`.
"""

import collections
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.image.services import FILE, Stack
from torchserve_models.serving.run_config.memory_budget import GIB, compute_budget
from training.images import draw_image
from training.reports import draw_example

IMAGE = os.environ.get("IMAGE", "localhost/torchserve-models")
NGINX_IMAGE = re.findall(r"image: (nginx:.*)", FILE.read_text())[0]
MEMORY_GIB = 4
START_S = 400
RESTORE_S = 120
"""Limits for a busy machine; an idle machine takes a tenth of this time."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("needs root and podman")
    for image in (IMAGE, NGINX_IMAGE):
        if subprocess.run(["podman", "image", "exists", image], capture_output=True).returncode:
            pytest.skip(f"podman has no image {image}")
    store = {name: value for name, value in os.environ.items() if name == "MODEL_STORE"}
    ports = {}
    for name in ("HTTP_PORT", "GRPC_PORT"):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ports[name] = str(listener.getsockname()[1])
    running = Stack(
        f"compose-test-{os.getpid()}",
        {"IMAGE": IMAGE, "MEMORY": f"{MEMORY_GIB}g", "EDGE_OPTIONS": "--client-requests 200"} | ports | store,
    )
    try:
        for service in ("torchserve", "gateway", "nginx"):
            running.start(service)
            limit = START_S if service == "torchserve" else 60
            wait_until(lambda s=service: running.is_healthy(s), limit, lambda s=service: running.log(s))
        yield running
    finally:
        running.remove()


@pytest.fixture(scope="module")
def url(stack) -> str:
    return "http://" + stack.services["nginx"]["ports"][0].rpartition(":")[0]


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


PHOTO = draw_image(7, 0)[1]
TEXT = draw_example(7, 0)[0].encode()
REQUESTS = {
    "resnet-50": (PHOTO, "application/octet-stream", b"score"),
    "t5-small": (TEXT, "text/plain", b"summary_text"),
    "bart-large-cnn": (TEXT, "text/plain", b"summary_text"),
}


def predict(client: httpx.Client, url: str, model: str) -> httpx.Response:
    body, content_type, _ = REQUESTS[model]
    return client.post(f"{url}/predictions/{model}", content=body, headers={"Content-Type": content_type})


def test_every_model_answers_through_nginx(url):
    with httpx.Client(trust_env=False, timeout=60) as client:
        for model, (_, _, expected) in REQUESTS.items():
            answer = predict(client, url, model)
            assert answer.status_code == 200, answer.text
            assert expected in answer.content


def test_nginx_limits_requests_to_the_memory_of_torchserve(stack):
    budget = compute_budget(MEMORY_GIB * GIB, has_edge=False)
    arguments = stack.execute("torchserve", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert f"-Xmx{budget.java_heap // 2**20}m" in arguments
    configuration = stack.execute("nginx", "cat", "/etc/nginx/edge/nginx.conf")
    assert (
        f"server torchserve:8080 resolve max_fails=0 max_conns={budget.body_bytes * 12 // 10**7};"
        in configuration
    )
    assert "limit_conn client_requests 200;" in configuration


@pytest.mark.parametrize("service", ["torchserve", "gateway", "nginx"])
def test_service_can_write_only_to_its_folders(stack, service):
    written = stack.shell(
        service, "for f in / /etc /usr /app /app/model_store; do touch $f/x && echo $f; done"
    )
    assert written == ""
    folder = {"torchserve": "/app/.run", "gateway": "/app/.run", "nginx": "/var/cache/nginx"}[service]
    assert stack.shell(service, f"touch {folder}/x && echo written") == "written"


def test_no_service_can_gain_privileges(stack):
    for service in ("torchserve", "gateway", "nginx"):
        status = stack.execute(service, "cat", "/proc/1/status")
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        bounding = int(re.findall(r"^CapBnd:\s+(\w+)$", status, re.MULTILINE)[0], 16)
        names = {0: "CHOWN", 6: "SETGID", 7: "SETUID", 19: "SYS_PTRACE"}
        capabilities = {names.get(bit, bit) for bit in range(64) if bounding >> bit & 1}
        assert capabilities == set(stack.services[service].get("cap_add", []))


def test_killed_java_process_is_restarted(stack, url):
    code = "import psutil; [p.kill() for p in psutil.process_iter() if p.name() == 'java']"
    stack.execute("torchserve", "python", "-c", code)
    wait_until(lambda: not ready(url), 30, lambda: "readiness stayed true")
    wait_until(lambda: ready(url), RESTORE_S, lambda: stack.log("torchserve"))
    test_every_model_answers_through_nginx(url)


def test_nginx_finds_torchserve_under_a_new_address(stack, url):
    """The gateway stays in the removed network until its health check fails and it restarts in the new network."""
    before = stack.address("torchserve")
    stack.restart("torchserve")
    assert stack.address("torchserve") != before
    wait_until(lambda: stack.is_healthy("torchserve"), START_S, lambda: stack.log("torchserve"))
    wait_until(lambda: stack.is_healthy("gateway"), 90, lambda: stack.log("gateway"))
    wait_until(lambda: ready(url), 30, lambda: stack.log("nginx"))
    test_every_model_answers_through_nginx(url)


class Load:
    """Clients that send requests until they are rejected, through nginx and directly, with and without keep-alive."""

    def __init__(self, urls: list[str]) -> None:
        self.answers: collections.Counter[str] = collections.Counter()
        self._threads = [
            threading.Thread(target=self._send_requests, args=(url, keep), daemon=True)
            for url in urls
            for keep in (True, True, False, False)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(120)

    def _send_requests(self, url: str, keep: bool) -> None:
        limits = httpx.Limits(max_keepalive_connections=1 if keep else 0)
        refused = 0
        with httpx.Client(trust_env=False, timeout=90, limits=limits) as client:
            while refused < 20:
                for model in REQUESTS:
                    result = self._result(client, url, model)
                    self.answers[result] += 1
                    refused = 0 if result == "200" else refused + 1
                    if refused:
                        time.sleep(0.05)

    def _result(self, client: httpx.Client, url: str, model: str) -> str:
        try:
            answer = predict(client, url, model)
        except httpx.ConnectError:
            return "not accepted"
        except httpx.HTTPError as error:
            return f"lost: {error!r}"
        if answer.status_code == 200 and REQUESTS[model][2] not in answer.content:
            return f"wrong: {answer.text[:200]}"
        if answer.status_code not in (200, 429, 502, 503, 504):  # 504: the address is no longer in use
            return f"wrong: {answer.status_code} {answer.text[:200]}"
        assert answer.status_code == 200 or json.loads(answer.text)["message"]
        return str(answer.status_code)


def test_accepted_requests_are_answered_during_shutdown(stack, url):
    """Must be the last test. TorchServe stops first, while nginx and other clients still send requests."""
    direct = f"http://{stack.address('torchserve')}:8080"
    with Load([url, direct]) as load:
        time.sleep(8)
        start = time.monotonic()
        code = stack.stop("torchserve")
        print(f"\nended in {time.monotonic() - start:.1f} s")
    print(load.answers)
    assert code == 0
    assert load.answers["200"] > 20
    assert not [result for result in load.answers if result.startswith(("lost", "wrong"))], load.answers
    for service in ("gateway", "nginx"):
        assert stack.stop(service) in (0, 128 + 15)  # not killed after the grace period
