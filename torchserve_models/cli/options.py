"""Options that several commands share: the address of the server, ports, numbers and durations."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from torchserve_models.client.endpoints import MAX_PORT, RUN_DIR, Endpoints
from torchserve_models.client.settings import Protocol, Settings

PORT_SERVICES = {
    "port": "inference",
    "management_port": "management",
    "metrics_port": "metrics",
    "grpc_port": "grpc_inference",
    "grpc_management_port": "grpc_management",
    "health_port": "health",
}
"""Service of each port option, by field of `ServerPorts`."""
API_KEY_VARIABLE = "TORCHSERVE_API_KEY"
MAX_DURATION_S = 3600.0


def parse_port(value: Any) -> int:
    """Return a port number. Raises ValueError for anything but 1 to 65535."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_PORT):
        raise ValueError(f"{text!r} is not a port number (1-{MAX_PORT})")
    return int(text)


def parse_positive(value: Any) -> int:
    """Return an integer above 0. Raises ValueError for anything else."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{text!r} is not an integer above 0")
    return int(text)


def parse_timeout(value: Any) -> float:
    """Return a finite number of seconds above 0. Raises ValueError for anything else."""
    seconds = _parse_float(value)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{str(value)!r} is not a number of seconds above 0")
    return seconds


def parse_duration(value: Any) -> float:
    """Return a number of seconds from 0 to `MAX_DURATION_S`. Raises ValueError for anything else."""
    seconds = _parse_float(value)
    if not 0 <= seconds <= MAX_DURATION_S:
        raise ValueError(f"{str(value)!r} is not a number of seconds (0-{MAX_DURATION_S:g})")
    return seconds


def _parse_float(value: Any) -> float:
    """Return the number in a text, or NaN, which fails every comparison."""
    try:
        return float(value)
    except ValueError:
        return float("nan")


RunDirOption = Annotated[
    Path, typer.Option("--run-dir", metavar="FOLDER", show_default=".run/", help="Run folder of the server.")
]
OptionalRunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", metavar="FOLDER", show_default=".run/ if it exists", help="Run folder of the server."
    ),
]
"""The run folder of a server; None if another option selects the server."""
PortOffset = Annotated[int, typer.Option("--port-offset", metavar="N", help="Added to every default port.")]
WeightsOption = Annotated[
    Literal["auto", "pretrained", "starter"],
    typer.Option(
        help="Weights to pack. pretrained: from the hub, pinned by models/lock.json. starter: small ones of this "
        "repository. auto: pretrained if the hub answers within 3.5 seconds, otherwise starter, with a warning."
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="FOLDER", show_default="model_store/", help="Folder of model archives."),
]
ServerHost = Annotated[
    str | None, typer.Option(metavar="HOST", show_default="127.0.0.1", help="Host of the server.")
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _port_of(address: str) -> int | None:
    return urlsplit(address if "//" in address else f"//{address}").port


def _port_option(name: str) -> Any:
    service = PORT_SERVICES[name]
    return typer.Option(
        parser=parse_port,
        metavar="N",
        show_default=str(_port_of(getattr(Endpoints(), service))),
        help=f"Port of {service.replace('_', ' ').replace('grpc', 'gRPC')}.",
    )


@dataclass(frozen=True, kw_only=True)
class ServerLocation:
    """Options for the address of the server. Raises ValueError if more than one of them is set."""

    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="One address: of a gateway, or http://HOST:8080 of TorchServe."),
    ] = None
    host: ServerHost = None
    run_dir: OptionalRunDir = None
    port_offset: PortOffset = 0

    def __post_init__(self) -> None:
        check_exclusive({"--url": self.url, "--host": self.host, "--run-dir": self.run_dir})


@dataclass(frozen=True, kw_only=True)
class ServerPorts:
    """An option for each port of a server."""

    port: Annotated[int | None, _port_option("port")] = None
    management_port: Annotated[int | None, _port_option("management_port")] = None
    metrics_port: Annotated[int | None, _port_option("metrics_port")] = None
    grpc_port: Annotated[int | None, _port_option("grpc_port")] = None
    grpc_management_port: Annotated[int | None, _port_option("grpc_management_port")] = None
    health_port: Annotated[int | None, _port_option("health_port")] = None

    def by_service(self) -> dict[str, int]:
        """Return the ports of the options that are set, by service."""
        ports = {service: getattr(self, name) for name, service in PORT_SERVICES.items()}
        return {service: number for service, number in ports.items() if number is not None}


@dataclass(frozen=True, kw_only=True)
class Connection(ServerPorts, ServerLocation):
    """Options of every command that sends requests."""

    protocol: Annotated[Protocol, typer.Option(help="Protocol of the requests.")] = "rest"
    timeout: Annotated[
        float,
        typer.Option(parser=parse_timeout, metavar="S", help="Seconds for each request, retries included."),
    ] = 120.0
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=f"the environment variable {API_KEY_VARIABLE}",
            help="File that contains the API key of a gateway.",
        ),
    ] = None

    def settings(self) -> Settings:
        """Return the client's settings. Raises ValueError for addresses or an API key that cannot be used."""
        endpoints = find_endpoints(self.url, self.run_dir, self.host, self.port_offset, self.by_service())
        return Settings(endpoints, self.protocol, self.timeout, api_key=read_api_key(self.api_key_file))


def read_api_key(file: Path | None) -> str | None:
    """Return the API key of a file, or of the environment; None without both. Raises ValueError."""
    if file is None:
        return os.environ.get(API_KEY_VARIABLE) or None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--api-key-file: cannot read {file}: {error}") from None
    if not text:
        raise ValueError(
            f"--api-key-file: {file} is empty; it must contain the key that `keys create` printed"
        )
    return text


def check_exclusive(values: Mapping[str, Any]) -> None:
    """Raise ValueError if more than one of these options has a value."""
    names = [name for name, value in values.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{names[1]} is not allowed with {names[0]}")


def find_endpoints(
    url: str | None, run_dir: Path | None, host: str | None, port_offset: int, ports: Mapping[str, int]
) -> Endpoints:
    """Return the addresses of the URL, the run folder or the host; `ports` (by service) take precedence.

    If none is set, return the addresses of the server in the default run folder, or TorchServe's default ports.

    Raises:
        ValueError: An address is not valid, no server has run in the run folder, or the offset is not that of the
            server.
    """
    if url is not None:
        if port_offset:
            raise ValueError("--port-offset is not allowed with --url; write the port in the URL")
        endpoints = Endpoints.of(url)
    elif run_dir is not None:
        endpoints = Endpoints.of_run_dir(run_dir)
        expected = _port_of(Endpoints.at(port_offset=port_offset).inference)
        if port_offset and _port_of(endpoints.inference) != expected:
            raise ValueError(
                f"the server of {run_dir} is at {endpoints.inference}, not at port {expected}; "
                "remove --port-offset"
            )
    elif host is None and not ports and not port_offset and (RUN_DIR / "state.json").exists():
        endpoints = Endpoints.of_run_dir(RUN_DIR)
    else:
        endpoints = Endpoints.at(host or "127.0.0.1", port_offset=port_offset)
    addresses = {service: _with_port(endpoints, service, number) for service, number in ports.items()}
    return replace(endpoints, **addresses)


def _with_port(endpoints: Endpoints, service: str, number: int) -> str:
    """Return the address of a service at another port. An unknown gRPC target is on the host of REST."""
    address: str = getattr(endpoints, service)
    is_target = service.startswith("grpc")
    parts = urlsplit((address if "//" in address else f"//{address}") if address else endpoints.inference)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    if is_target:
        return f"{'https://' if parts.scheme == 'https' else ''}{host}:{number}"
    return parts._replace(netloc=f"{host}:{number}").geturl()
