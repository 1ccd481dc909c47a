"""Tests of the prober, against a small HTTP server."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.chaos.probes import Probes


class Health(BaseHTTPRequestHandler):
    ready = True
    routes = ("/readyz", "/v2/models/m/ready")
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(404 if self.path not in self.routes else 200 if type(self).ready else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def health():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_probes_use_existing_routes_and_record_changes(health):
    with Probes(["http://127.0.0.1:9", health], ["m", "unknown"], interval=0.02) as probes:
        assert probes.urls == {"": f"{health}/readyz", "m": f"{health}/v2/models/m/ready"}
        wait(lambda: probes.samples["m"] and probes.samples[""])
        Health.ready = False
        changed = time.monotonic()
        wait(lambda: probes.samples["m"][-1].status == 503)
        Health.ready = True
        wait(lambda: probes.samples["m"][-1].ready)
    samples = probes.samples["m"]
    assert all(sample.ready for sample in samples if sample.at + sample.milliseconds / 1000 < changed)
    assert all(0 < sample.milliseconds < 3000 for sample in samples)


def test_probe_without_answer_has_status_0(health):
    with Probes([health], ["m"], interval=0.02) as probes:
        wait(lambda: probes.samples["m"])
        probes_of_nothing = Probes([health], ["m"], interval=0.02)
        probes_of_nothing.urls = {"m": "http://127.0.0.1:9/readyz"}
        with probes_of_nothing:
            wait(lambda: probes_of_nothing.samples["m"])
    assert {sample.status for sample in probes_of_nothing.samples["m"]} == {0}


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
