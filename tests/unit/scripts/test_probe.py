"""scripts/probe: exit 0 for 200 alone, quickly."""

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(bytes(100_000))

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def probe(*arguments: str) -> int:
    done = subprocess.run([ROOT / "scripts" / "probe", *arguments], capture_output=True, timeout=20)
    assert done.stderr == b""
    return done.returncode


def test_ready_is_0_and_everything_else_is_not(port):
    assert probe(port, "/readyz") == 0
    assert probe(port, "/livez") == 1
    assert probe(port) == 0
    assert probe("1", "/readyz") == 1
    assert probe("1") == 1
