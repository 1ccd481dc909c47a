"""python -m torchserve_models.gateway: the application alone, for nginx to stand before.

The environment variable GATEWAY_KEY, where it is set, is a secret shared with nginx for its inner routes.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from torchserve_models.client.cli_options import port
from torchserve_models.gateway.allocator import return_large_blocks
from torchserve_models.gateway.app import create
from torchserve_models.gateway.server import configure
from torchserve_models.gateway.settings import IMAGE_ROUTES, Settings
from torchserve_models.gateway.stopping import Stopping


def main(arguments: Sequence[str] | None = None) -> int:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m torchserve_models.gateway", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--listen", type=_address, default="127.0.0.1:8090", metavar="HOST:PORT")
    parser.add_argument(
        "--listen-fd", type=int, metavar="N", help="take connections from this inherited socket instead"
    )
    parser.add_argument("--inference", default=default.inference, metavar="URL")
    parser.add_argument("--management", default=default.management, metavar="URL")
    parser.add_argument("--health", default=default.health, metavar="URL", help="of the supervisor")
    parser.add_argument("--strict", action="store_true", help="ready only with every worker of every version")
    parser.add_argument(
        "--state-file",
        type=Path,
        metavar="FILE",
        help="where scripts/gateway counts restarts, for the metrics",
    )
    add_models(parser)
    options = parser.parse_args(arguments)
    host, number = options.listen
    settings = Settings(
        inference=options.inference.rstrip("/"),
        management=options.management.rstrip("/"),
        health=options.health.rstrip("/"),
        strict=options.strict,
        image_model=options.image_model,
        route_models=dict(options.route_model),
        summarizers=dict(options.summarizer or default.summarizers),
        key=os.environ.get("GATEWAY_KEY", ""),
        state_file=options.state_file,
    )
    return_large_blocks()
    stopping = Stopping()
    stopping.on_signal()
    server = uvicorn.Server(configure(create(settings, stopping=stopping), host, number))
    inherited = None if options.listen_fd is None else [socket.socket(fileno=options.listen_fd)]
    server.run(sockets=inherited)
    return 0 if server.started else 1


def add_models(parser: argparse.ArgumentParser) -> None:
    default = Settings()
    parser.add_argument(
        "--image-model",
        default=default.image_model,
        metavar="NAME",
        help=f"what {', '.join(IMAGE_ROUTES)} ask; {default.image_model}",
    )
    parser.add_argument(
        "--route-model",
        action="append",
        type=_route_model,
        default=[],
        metavar="ROUTE=NAME",
        help="another model for one of these routes; may be repeated",
    )
    parser.add_argument(
        "--summarizer",
        action="append",
        type=_pair,
        metavar="KEY=NAME",
        help="what /predict/text_summarize?model=KEY asks; may be repeated; default: "
        + ", ".join(f"{key}={name}" for key, name in default.summarizers.items()),
    )


def _address(text: str) -> tuple[str, int]:
    host, _, number = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), port(number)


def _pair(text: str) -> tuple[str, str]:
    key, equals, name = text.partition("=")
    if not (key and equals and name):
        raise argparse.ArgumentTypeError(f"expected KEY=NAME, not {text!r}")
    return key, name


def _route_model(text: str) -> tuple[str, str]:
    route, name = _pair(text)
    if route not in IMAGE_ROUTES:
        raise argparse.ArgumentTypeError(f"{route!r} is not one of {', '.join(IMAGE_ROUTES)}")
    return route, name


if __name__ == "__main__":
    sys.exit(main())
