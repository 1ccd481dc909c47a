"""Tests of reserved ports."""

import socket
import struct

import pytest

from torchserve_models.reserved_ports import port_of, reserve_port

LOCAL_PORT_RANGE = 51
"""IP_LOCAL_PORT_RANGE of Linux 6.3, for which Python has no name yet."""


def test_server_can_listen_on_a_reserved_port_and_again_after_its_end():
    with reserve_port() as reserved:
        address = ("127.0.0.1", port_of(reserved))
        for _ in range(2):
            with socket.create_server(address), socket.create_connection(address):
                pass


def test_connection_to_a_reserved_port_is_refused():
    with reserve_port() as reserved, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(reserved)))


def test_reserved_port_is_not_chosen_for_another_socket():
    """Linux prefers other ports anyway, so the test lets the kernel choose from one port."""
    with reserve_port() as reserved, socket.socket() as other:
        port = port_of(reserved)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.setsockopt(socket.IPPROTO_IP, LOCAL_PORT_RANGE, struct.pack("HH", port, port))
        except OSError:
            pytest.skip("this kernel cannot limit a socket's range of ports")
        with pytest.raises(OSError, match="already in use"):
            other.bind(("127.0.0.1", 0))
