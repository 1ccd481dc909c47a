"""Write nginx.conf for an nginx in a container of its own, as deploy/compose.yaml has it.

TorchServe's supervisor is asked for its memory budget, so that nginx's limits follow from TorchServe's memory.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from torchserve_models.client import Endpoints
from torchserve_models.gateway.__main__ import add_models
from torchserve_models.gateway.body_budget import supervised_body_bytes
from torchserve_models.gateway.front_options import add_edge_options, edge_settings
from torchserve_models.gateway.nginx import NginxConfig, NginxError, render
from torchserve_models.gateway.settings import Settings

_RETRY_S = 0.5
_RESOLV_CONF = Path("/etc/resolv.conf")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 written, 1 failed, 2 wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        front = NginxConfig(
            http="0.0.0.0:8000",
            grpc="0.0.0.0:7000",
            internal="0.0.0.0:8091",
            gateway=f"{options.server}:8090",
            gateway_key=os.environ.get("GATEWAY_KEY", ""),
            endpoints=Endpoints.at(options.server),
            image_model=options.image_model,
            route_models=dict(options.route_model),
            resolver=options.resolver or _name_server(),
            **edge_settings(
                options,
                tuple(dict(options.summarizer or Settings().summarizers).values()),
                _body_bytes(options.health, options.wait),
            ),
        )
        _write(options.output, render(front, options.work))
    except (NginxError, OSError, ValueError) as error:
        print(f"gateway.render: {error}", file=sys.stderr)
        return 1
    return 0


def _body_bytes(health: str, wait_s: float) -> int:
    """Raises NginxError when the supervisor does not answer within `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while (found := supervised_body_bytes(health)) is None:
        if time.monotonic() >= deadline:
            raise NginxError(f"no supervisor has told its memory budget at {health} for {wait_s:g} s")
        time.sleep(_RETRY_S)
    return found


def _name_server(path: Path = _RESOLV_CONF) -> str:
    """The first of this container, which is in nginx's network; others may not know the names of that network."""
    for line in path.read_text(encoding="utf-8").splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                return f"[{address}]" if ":" in address else address
    raise NginxError(f"{path} names no server; --resolver does")


def _write(path: Path, text: str) -> None:
    """Replace the file at once. Everyone may read it: nginx is another user, in another container."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m torchserve_models.gateway.render",
        description="Write nginx.conf for an nginx in another container: REST on 8000, gRPC on 7000, and on 8091, "
        "never published, its listener for itself, Prometheus and health checks. GATEWAY_KEY as for the gateway.",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="nginx.conf")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("/var/cache/nginx"),
        metavar="FOLDER",
        help="a folder of nginx's container, on disk, that nginx may write to; %(default)s",
    )
    parser.add_argument(
        "--server",
        default="torchserve",
        metavar="HOST",
        help="where nginx finds TorchServe, the supervisor and the gateway (8090); %(default)s",
    )
    parser.add_argument(
        "--resolver",
        metavar="ADDRESS",
        help="a DNS server that nginx asks for the address of --server every 2 s; default: the first of "
        "/etc/resolv.conf",
    )
    parser.add_argument(
        "--health", default=Endpoints().health, metavar="URL", help="of the supervisor; %(default)s"
    )
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="for the supervisor; %(default)g"
    )
    add_models(parser)
    add_edge_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
