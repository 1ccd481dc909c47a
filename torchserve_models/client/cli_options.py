"""What the commands share: where the server is, and how an error is told to people."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from torchserve_models.client.endpoints import RUN_DIR, Endpoints
from torchserve_models.client.errors import TorchServeError, Unavailable
from torchserve_models.client.settings import PROTOCOLS

PORTS = {
    "port": "inference",
    "management-port": "management",
    "metrics-port": "metrics",
    "grpc-port": "grpc_inference",
    "grpc-management-port": "grpc_management",
    "health-port": "health",
}
"""Options, and the services whose ports they are."""
HINT = "Is it running? scripts/serve starts it, scripts/status shows its state."


def connection() -> argparse.ArgumentParser:
    """A parent parser."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("connection")
    group.add_argument("--protocol", choices=PROTOCOLS, default="rest", help="default: rest")
    place = group.add_mutually_exclusive_group()
    place.add_argument("--url", help="one address: of a gateway, or http://HOST:8080 of TorchServe")
    place.add_argument("--host", help="default: 127.0.0.1")
    add_run_dir(place, None)
    add_port_offset(group)
    add_ports(group)
    group.add_argument("--timeout", type=seconds, default=120.0, metavar="S", help="seconds; default: 120")
    return parser


def add_run_dir(
    parser: argparse._ActionsContainer,
    default: Path | None = RUN_DIR,
    help: str = "of the server; default: .run/",
) -> None:
    """`--run-dir`, of every command that deals with a server of scripts/serve."""
    parser.add_argument("--run-dir", type=Path, default=default, metavar="FOLDER", help=help)


def add_port_offset(
    parser: argparse._ActionsContainer, default: int | None = 0, help: str = "added to every default port; 0"
) -> None:
    """`--port-offset`, of every command that deals with a server of scripts/serve."""
    parser.add_argument("--port-offset", type=int, default=default, metavar="N", help=help)


def add_ports(parser: argparse._ActionsContainer) -> None:
    """An option for each port of a server."""
    for name, service in PORTS.items():
        default = _port_of(getattr(Endpoints(), service))
        parser.add_argument(f"--{name}", type=port, metavar="N", help=f"default: {default}")


def given_ports(options: argparse.Namespace) -> dict[str, int]:
    """The ports of `add_ports` that were given, by the service's name."""
    ports = {service: getattr(options, name.replace("-", "_")) for name, service in PORTS.items()}
    return {service: number for service, number in ports.items() if number is not None}


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number (1-65535)")
    return int(text)


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def endpoints(options: argparse.Namespace) -> Endpoints:
    """Those that the options of `connection` name. Raises ValueError."""
    return find_endpoints(
        options.url, options.run_dir, options.host, options.port_offset, given_ports(options)
    )


def find_endpoints(
    url: str | None, run_dir: Path | None, host: str | None, port_offset: int, ports: Mapping[str, int]
) -> Endpoints:
    """The addresses of the URL, the run folder or the host, with `ports` (by service) in the place of its own.

    Without any of them, those of the server that runs in the default run folder, or TorchServe's default ports.
    Raises ValueError.
    """
    if url is not None:
        if port_offset:
            raise ValueError("--port-offset is not for --url, which names a port itself")
        found = Endpoints.of(url)
    elif run_dir is not None:
        found = Endpoints.of_run_dir(run_dir)
        expected = _port_of(Endpoints.at(port_offset=port_offset).inference)
        if port_offset and _port_of(found.inference) != expected:
            raise ValueError(
                f"the server of {run_dir} is at {found.inference}, not at port {expected}; leave --port-offset out"
            )
    elif host is None and not ports and not port_offset and (RUN_DIR / "state.json").exists():
        found = Endpoints.of_run_dir(RUN_DIR)
    else:
        found = Endpoints.at(host or "127.0.0.1", port_offset=port_offset)
    return replace(
        found, **{service: _with_port(found, service, number) for service, number in ports.items()}
    )


def _port_of(address: str) -> int | None:
    return urlsplit(address if "//" in address else f"//{address}").port


def _with_port(endpoints: Endpoints, service: str, number: int) -> str:
    """The address of a service at another port. A gRPC target that is not known is on the host of REST."""
    address: str = getattr(endpoints, service)
    is_target = service.startswith("grpc")
    parts = urlsplit((address if "//" in address else f"//{address}") if address else endpoints.inference)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    if is_target:
        return f"{'https://' if parts.scheme == 'https' else ''}{host}:{number}"
    return parts._replace(netloc=f"{host}:{number}").geturl()


def explain(error: TorchServeError) -> str:
    """One line."""
    return error.message if error.code is None else f"{type(error).__name__} ({error.code}): {error.message}"


def has_no_server(error: BaseException | None) -> bool:
    """Whether HINT helps."""
    return isinstance(error, Unavailable) and not error.sent
