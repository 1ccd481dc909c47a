"""HTTP over plain sockets, for clients that violate the protocol in ways that HTTP libraries do not allow."""

import socket
from collections.abc import Mapping
from urllib.parse import urlsplit


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of `http://host:port` or `host:port`."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    return parts.hostname or "127.0.0.1", parts.port or 80


def head(path: str, length: int, headers: Mapping[str, str] | None = None, method: str = "POST") -> bytes:
    """Return the header of a request whose body has `length` bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def connect(address: tuple[str, int], timeout: float = 5.0, source: str = "") -> socket.socket:
    """Return a connection from the loopback address `source`. Raises OSError."""
    return socket.create_connection(address, timeout, (source, 0) if source else None)


def read_status(connection: socket.socket, timeout: float) -> int | None:
    """Return the status of the response; None if the server closes the connection instead. Raises TimeoutError."""
    connection.settimeout(timeout)
    received = b""
    try:
        while b"\r\n" not in received and len(received) < 4096:
            piece = connection.recv(4096)
            if not piece:
                break
            received += piece
    except ConnectionError:
        pass
    words = received.split(b"\r\n", 1)[0].split()
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else None
