"""Ports of a server: from the configuration, with an offset, or free; and the process that uses a port."""

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, fields
from urllib.parse import urlsplit

import psutil

from torchserve_models.client import Endpoints
from torchserve_models.reserved_ports import port_of, reserve_port
from torchserve_models.serving.errors import ConfigError, PortTaken

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Ports:
    """Port numbers of all services. Raises ConfigError for an invalid port number."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int
    health: int = 8083

    def __post_init__(self) -> None:
        for name, port in asdict(self).items():
            if not 1 <= port <= 65535:
                raise ConfigError(f"{port} is not a port number for {name.replace('_', ' ')} (1-65535)")

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> "Ports":
        """Return the ports in config.properties; TorchServe's defaults apply to missing keys."""
        return cls(
            inference=_port(settings, "inference_address", 8080),
            management=_port(settings, "management_address", 8081),
            metrics=_port(settings, "metrics_address", 8082),
            grpc_inference=_number(settings, "grpc_inference_port", 7070),
            grpc_management=_number(settings, "grpc_management_port", 7071),
            health=_port(settings, "health_address", 8083),
        )

    @classmethod
    def reserve(cls, reservations: ExitStack) -> "Ports":
        """Return different free ports, which are reserved until `reservations` is closed."""
        return cls(*(port_of(reservations.enter_context(reserve_port())) for _ in fields(cls)))

    def shifted(self, offset: int) -> "Ports":
        return Ports(*(port + offset for port in astuple(self)))

    def settings(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the keys of config.properties that change the ports in `settings` to these ports."""
        changed = {
            f"{name}_address": _with_port(
                settings.get(f"{name}_address", "http://127.0.0.1"), getattr(self, name)
            )
            for name in ("inference", "management", "metrics", "health")
        }
        changed["grpc_inference_port"] = str(self.grpc_inference)
        changed["grpc_management_port"] = str(self.grpc_management)
        return changed


def endpoints_of(settings: Mapping[str, str]) -> Endpoints:
    """Return the endpoints at which this machine can reach a server with these settings."""
    ports = Ports.from_settings(settings)
    urls = {}
    for name in ("inference", "management", "metrics", "health"):
        parts = urlsplit(settings.get(f"{name}_address", "http://127.0.0.1"))
        urls[name] = f"{parts.scheme}://{_reachable(parts.hostname)}:{getattr(ports, name)}"
    inference = _reachable(settings.get("grpc_inference_address"))
    management = _reachable(settings.get("grpc_management_address"))
    return Endpoints(
        **urls,
        grpc_inference=f"{inference}:{ports.grpc_inference}",
        grpc_management=f"{management}:{ports.grpc_management}",
    )


def open_to(settings: Mapping[str, str], host: str) -> dict[str, str]:
    """Return address settings that listen on `host`, except management, whose clients can run arbitrary code."""
    ports = Ports.from_settings(settings)
    return {
        "inference_address": _with_port(f"http://{_bracketed(host)}", ports.inference),
        "metrics_address": _with_port(f"http://{_bracketed(host)}", ports.metrics),
        "health_address": _with_port(f"http://{_bracketed(host)}", ports.health),
        "grpc_inference_address": host,
    }


TORCHSERVE_PORTS = ("inference", "management", "metrics", "grpc_inference", "grpc_management")


def check_free(settings: Mapping[str, str], names: Sequence[str] = (*TORCHSERVE_PORTS, "health")) -> None:
    """Raise PortTaken for the first port that cannot be bound, naming the process that uses it if visible."""
    ports = Ports.from_settings(settings)
    for name in names:
        port = getattr(ports, name)
        address = settings.get(f"{name}_address", "127.0.0.1")
        host = urlsplit(address).hostname if "//" in address else address
        try:
            socket.create_server((host or "127.0.0.1", port), family=_family(host)).close()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise PortTaken(
                f"port {port} ({name.replace('_', ' ')}) is not free{_holder(port)}: {reason}. "
                "Stop the process that uses the port (scripts/stop if it is this server), or choose other ports: "
                "scripts/serve --port-offset 100"
            ) from error


def _family(host: str | None) -> socket.AddressFamily:
    return socket.AF_INET6 if host and ":" in host else socket.AF_INET


def _holder(port: int) -> str:
    """Return a description of the process that listens on the port; empty if the process is not visible."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f": process {connection.pid} ({psutil.Process(connection.pid).name()}) listens there"
    except psutil.Error:
        pass
    return ""


def _port(settings: Mapping[str, str], key: str, default: int) -> int:
    try:
        port = urlsplit(settings.get(key, "")).port
    except ValueError as error:
        raise ConfigError(f"{key}={settings[key]}: {error}") from error
    return default if port is None else port


def _number(settings: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(settings.get(key, default))
    except ValueError as error:
        raise ConfigError(f"{key}={settings[key]}: the value must be a port number (1-65535)") from error


def _with_port(address: str, port: int) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{_bracketed(parts.hostname or '')}:{port}"


def _reachable(host: str | None) -> str:
    return _bracketed(_ANY.get(host or "", host or "127.0.0.1"))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
