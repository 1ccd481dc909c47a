"""Tests of closing a child's listening socket while its open connections continue."""

import socket
import subprocess
import sys

import pytest

from torchserve_models.serving.system.listeners import close_listeners

CHILD = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
print("accepted", flush=True)
connection.sendall(connection.recv(10))
input()
"""


def test_new_connections_are_refused_and_open_ones_served():
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    port = int(child.stdout.readline())
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(5)
            assert child.stdout.readline() == "accepted\n"
            if not close_listeners(child.pid, [port]):
                pytest.skip("this system does not let a process duplicate its child's sockets")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
            connection.sendall(b"still here")
            assert connection.recv(10) == b"still here"
    finally:
        child.kill()
        child.communicate()


def test_missing_process_or_port_is_no_error():
    assert not close_listeners(2**22 + 1, [1])
