"""Tests of chaos clients, against a server that swaps answers, breaks connections and rejects requests."""

import itertools
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.chaos import traffic
from tests.chaos.cases import JSON, Answer, BadCall, GoodCase, Request
from tests.chaos.traffic import RecordLog, Traffic, TrafficOptions
from torchserve_models.client import Endpoints

GOOD = [
    GoodCase(f"m/{name}", "m", "text", name.encode(), Answer(f"summary of {name}")) for name in ("one", "two")
]


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    turns = itertools.count()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        if body == "bad":
            return self.answer(400, {"message": "no"})
        turn = next(type(self).turns) % 8
        name = "one" if "one" in body else "two"
        if turn == 0:
            name = "two" if name == "one" else "one"
        if turn == 1:
            self.close_connection = True
            return self.connection.close()
        if turn in (2, 3):
            return self.answer(
                503 if turn == 2 else 500, {"message": "Worker died." if turn == 3 else "full"}
            )
        summary = f"summary of {name}"
        if "infer" in self.path:
            return self.answer(200, {"outputs": [{"name": "summary_text", "data": [summary]}]})
        return self.answer(200, [{"summary_text": summary}])

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    for name in ("PAUSE_S", "PAUSE_AFTER_REFUSAL_S"):
        monkeypatch.setattr(traffic, name, 0.01)


@pytest.fixture
def endpoints():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Endpoints(inference=f"http://127.0.0.1:{server.server_port}", grpc_inference="127.0.0.1:9")
    server.shutdown()
    server.server_close()


@pytest.mark.full
def test_every_kind_of_reply_is_recorded_with_its_category(endpoints):
    log = RecordLog()
    bad = [Request("bad", "m", "/predictions/m", JSON, b"bad")]
    load = TrafficOptions("raw", GOOD, bad, [BadCall("bad", "m", "text", b"bad")], deadline=10.0, clients=4)
    traffic = Traffic(endpoints, load, 1, log)
    traffic.start()
    end = time.monotonic() + 30
    while len([r for r in log.records if "grpc" not in r.protocol]) < 120 and time.monotonic() < end:
        time.sleep(0.05)
    traffic.stop()
    http_records = [record for record in log.records if "grpc" not in record.protocol]
    counts = Counter((r.kind, r.category.value, r.label) for r in http_records)
    assert set(counts) == {
        ("good", "right", "200"),
        ("good", "wrong", "200"),
        ("good", "refused", "503"),
        ("good", "lost", "500 Worker died"),
        ("good", "lost", "broken"),
        ("bad", "right", "400"),
    }
    # Nothing listens for gRPC, so nothing was accepted.
    assert {r.category.value for r in log.records if "grpc" in r.protocol} == {"refused"}
    assert all(record.started <= record.ended for record in log.records)
    (wrong, *_) = [r for r in http_records if r.category == "wrong"]
    assert "summary of" in wrong.message


@pytest.mark.full
def test_client_retries_hide_most_failures(endpoints):
    log = RecordLog()
    load = TrafficOptions("client", GOOD, [], [], deadline=20.0, clients=4, good_share=1.0)
    traffic = Traffic(endpoints, load, 1, log)
    traffic.start()
    end = time.monotonic() + 30
    while len([r for r in log.records if "grpc" not in r.protocol]) < 40 and time.monotonic() < end:
        time.sleep(0.05)
    traffic.stop()
    http_records = Counter(r.category.value for r in log.records if "grpc" not in r.protocol)
    assert http_records["right"] > 4 * http_records["lost"]
    assert http_records["wrong"] > 0
