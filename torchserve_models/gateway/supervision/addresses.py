"""Addresses to listen on, as `host:port`."""

import socket
from contextlib import ExitStack

from torchserve_models.gateway.nginx.config import NginxError
from torchserve_models.reserved_ports import port_of, reserve_port

BACKLOG = 1024
"""Connections that may wait while the gateway restarts."""
_CONNECT_TIMEOUT_S = 1.0


def is_listening(address: str) -> bool:
    """Return whether a connection to the address can be opened."""
    try:
        socket.create_connection(connect_address(address), _CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def connect_address(address: str) -> tuple[str, int]:
    """Return the host and port to connect to for an address that a process listens on."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)


def listen(address: str) -> socket.socket:
    """Return a socket that listens on the address. Raises NginxError."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise NginxError(f"cannot listen on {address}: {error.strerror}") from None


def reserve_ports(reservations: ExitStack, *addresses: str) -> list[str]:
    """Return the addresses, with different free ports in place of ports 0. Raises NginxError.

    The free ports are reserved until `reservations` is closed.
    """
    return [_with_free_port(address, reservations) for address in addresses]


def _with_free_port(address: str, reservations: ExitStack) -> str:
    host, _, port = address.rpartition(":")
    if int(port):
        return address
    try:
        reserved = reservations.enter_context(reserve_port(host.strip("[]")))
    except OSError as error:
        raise NginxError(f"cannot listen on {address}: {error.strerror}") from None
    return f"{host}:{port_of(reserved)}"
