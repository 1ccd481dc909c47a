"""What the commands share: the options of the connection, and how an error is told to people."""

import argparse

from client.endpoints import Endpoints
from client.errors import ServeError, Unavailable
from client.settings import PROTOCOLS

PORTS = {
    "port": 8080,
    "management-port": 8081,
    "metrics-port": 8082,
    "grpc-port": 7070,
    "grpc-management-port": 7071,
    "health-port": 8083,
}
HINT = "Is it running? scripts/serve starts it, scripts/status shows its state."


def connection() -> argparse.ArgumentParser:
    """A parent parser."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("connection")
    group.add_argument("--protocol", choices=PROTOCOLS, default="rest", help="default: rest")
    group.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    for name, port in PORTS.items():
        group.add_argument(f"--{name}", type=_port, default=port, metavar="N", help=f"default: {port}")
    group.add_argument("--timeout", type=seconds, default=120.0, metavar="S", help="seconds; default: 120")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 1 to 65535")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def endpoints(options: argparse.Namespace) -> Endpoints:
    return Endpoints.at(
        options.host,
        inference_port=options.port,
        management_port=options.management_port,
        metrics_port=options.metrics_port,
        grpc_port=options.grpc_port,
        grpc_management_port=options.grpc_management_port,
        health_port=options.health_port,
    )


def explain(error: ServeError) -> str:
    """One line."""
    return error.message if error.code is None else f"{type(error).__name__} ({error.code}): {error.message}"


def has_no_server(error: BaseException | None) -> bool:
    """Whether HINT helps."""
    return isinstance(error, Unavailable) and not error.sent
