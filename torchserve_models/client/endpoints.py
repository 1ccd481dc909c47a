"""Addresses of a server: five of TorchServe and one of the supervisor, or one URL of a gateway."""

import ipaddress
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from torchserve_models.paths import WRITABLE_ROOT

INFERENCE_PORT = 8080
MAX_PORT = 65_535
RUN_DIR = WRITABLE_ROOT / ".run"
"""Default folder of scripts/serve for the state of a server."""
GATEWAY_PORTS = (8000, 7000)
"""REST port and gRPC port of scripts/gateway."""


@dataclass(frozen=True)
class Endpoints:
    """The addresses of a server.

    gRPC targets are `host:port`, or `https://host:port` over TLS; "" if not known.

    Attributes:
        inference: URL of the inference API.
        management: URL of the management API.
        metrics: URL of the metrics.
        grpc_inference: gRPC target of the inference services.
        grpc_management: gRPC target of the management service.
        health: URL of the supervisor: readiness, and the activity of each worker.
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
        inference_port: int = INFERENCE_PORT,
        management_port: int = 8081,
        metrics_port: int = 8082,
        grpc_port: int = 7070,
        grpc_management_port: int = 7071,
        health_port: int = 8083,
        port_offset: int = 0,
    ) -> "Endpoints":
        """Return the addresses of TorchServe on a host.

        Args:
            host: Host name or IP address.
            inference_port: Port of the inference API.
            management_port: Port of the management API.
            metrics_port: Port of the metrics.
            grpc_port: Port of gRPC inference.
            grpc_management_port: Port of gRPC management.
            health_port: Port of the supervisor.
            port_offset: Added to each port.

        Raises:
            ValueError: `host` is not a host, or a number is not a port number (1-65535).
        """
        name = _host(host)
        ports = {
            "inference": inference_port,
            "management": management_port,
            "metrics": metrics_port,
            "health": health_port,
        }
        for port in (*ports.values(), grpc_port, grpc_management_port):
            if not 1 <= port + port_offset <= MAX_PORT:
                raise ValueError(f"{port + port_offset} is not a port number (1-{MAX_PORT})")
        return cls(
            **{service: f"http://{name}:{port + port_offset}" for service, port in ports.items()},
            grpc_inference=f"{name}:{grpc_port + port_offset}",
            grpc_management=f"{name}:{grpc_management_port + port_offset}",
        )

    @classmethod
    def gateway(cls, url: str, *, grpc_port: int | None = None) -> "Endpoints":
        """Return the addresses of a gateway, where everything over REST is at one URL.

        Args:
            url: `http://host[:port][/path]` or `https://...`.
            grpc_port: Port of predictions over gRPC; if None, 7000 beside port 8000, otherwise not known.

        Raises:
            ValueError: `url` is not such a URL.
        """
        host, port, scheme = _parts(url)
        if grpc_port is None and port == GATEWAY_PORTS[0]:
            grpc_port = GATEWAY_PORTS[1]
        secure = "https://" if scheme == "https" else ""
        target = f"{secure}{_host(host)}:{grpc_port}" if grpc_port is not None else ""
        base = url.rstrip("/")
        return cls(base, base, base, target, "", base)

    @classmethod
    def of(cls, address: str) -> "Endpoints":
        """Return the addresses of a host or a URL.

        Args:
            address: A host with TorchServe's default ports, `http://host:8080` for the same, or any other URL for a
                gateway.

        Raises:
            ValueError: `address` is neither a host nor a URL.
        """
        address = address.strip()
        if "://" not in address:
            return cls.at(address)
        host, port, scheme = _parts(address)
        is_torchserve = (scheme, port, urlsplit(address).path.strip("/")) == ("http", INFERENCE_PORT, "")
        return cls.at(host) if is_torchserve else cls.gateway(address)

    @classmethod
    def of_run_dir(cls, folder: Path) -> "Endpoints":
        """Return the addresses of the server that scripts/serve started with a run folder.

        Args:
            folder: The run folder.

        Raises:
            ValueError: The folder has no state of a server.
        """
        path = folder / "state.json"
        try:
            addresses = json.loads(path.read_text("utf-8"))["endpoints"]
            return cls(**{field.name: str(addresses[field.name]) for field in fields(cls)})
        except OSError as error:
            raise ValueError(f"no server has run in {folder}: {path} ({error.strerror})") from None
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} does not contain the addresses of a server") from None

    @property
    def is_gateway(self) -> bool:
        """Whether everything over REST is at one URL."""
        return self.inference == self.management == self.health


def _host(text: str) -> str:
    """Return the host as written in a URL. Raises ValueError for any other text."""
    name = text.removeprefix("[").removesuffix("]")
    try:
        return f"[{name}]" if ipaddress.ip_address(name).version == 6 else name
    except ValueError:
        pass
    if not name or any(character in name for character in ":/?#@[] "):
        is_host_and_port = re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}", text)
        example = f"http://{text}" if is_host_and_port else "http://127.0.0.1:8000"
        raise ValueError(f"{text!r} is neither a host nor a URL such as {example}")
    return name


def _parts(url: str) -> tuple[str, int, str]:
    """Return host, port and scheme of a server's URL. Raises ValueError for any other text."""
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from None
    if port == 0 or any(map(str.isspace, url)):
        raise ValueError(
            f"{url!r} is not a URL: {'the port must be 1-65535' if port == 0 else 'it contains spaces'}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL of the form http://host:port or https://host:port")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{url!r} must not have a query, a fragment or a user name")
    return parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.scheme


def choose_endpoints(address: str | None, endpoints: Endpoints | None) -> Endpoints:
    """Return `endpoints`, those of a host or URL, or the default ones. Raises ValueError if both are given."""
    if address is None:
        return endpoints or Endpoints()
    if endpoints is not None:
        raise ValueError(f"pass either the host {address!r} or endpoints=, not both")
    return Endpoints.of(address)


def is_loopback(address: str) -> bool:
    """Return whether a URL or `host:port` has a loopback address, for which no proxy is used."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def has_grpc_management(endpoints: Endpoints) -> bool:
    """Return whether the REST and gRPC management addresses belong to the same server.

    A client that has only a REST address must not register at another server on gRPC's default port.
    """
    if not endpoints.grpc_management:
        return False
    defaults = Endpoints()
    rest_url, grpc_url = (
        urlsplit(endpoints.management),
        urlsplit(f"//{endpoints.grpc_management.rpartition('//')[2]}"),
    )
    both_default = (
        rest_url.port == urlsplit(defaults.management).port,
        grpc_url.port == urlsplit(f"//{defaults.grpc_management}").port,
    )
    return rest_url.hostname == grpc_url.hostname and both_default[0] == both_default[1]
