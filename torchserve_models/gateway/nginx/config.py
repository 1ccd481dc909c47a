"""The configuration of nginx: addresses, TLS, limits and routes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torchserve_models.client import Endpoints


class NginxError(Exception):
    """nginx or the gateway cannot be configured or started. The message contains the reason."""


@dataclass(frozen=True)
class Tls:
    """PEM files. With them, REST and gRPC accept only TLS connections."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Limits:
    """Resource limits, from which docs/gateway.md derives the memory of nginx.

    Attributes:
        connections: Open connections to clients and to TorchServe together.
        client_requests: Requests in progress of one client address.
        client_uploads: Uploads of at least 1 MB in progress of one client address.
        all_requests: Requests in progress of all clients.
        all_uploads: Uploads of at least 1 MB in progress of all clients.
        key_requests: Requests in progress of one API key.
        body_bytes: Bytes of all request bodies that one TorchServe may hold (serving/run_config/memory_budget.py).
        resends_per_second: Requests per second that nginx retries after their worker died.
        resend_burst: Such requests that may exceed the rate.
    """

    connections: int = 14_000
    client_requests: int = 256
    client_uploads: int = 16
    all_requests: int = 2048
    all_uploads: int = 256
    key_requests: int = 256
    body_bytes: int = 512 * 2**20
    resends_per_second: int = 10
    resend_burst: int = 20


@dataclass(frozen=True)
class NginxConfig:
    """The settings of one nginx. Addresses are `host:port`.

    Attributes:
        http: The address for REST.
        grpc: The address for gRPC.
        gateway: The address of the gateway.
        gateway_grpc: The address of the gateway's gRPC server for health and reflection. Port 0 is replaced by a free
            port.
        gateway_key: A secret that proves to the gateway that an internal request comes from nginx.
        internal: The address for internal requests of nginx, Prometheus and health checks. Port 0 is replaced by a
            free port.
        uncached: The address for predictions that the gateway does not find in its response cache; empty for no
            cache. Port 0 is replaced by a free port.
        keys: Whether requests need an API key, which the gateway checks (gateway/keys).
        endpoints: TorchServe's addresses.
        others: REST addresses of further TorchServe instances that share the predictions.
        tls: The certificate; None for plain HTTP.
        open_management: Whether to forward the management and metrics APIs.
        server_names: Host names for the management API, in addition to the loopback names.
        rate: Requests per second of one client address; None for no limit.
        burst: Requests above the rate that are accepted at once.
        limits: Resource limits.
        client_timeout_s: Seconds for receiving a header, and between two reads of a body.
        upstream_timeout_s: Seconds for TorchServe's response.
        image_model: The model of the image routes, see gateway.settings.GatewaySettings.
        route_models: Models of single image routes, see gateway.settings.GatewaySettings.
        text_models: Models whose bodies are limited to 4 MiB instead of 16.
        real_ip_from: Networks of load balancers that report the client's address in X-Forwarded-For.
        proxy_protocol: Whether these load balancers use the PROXY protocol instead.
        resolver: A DNS server that nginx queries every 2 s for the addresses of TorchServe and the gateway. Requires
            nginx 1.27.3; without a resolver, names are looked up when nginx starts.
        cors_origins: Origins whose pages may send requests, such as `https://app.example`; `*` for all.
        workers: Worker processes of nginx.
        access_log: nginx's access_log directive; "off" for none.
    """

    http: str = "127.0.0.1:8000"
    grpc: str = "127.0.0.1:7000"
    gateway: str = "127.0.0.1:8090"
    gateway_grpc: str = "127.0.0.1:0"
    gateway_key: str = ""
    internal: str = "127.0.0.1:0"
    uncached: str = ""
    keys: bool = False
    endpoints: Endpoints = field(default_factory=Endpoints)
    others: tuple[str, ...] = ()
    tls: Tls | None = None
    open_management: bool = False
    server_names: tuple[str, ...] = ()
    rate: int | None = None
    burst: int = 50
    limits: Limits = field(default_factory=Limits)
    client_timeout_s: int = 10
    upstream_timeout_s: int = 330
    image_model: str = "resnet-50"
    route_models: Mapping[str, str] = field(default_factory=dict)
    text_models: tuple[str, ...] = ("t5-small", "bart-large-cnn")
    real_ip_from: tuple[str, ...] = ()
    proxy_protocol: bool = False
    resolver: str = ""
    cors_origins: tuple[str, ...] = ()
    workers: int = 2
    access_log: str = "off"
