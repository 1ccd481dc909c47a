"""Settings of a client: addresses, protocol, timeouts, retries and limits."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from torchserve_models.client.endpoints import Endpoints

Protocol = Literal["rest", "grpc", "open-inference", "open-inference-grpc"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

MAX_CONCURRENCY = 64

MAX_MESSAGE_BYTES = 16 * 2**20
"""Value of max_request_size and max_response_size in config.properties."""


@dataclass(frozen=True)
class Settings:
    """Settings of a client, as documented in `Client.__init__`.

    Raises:
        ValueError: A value is out of range.
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
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"{self.protocol!r} is not a protocol; use one of {', '.join(PROTOCOLS)}")
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
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            raise ValueError("api_key must consist of printable ASCII characters without spaces")
        if self.protocol in ("grpc", "open-inference-grpc") and not self.endpoints.grpc_inference:
            raise ValueError(
                f"the gRPC port of {self.endpoints.inference} is not known; pass "
                "endpoints=Endpoints.gateway(URL, grpc_port=N), or use protocol='rest'"
            )

    @property
    def credentials(self) -> dict[str, str]:
        """The header or the metadata with the API key, if there is one."""
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
