"""scripts/gateway: the gateway and nginx in front of a TorchServe that runs, until Ctrl-C."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from torchserve_models.client import Endpoints
from torchserve_models.client.cli_options import add_port_offset, add_run_dir, port
from torchserve_models.client.endpoints import GATEWAY_PORTS, MAX_PORT
from torchserve_models.gateway.__main__ import add_models
from torchserve_models.gateway.body_budget import supervised_body_bytes
from torchserve_models.gateway.front_options import add_edge_options, edge_settings
from torchserve_models.gateway.nginx import NginxConfig, NginxError
from torchserve_models.gateway.running import Running, StopRequest, say
from torchserve_models.gateway.settings import Settings
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.memory_budget import budget_here
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import State

__all__ = ["Running", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 ended by a signal, 1 failed, 2 wrong command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    default = Settings()
    settings = Settings(
        image_model=options.image_model,
        route_models=dict(options.route_model),
        summarizers=dict(options.summarizer or default.summarizers),
    )
    try:
        endpoints = _endpoints(options.run_dir, options.port_offset)
        ports = [
            _port(options.port, GATEWAY_PORTS[0], options.port_offset),
            _port(options.grpc_port, GATEWAY_PORTS[1], options.port_offset),
        ]
    except ValueError as error:
        parser.error(str(error))
    body_bytes = supervised_body_bytes(endpoints.health) or budget_here(config_file.read()).body_bytes
    front = NginxConfig(
        http=_address(options.host, ports[0]),
        grpc=_address(options.host, ports[1]),
        gateway=_address("127.0.0.1", options.gateway_port),
        endpoints=endpoints,
        others=tuple(options.upstream),
        internal="127.0.0.1:0",
        **edge_settings(options, tuple(settings.summarizers.values()), body_bytes),
    )
    stop = StopRequest()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.request()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        with Running(
            front, settings, drain_delay_s=options.drain_delay, grace_s=options.grace, stop=stop
        ) as running:
            behind = front.endpoints.inference
            _print(f"REST {running.url}, gRPC {running.front.grpc}, in front of {behind}.")
            _print(f"The API's documents: {running.url}/docs. Ctrl-C ends it.")
            running.watch()
    except KeyboardInterrupt:
        return 0
    except (NginxError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


def _endpoints(run_dir: Path, port_offset: int) -> Endpoints:
    """Of the server that runs there; without one, TorchServe's own ports, for when it comes. Raises ValueError."""
    state = State.read(RunDir(run_dir.resolve()).state)
    return state.endpoints if state else Endpoints.at(port_offset=port_offset)


def _port(given: int | None, default: int, offset: int) -> int:
    """Raises ValueError."""
    number = default + offset if given is None else given
    if not 0 <= number <= MAX_PORT:
        raise ValueError(f"{number} is not a port number (1-{MAX_PORT})")
    return number


def _port_or_any(text: str) -> int:
    return 0 if text == "0" else port(text)


def _print(text: str) -> None:
    """Write a line to stdout, whose reader may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, f"{text}\n".encode())


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _upstream(text: str) -> tuple[str, str]:
    parts = text.rsplit(":", 2)
    if len(parts) != 3 or not all(part.isdecimal() for part in parts[1:]):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT:GRPC_PORT, not {text!r}")
    return f"{parts[0]}:{parts[1]}", f"{parts[0]}:{parts[2]}"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (0-3600)")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gateway",
        description="nginx in front of a running server: REST and gRPC, limits, TLS, the routes that people know.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="listen there; 0.0.0.0 for all"
    )
    parser.add_argument("--port", type=_port_or_any, metavar="N", help="REST; 8000; 0: one that is free")
    parser.add_argument("--grpc-port", type=_port_or_any, metavar="N", help="gRPC; 7000; 0: one that is free")
    add_port_offset(parser, help="added to both defaults, and to the server's where none runs yet; 0")
    parser.add_argument("--gateway-port", type=port, default=0, metavar="N", help="inner; a free one")
    add_run_dir(parser)
    parser.add_argument(
        "--upstream",
        action="append",
        type=_upstream,
        default=[],
        metavar="HOST:PORT:GRPC_PORT",
        help="a further TorchServe that shares the predictions; may be repeated",
    )
    parser.add_argument(
        "--drain-delay",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="at the end, how long to take requests after readiness is false; 0",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="at the end, how long requests in progress may take; 60; a second signal ends at once",
    )
    add_edge_options(parser)
    add_models(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
