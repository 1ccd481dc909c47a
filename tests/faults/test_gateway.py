"""scripts/gateway without TorchServe: killed, stopped or damaged processes are restored."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.server.fronted import needs_nginx
from torchserve_models.gateway.keys.api_key import ApiKey
from torchserve_models.gateway.keys.key_file import KeyFile
from torchserve_models.paths import ROOT

pytestmark = [
    needs_nginx,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc"),
]
RECOVERY_TIMEOUT_S = 30


@dataclass
class Command:
    """scripts/gateway in a separate process."""

    process: subprocess.Popen
    url: str

    @property
    def children(self):
        return psutil.Process(self.process.pid).children()

    @property
    def gateway(self):
        (process,) = [child for child in self.children if "gateway-app" in child.cmdline()]
        return process

    @property
    def nginx(self):
        (process,) = [child for child in self.children if child.name() == "nginx"]
        return process

    def answers(self):
        """Return whether the gateway and nginx respond."""
        try:
            gateway = httpx.get(f"{self.url}/docs", timeout=2).status_code
            nginx = httpx.get(f"{self.url}/nothing", timeout=2).status_code
        except httpx.HTTPError:
            return False
        return (gateway, nginx) == (200, 404)

    def restarts(self):
        port = self.gateway.cmdline()[self.gateway.cmdline().index("--listen") + 1]
        text = httpx.get(f"http://{port}/gateway/metrics", timeout=5).text
        lines = [line for line in text.splitlines() if line.startswith("gateway_process_restarts_total{")]
        return {
            line.rsplit(" ", 1)[0].split("{")[1].rstrip("}"): float(line.rsplit(" ", 1)[1]) for line in lines
        }


@contextmanager
def command(tmp_path, *options, **popen):
    line = [
        sys.executable,
        "-P",
        "-m",
        "torchserve_models",
        "gateway",
        "--run-dir",
        str(tmp_path / "run"),
        "--port",
        "0",
    ]
    with (tmp_path / "stderr").open("w") as stderr:
        popen = {"stdout": subprocess.PIPE, "stderr": stderr, "text": True} | popen
        process = subprocess.Popen(
            [*line, "--grpc-port", "0", *options], env=os.environ | {"PYTHONPATH": str(ROOT)}, **popen
        )
    try:
        first_line = process.stdout.readline()
        assert first_line.startswith("REST "), (tmp_path / "stderr").read_text()
        url = first_line.split()[1].rstrip(",")
        running = Command(process, url)
        wait_until(running.answers)
        yield running
    finally:
        process.terminate()
        process.stdout.close()
        assert process.wait(30) in (0, 1)


def wait_until(condition, seconds=RECOVERY_TIMEOUT_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with command(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def test_killed_gateway_is_restarted_while_nginx_answers(shared):
    before, nginx = shared.gateway, shared.nginx
    before.kill()
    assert httpx.get(f"{shared.url}/nothing").status_code == 404
    wait_until(lambda: not before.is_running() and shared.answers())
    assert shared.nginx == nginx
    assert shared.restarts()['process="gateway",reason="died"'] >= 1


def test_stopped_gateway_is_replaced(shared):
    before = shared.gateway
    before.suspend()
    wait_until(lambda: not before.is_running() and shared.answers())
    assert shared.restarts()['process="gateway",reason="stopped"'] >= 1


def test_killed_nginx_master_is_restarted_without_orphans(shared):
    master = shared.nginx
    workers = master.children()
    assert workers
    master.kill()
    wait_until(lambda: not any(worker.is_running() for worker in workers) and shared.answers())
    assert shared.nginx != master
    assert shared.restarts()['process="nginx",reason="died"'] >= 1


def test_stopped_nginx_master_is_replaced(shared):
    master = shared.nginx
    master.suspend()
    wait_until(lambda: not master.is_running() and shared.answers())


@pytest.mark.parametrize("method", ["kill", "suspend"])
def test_failed_nginx_workers_are_replaced(shared, method):
    master, workers = shared.nginx, shared.nginx.children()
    for worker in workers:
        getattr(worker, method)()
    wait_until(lambda: not any(worker.is_running() for worker in workers) and shared.answers())
    assert shared.nginx == master


def test_removed_temporary_folders_are_restored(shared):
    parts = " ".join(shared.nginx.cmdline()).split()
    folder = next(Path(part).parent for part in parts if part.endswith("nginx.conf"))
    shutil.rmtree(folder, ignore_errors=True)  # the supervisor may already restore a part of it
    wait_until((folder / "body").is_dir)
    body = b'{"text": "' + b"x" * 3_000_000 + b'"}'  # larger than nginx's buffer in memory
    answer = httpx.post(f"{shared.url}/predict/text_summarize", content=body, timeout=30)
    assert answer.json()["type"] == "Unavailable"  # there is no TorchServe


def test_unwritable_messages_are_ignored(tmp_path):
    """The readers of stdout and stderr have closed their pipes."""
    reading, writing = os.pipe()
    with command(tmp_path, stderr=writing) as running:
        os.close(writing)
        os.close(reading)
        running.process.stdout.close()
        for child in (running.gateway, running.nginx):
            child.kill()
        wait_until(running.answers)
        assert running.process.poll() is None
        assert sum(running.restarts().values()) == 2


def test_drain_delay_reports_not_ready_and_finishes_requests(tmp_path):
    with command(tmp_path, "--drain-delay", "3", "--grace", "20") as running:
        client = httpx.Client(timeout=30)
        running.process.terminate()
        start = time.monotonic()
        ready = "/v2/health/ready"
        wait_until(lambda: "shutting down" in client.get(f"{running.url}{ready}").text, 2)
        assert client.get(f"{running.url}/ping").status_code == 503
        assert running.answers()  # other routes still respond
        slow = SlowUpload(running.url)
        time.sleep(max(0.0, start + 3.5 - time.monotonic()))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/docs")
        assert b'"Unavailable"' in slow.finish()
        assert running.process.wait(30) == 0
        assert time.monotonic() - start < 15  # less than the whole grace period
        client.close()


def test_second_signal_stops_at_once(tmp_path):
    with command(tmp_path, "--drain-delay", "60") as running:
        running.process.terminate()
        time.sleep(0.5)
        assert running.process.poll() is None
        running.process.terminate()
        assert running.process.wait(20) == 0


class SlowUpload:
    """A request whose body is sent in two parts."""

    def __init__(self, url):
        self.body = b'{"text": "a"}'
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), 10)
        head = f"POST /predict/text_summarize HTTP/1.1\r\nHost: a\r\nContent-Length: {len(self.body)}\r\n"
        self.socket.sendall(f"{head}Connection: close\r\n\r\n".encode() + self.body[:5])

    def finish(self):
        self.socket.sendall(self.body[5:])
        answer = b""
        while piece := self.socket.recv(65536):
            answer += piece
        self.socket.close()
        return answer


def test_command_requires_the_keys_of_its_file(tmp_path):
    (key, text), file = ApiKey.create("shop", ("inference",)), KeyFile(tmp_path / "keys.json")
    file.add(key)
    with command(tmp_path, "--keys", str(file.path)) as running:
        statuses = [
            httpx.post(f"{running.url}/predict/text_summarize", content=b"x", headers=headers).status_code
            for headers in ({}, {"Authorization": f"Bearer {text}"})
        ]
        assert statuses == [401, 400]  # with the key, the gateway rejects the body
        lines = [" ".join(process.cmdline()) for process in running.children]
        assert not any(text in line for line in lines)
