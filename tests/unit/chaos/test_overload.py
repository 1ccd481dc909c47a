"""Tests of clients that give up, against a server that answers one request at a time."""

import asyncio
import statistics
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import ClassVar

import pytest

from tests.chaos.cases import JSON, Request
from tests.chaos.scenarios import overload

SERVICE_S = 0.05
REQUEST = Request("summary", "m", "/predictions/m", JSON, b"{}")


class OneAtATime(BaseHTTPRequestHandler):
    worker = threading.Lock()
    sources: ClassVar = Counter()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).sources[self.client_address[0]] += 1
        with self.worker:
            time.sleep(SERVICE_S)
        try:
            self.send_response(200)
            self.end_headers()
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def stack():
    server = ThreadingHTTPServer(("127.0.0.1", 0), OneAtATime)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield SimpleNamespace(edge=SimpleNamespace(inference=f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()
    server.server_close()


async def test_closed_loop_measures_the_capacity(stack):
    attempts = await overload._closed(stack, REQUEST, 1.0)
    assert {attempt.status for attempt in attempts} == {200}
    assert 0 < overload._rate(attempts, 1.0) <= 1.3 / SERVICE_S + overload.PEAK_CONNECTIONS


@pytest.mark.full
async def test_open_loop_clients_give_up_after_the_limit(stack):
    attempts = await overload._open(stack, REQUEST, rate=80.0, seconds=1.5, give_up=0.5)
    assert len(attempts) == 120
    late = [attempt for attempt in attempts if attempt.status is None]
    assert late
    assert statistics.median(attempt.took for attempt in late) == pytest.approx(0.5, abs=0.4)
    assert {attempt.status for attempt in attempts} == {200, None}
    assert len(OneAtATime.sources) > 10


def test_unreachable_server_gives_no_status():
    stack = SimpleNamespace(edge=SimpleNamespace(inference="http://127.0.0.1:9"))
    attempt = asyncio.run(overload._post(stack, REQUEST, 1.0, "127.0.0.20"))
    assert attempt.status is None
