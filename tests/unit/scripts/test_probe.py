"""scripts/probe exits with 0 only for status 200, without waiting for the end of the response."""

import socket
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
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def probe(*arguments: str) -> int:
    done = subprocess.run([ROOT / "scripts" / "probe", *arguments], capture_output=True, timeout=20)
    assert done.stderr == b""
    return done.returncode


def test_only_status_200_exits_with_0(port):
    assert probe(port, "/readyz") == 0
    assert probe(port, "/livez") == 1
    assert probe(port) == 0
    assert probe("1", "/readyz") == 1
    assert probe("1") == 1


@pytest.mark.full
def test_open_connection_does_not_delay_the_exit():
    """TorchServe ignores a client's request to close the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = []

        def serve():
            for _ in range(2):
                connection, _ = listener.accept()
                connections.append(connection)
                status = b"200 OK" if b"/readyz " in connection.recv(1000) else b"503 No"
                connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = str(listener.getsockname()[1])
        assert (probe(port, "/readyz"), probe(port, "/livez")) == (0, 1)
        thread.join()
        for connection in connections:
            connection.close()
