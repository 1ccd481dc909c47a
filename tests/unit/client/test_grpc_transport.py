"""Keepalive pings of a gRPC connection."""

import socket
from contextlib import suppress

import pytest

from tests.unit.client.socket_server import socket_server
from torchserve_models.client import Timeout

HEADER = 9
SETTINGS, PING = 4, 6
"""Types of HTTP/2 frames (RFC 9113, section 6)."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frames(connection):
    """Yield the type of each frame that arrives, until the connection ends."""
    received = connection.makefile("rb")
    assert received.read(len(PREFACE)) == PREFACE
    while len(header := received.read(HEADER)) == HEADER:
        received.read(int.from_bytes(header[:3], "big"))
        yield header[3]


@pytest.mark.full
@pytest.mark.parametrize(("keepalive", "is_pinged"), [(1.0, True), (310.0, False)])
def test_connection_with_call_in_progress_is_pinged(call, keepalive, is_pinged):
    """A ping detects that the other side is gone, or that a firewall has dropped the connection."""
    kinds = set()

    def serve(connection):
        connection.sendall(bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
        with suppress(OSError):
            for kind in frames(connection):
                kinds.add(kind)

    with socket_server(serve) as (endpoints, accepted):
        with pytest.raises(Timeout):
            call(
                lambda c: c.classify("images", b"x"),
                endpoints=endpoints,
                protocol="grpc",
                keepalive=keepalive,
                timeout=1.8,
                retries=0,
            )
        for connection in accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
    assert (PING in kinds) is is_pinged
