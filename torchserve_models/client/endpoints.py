"""Where the services of a server are: TorchServe's six addresses, or one URL of a gateway."""

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
"""Where scripts/serve keeps a server's state unless it is told otherwise."""
GATEWAY_PORTS = (8000, 7000)
"""REST and gRPC of scripts/gateway."""


@dataclass(frozen=True)
class Endpoints:
    """The addresses of a server: four URLs, and two gRPC targets `host:port`, `https://host:port` over TLS.

    `health` is the supervisor's: readiness, and what each worker is doing. A gRPC target of "" is not known.
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
        """TorchServe's ports on that host, `port_offset` added to each.

        Raises:
            ValueError: It is no host, or a number is no port.
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
        """A gateway, where everything over REST is at one URL. Raises ValueError for what is no URL.

        Args:
            url: `http://host[:port][/path]` or `https://...`.
            grpc_port: Where it answers predictions over gRPC; 7000 beside port 8000, otherwise not known.
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
        """Of a host, or of one URL: TorchServe's ports for `http://host:8080`, a gateway for every other URL.

        Raises:
            ValueError: It is neither.
        """
        address = address.strip()
        if "://" not in address:
            return cls.at(address)
        host, port, scheme = _parts(address)
        is_torchserve = (scheme, port, urlsplit(address).path.strip("/")) == ("http", INFERENCE_PORT, "")
        return cls.at(host) if is_torchserve else cls.gateway(address)

    @classmethod
    def of_run_dir(cls, folder: Path) -> "Endpoints":
        """Those of the server that scripts/serve started with that run folder.

        Raises:
            ValueError: There is no state of a server in that folder.
        """
        path = folder / "state.json"
        try:
            addresses = json.loads(path.read_text("utf-8"))["endpoints"]
            return cls(**{field.name: str(addresses[field.name]) for field in fields(cls)})
        except OSError as error:
            raise ValueError(f"no server has run in {folder}: {path} ({error.strerror})") from None
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} does not have the addresses of a server") from None

    @property
    def is_gateway(self) -> bool:
        """Whether everything over REST is at one URL."""
        return self.inference == self.management == self.health


def _host(text: str) -> str:
    """As it is written in a URL."""
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
    """Host, port and scheme."""
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from None
    if port == 0 or any(map(str.isspace, url)):
        raise ValueError(f"{url!r} is not a URL: {'a port is 1 to 65535' if port == 0 else 'it has spaces'}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL of the form http://host:port or https://host:port")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{url!r} must not have a query, a fragment or a user name")
    return parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.scheme


def choose_endpoints(address: str | None, endpoints: Endpoints | None) -> Endpoints:
    """A client's endpoints: either those given, or those of a host or URL. Raises ValueError for both."""
    if address is None:
        return endpoints or Endpoints()
    if endpoints is not None:
        raise ValueError(f"give either {address!r} or endpoints=, not both")
    return Endpoints.of(address)


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
    if not endpoints.grpc_management:
        return False
    defaults = Endpoints()
    rest, grpc = (
        urlsplit(endpoints.management),
        urlsplit(f"//{endpoints.grpc_management.rpartition('//')[2]}"),
    )
    both_default = (
        rest.port == urlsplit(defaults.management).port,
        grpc.port == urlsplit(f"//{defaults.grpc_management}").port,
    )
    return rest.hostname == grpc.hostname and both_default[0] == both_default[1]
