"""Hostile bodies on the parsing routes of the gateway: memory stays bounded, and other clients are answered."""

import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import httpx
import psutil
import pytest

from torchserve_models.paths import ROOT

MIB = 2**20
AT_ONCE = 4
ROUTES = ("/predict/text_summarize", "/model")


def filled(start, piece, end, size):
    return start + piece * ((size - len(start) - len(end)) // len(piece)) + end


def hostile(size):
    """Return a body of each kind with about `size` bytes."""
    boundary = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    return {
        "lists": filled(b'{"text": [', b"[],", b"[]]}", size),
        "lists as pixels": filled(b'{"img": [', b"[],", b"[]]}", size),
        "objects": filled(b'{"text": [', b"{},", b"{}]}", size),
        "fields": b"{" + b",".join(b'"%07x":0' % n for n in range(size // 13)) + b"}",
        "deep": b"[" * size,
        "deep fields": b'{"a":' * (size // 5),
        "strings": filled(b'{"text": [', b'"ab",', b'""]}', size),
        "a wide text": b'{"text": "\xf0\x9f\x98\x80' + b"x" * (size - 20) + b'"}',
        "a wide text as pixels": b'{"img": "\xf0\x9f\x98\x80' + b"x" * (size - 20) + b'"}',
        "numbers": filled(b'{"img": [[[', b"1,", b"1]]]}", size),
        "a number": b'{"img": [[[' + b"1" * (size - 20) + b"]]]}",
        "parts": filled(b"", boundary, b"--b--\r\n", size),
    }  # fmt: skip


class TorchServe(http.server.BaseHTTPRequestHandler):
    """A fake TorchServe that answers each prediction after `delay_s`."""

    protocol_version = "HTTP/1.1"
    delay_s = 0.02

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.delay_s)
        body = json.dumps([{"summary_text": "short"}]).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def gateway():
    """Run `torchserve-models gateway-app` in front of the fake TorchServe; yield its URL and process."""
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TorchServe)
    upstream.handle_error = lambda *_: None  # the client has disconnected
    threading.Thread(target=upstream.serve_forever, args=(0.01,), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as server_socket:
        address = f"127.0.0.1:{server_socket.getsockname()[1]}"
    line = [sys.executable, "-P", "-m", "torchserve_models", "gateway-app", "--listen", address]
    line += ["--inference", f"http://127.0.0.1:{upstream.server_port}", "--management", "http://127.0.0.1:1"]
    process = subprocess.Popen(line, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        url = f"http://{address}"
        end = time.monotonic() + 30
        while True:
            try:
                assert httpx.get(f"{url}/docs").status_code == 200
                break
            except httpx.ConnectError:
                assert time.monotonic() < end
                time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)
        upstream.shutdown()
        upstream.server_close()


class Background:
    """Context manager that records the gateway's resident memory and sends requests of a well-behaved client."""

    def __init__(self, url, process):
        self.url, self.process = url, process
        self.before = self.most = self.memory()
        self.times, self.failures = [], []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=target) for target in (self.watch, self.send_requests)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def memory(self):
        """Return the resident memory in MiB."""
        return self.process.memory_info().rss / MIB

    def watch(self):
        while not self.ended.wait(0.01):
            self.most = max(self.most, self.memory())

    def send_requests(self):
        with httpx.Client(timeout=60) as client:
            while not self.ended.wait(0.02):
                start = time.monotonic()
                response = client.post(f"{self.url}{ROUTES[0]}", json={"text": "a text " * 300})
                self.times.append(time.monotonic() - start)
                if response.status_code != 200:
                    self.failures.append(response.text)

    def check(self, most, after):
        """Check the answers, their latency, and the growth of memory in MiB: the peak and what remains."""
        assert self.failures == []
        assert len(self.times) > 5
        assert sorted(self.times)[int(0.99 * len(self.times))] < 10
        assert self.most - self.before < most
        time.sleep(0.5)
        assert self.memory() - self.before < after
        assert "gateway_body_bytes 0.0" in httpx.get(f"{self.url}/gateway/metrics").text


def send(url, route, body, chunked):
    """Return the status of a request on a new connection; 413 if the gateway closes it before the end of the body."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    pieces = [body[start : start + MIB] for start in range(0, len(body), MIB)]
    with closing(connection):
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", route, iter(pieces) if chunked else body, encode_chunked=chunked)
        try:
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 413


@pytest.mark.parametrize("size", [4 * MIB - 100, 16 * MIB])
def test_hostile_bodies_are_rejected_in_bounded_memory(size):
    statuses = []
    with gateway() as (url, process), ThreadPoolExecutor(2 * AT_ONCE) as pool:
        send(url, ROUTES[0], b'{"text": "a"}', False)
        with Background(url, process) as background:
            for body in hostile(size).values():
                sent = [
                    pool.submit(send, url, route, body, number == 0)
                    for route in ROUTES
                    for number in range(AT_ONCE)
                ]
                statuses += [request.result() for request in sent]
        background.check(most=100, after=20)
    # A long text with an emoji is valid.
    accepted = {200} if size < 4 * MIB else set()
    assert set(statuses) <= {400, 413, 429} | accepted
    assert 400 in statuses


def test_texts_beyond_the_memory_budget_are_rejected(monkeypatch):
    """The texts are valid, but the model is slow, so that many of them are in progress."""
    body = json.dumps({"text": "x" * 900_000 + "\N{GRINNING FACE}"}, ensure_ascii=False).encode()
    with gateway() as (url, process), ThreadPoolExecutor(40) as pool:
        with Background(url, process) as background:
            time.sleep(1)
            monkeypatch.setattr(TorchServe, "delay_s", 3)
            statuses = list(pool.map(lambda _: send(url, ROUTES[0], body, False), range(40)))
            monkeypatch.setattr(TorchServe, "delay_s", 0.02)
        background.check(most=150, after=30)
    assert set(statuses) == {200, 429}


def test_connections_without_a_request_are_limited():
    with gateway() as (url, process):
        host, port = url.removeprefix("http://").split(":")
        idle = []
        for _ in range(1100):
            connection = socket.create_connection((host, int(port)), 5)
            connection.sendall(b"POST /model HTTP/1.1\r\n")
            idle.append(connection)
        time.sleep(0.5)
        assert len(process.net_connections()) < 1060
        for connection in idle[:200]:
            connection.close()
        assert httpx.get(f"{url}/docs", timeout=10).status_code == 200
        for connection in idle:
            connection.close()
