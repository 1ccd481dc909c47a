"""Where the server is and how long to wait for it."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

Protocol = Literal["rest", "grpc", "open-inference", "open-inference-grpc"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

# max_request_size and max_response_size of config.properties.
MAX_MESSAGE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Endpoints:
    """The addresses of a server: four URLs, and two gRPC targets `host:port`, `https://host:port` over TLS.

    `health` is the supervisor's: readiness, and what each worker is doing.
    """

    inference: str = "http://127.0.0.1:8080"
    management: str = "http://127.0.0.1:8081"
    metrics: str = "http://127.0.0.1:8082"
    grpc_inference: str = "127.0.0.1:7070"
    grpc_management: str = "127.0.0.1:7071"
    health: str = "http://127.0.0.1:8083"

    @classmethod
    def at(
        cls,
        host: str = "127.0.0.1",
        *,
        inference_port: int = 8080,
        management_port: int = 8081,
        metrics_port: int = 8082,
        grpc_port: int = 7070,
        grpc_management_port: int = 7071,
        health_port: int = 8083,
    ) -> "Endpoints":
        """TorchServe's default ports on that host."""
        name = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return cls(
            inference=f"http://{name}:{inference_port}",
            management=f"http://{name}:{management_port}",
            metrics=f"http://{name}:{metrics_port}",
            grpc_inference=f"{name}:{grpc_port}",
            grpc_management=f"{name}:{grpc_management_port}",
            health=f"http://{name}:{health_port}",
        )


@dataclass(frozen=True)
class Settings:
    """`timeout`: seconds for a whole operation, its retries included. `connect_timeout`: for one connection.

    `retries`: how often an operation may be sent again, where that cannot do anything twice (see retry.py).
    `max_message_bytes`: the largest gRPC message either way; keep it at the server's own limit.
    `ca_file`: PEM certificates that are trusted over TLS instead of the system's.
    `send_deadline`: predictions carry the time left (see deadlines.py). Switch it off for custom handlers that do not
    accept further keys in TorchServe's gRPC input map.
    `max_connections`: REST connections to one address at the same time; further requests wait. None: no limit.
    `keepalive`: seconds between HTTP/2 pings on a gRPC connection with calls in progress. TorchServe closes
    connections that ping more often than every 5 minutes; nginx does not.
    """

    endpoints: Endpoints = Endpoints()
    protocol: Protocol = "rest"
    timeout: float = 120.0
    connect_timeout: float = 5.0
    retries: int = 3
    max_message_bytes: int = MAX_MESSAGE_BYTES
    ca_file: str | Path | None = None
    send_deadline: bool = True
    max_connections: int | None = None
    keepalive: float = 310.0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {self.protocol!r}; known: {', '.join(PROTOCOLS)}")
        if not (self.timeout > 0 and self.connect_timeout > 0 and self.retries >= 0):
            raise ValueError("timeout and connect_timeout must be above 0, retries at least 0")
        if self.max_connections is not None and self.max_connections < 1:
            raise ValueError(f"max_connections must be above 0 or None, not {self.max_connections}")
        if not self.keepalive >= 1:
            raise ValueError(f"keepalive must be at least 1 second, not {self.keepalive}")


def is_loopback(address: str) -> bool:
    """Of a URL or of `host:port`. A loopback server is never behind the proxy that the environment names."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def has_grpc_management(endpoints: Endpoints) -> bool:
    """Whether the addresses of both managements are those of one server.

    A client that was only told where REST is must not register at another server on gRPC's default port.
    """
    defaults = Endpoints()
    rest, grpc = (
        urlsplit(endpoints.management),
        urlsplit(f"//{endpoints.grpc_management.rpartition('//')[2]}"),
    )
    both_default = (
        rest.port == urlsplit(defaults.management).port,
        grpc.port == _port(defaults.grpc_management),
    )
    return rest.hostname == grpc.hostname and both_default[0] == both_default[1]


def _port(target: str) -> int | None:
    return urlsplit(f"//{target}").port
