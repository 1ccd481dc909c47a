"""How long to wait for a server, and how much to ask of it at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from torchserve_models.client.endpoints import Endpoints

Protocol = Literal["rest", "grpc", "open-inference", "open-inference-grpc"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

MAX_CONCURRENCY = 64

# max_request_size and max_response_size of config.properties.
MAX_MESSAGE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Settings:
    """`timeout`: seconds for an operation from when it is first sent, retries included.

    `connect_timeout`: seconds for one connection.
    `retries`: how often an operation may be sent again, where that cannot do anything twice (see retry.py). None:
    after Overloaded until the timeout, after other failures three times.
    `max_concurrency`: predictions in progress at the same time; further ones wait (see concurrency.py). None: no
    limit.
    `max_message_bytes`: the largest gRPC message either way; keep it at the server's own limit.
    `ca_file`: PEM certificates that are trusted over TLS instead of the system's.
    `send_deadline`: predictions carry the time left (see deadlines.py). Switch it off for custom handlers that do not
    accept further keys in TorchServe's gRPC input map.
    `max_connections`: REST connections to one address at the same time; further requests wait. None: no limit.
    `keepalive`: seconds between HTTP/2 pings on a gRPC connection with calls in progress. TorchServe closes
    connections that ping more often than every 5 minutes; nginx does not.
    """

    endpoints: Endpoints = field(default_factory=Endpoints)
    protocol: Protocol = "rest"
    timeout: float = 120.0
    connect_timeout: float = 5.0
    retries: int | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES
    ca_file: str | Path | None = None
    send_deadline: bool = True
    max_concurrency: int | None = MAX_CONCURRENCY
    max_connections: int | None = None
    keepalive: float = 310.0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {self.protocol!r}; known: {', '.join(PROTOCOLS)}")
        if not (
            self.timeout > 0 and self.connect_timeout > 0 and (self.retries is None or self.retries >= 0)
        ):
            raise ValueError("timeout and connect_timeout must be above 0, retries at least 0")
        for name in ("max_connections", "max_concurrency"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be above 0 or None, not {number}")
        if not self.keepalive >= 1:
            raise ValueError(f"keepalive must be at least 1 second, not {self.keepalive}")
        if self.protocol in ("grpc", "open-inference-grpc") and not self.endpoints.grpc_inference:
            raise ValueError(
                f"the gRPC port of {self.endpoints.inference} is not known; give "
                "endpoints=Endpoints.gateway(URL, grpc_port=N), or use protocol='rest'"
            )
