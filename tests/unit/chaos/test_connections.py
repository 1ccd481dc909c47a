"""Tests of held connections, against a socket that only accepts."""

import socket
import time
from types import SimpleNamespace

from tests.chaos import raw_socket
from tests.chaos.scenarios.connections import HeldConnections


def test_held_connections_send_their_payload_from_every_address():
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        stack = SimpleNamespace(edge=SimpleNamespace(inference=f"http://127.0.0.1:{server.getsockname()[1]}"))
        with HeldConnections(stack, 6, ("127.0.0.2", "127.0.0.3"), b"x" * 1000) as connections:
            accepted = [server.accept() for _ in range(6)]
            assert {address[0] for _, address in accepted} == {"127.0.0.2", "127.0.0.3"}
            assert [len(connection.recv(2000)) for connection, _ in accepted] == [1000] * 6
            accepted.pop()[0].close()
            wait(lambda: connections.closed == 1)
            assert (connections.opened, connections.sent) == (6, 6000)
        for connection, _ in accepted:
            assert connection.recv(10) == b""
            connection.close()


def test_response_status_is_parsed():
    for answer, status in ((b"HTTP/1.1 413 Too Large\r\n\r\n", 413), (b"", None), (b"\x00\x01", None)):
        near, far = socket.socketpair()
        with near, far:
            far.sendall(answer)
            far.shutdown(socket.SHUT_WR)
            assert raw_socket.read_status(near, 5.0) == status


def test_request_head_contains_length_and_headers():
    head = raw_socket.head("/a", 7, {"x": "y"})
    assert head == b"POST /a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\nx: y\r\n\r\n"


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
