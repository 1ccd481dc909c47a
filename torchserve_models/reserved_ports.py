"""Free ports that are reserved until the server that uses them ends."""

import socket


def reserve_port(host: str = "127.0.0.1") -> socket.socket:
    """Return a socket that reserves a free port of `host` until it is closed. Raises OSError.

    The socket is bound and does not listen. The kernel then assigns the port to no other process that requests any
    free port, neither for listening nor for an outgoing connection. A server that sets SO_REUSEADDR can listen on it,
    as nginx, TorchServe and asyncio do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reserved = socket.socket(family)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((host, 0))
    except OSError:
        reserved.close()
        raise
    return reserved


def port_of(bound: socket.socket) -> int:
    """Return the port number of a bound socket."""
    return int(bound.getsockname()[1])
