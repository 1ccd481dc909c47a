"""The command `gateway`: nginx and the gateway application in front of a running server."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from torchserve_models.cli.gateway_options import (
    CacheOptions,
    DrainDelayOption,
    EdgeOptions,
    GraceOption,
    KeyFileOption,
    ModelRoutes,
)
from torchserve_models.cli.gateway_parsers import (
    ListenAddress,
    parse_listen_address,
    parse_port_or_zero,
)
from torchserve_models.cli.options import PortOffset, RunDirOption, parse_port
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.client.endpoints import GATEWAY_PORTS, MAX_PORT, RUN_DIR, Endpoints
from torchserve_models.exit_codes import ExitCode
from torchserve_models.gateway.nginx.config import NginxConfig, NginxError
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.signals import handle_termination

app = create_app()


@app.command(
    "gateway",
    epilog=examples(
        "gateway",
        "gateway --host 0.0.0.0 --tls cert.pem key.pem --rate 50",
        "gateway --upstream 10.0.0.2:8080 --access-log",
        "gateway --keys keys.json --open-management",
    ),
)
@expand_options
def gateway_command(
    *,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Listen address; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            parser=parse_port_or_zero,
            metavar="N",
            show_default=str(GATEWAY_PORTS[0]),
            help="REST port; 0 for a free one.",
        ),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            parser=parse_port_or_zero,
            metavar="N",
            show_default=str(GATEWAY_PORTS[1]),
            help="gRPC port; 0 for a free one.",
        ),
    ] = None,
    port_offset: PortOffset = 0,
    gateway_port: Annotated[
        int | None,
        typer.Option(
            parser=parse_port,
            metavar="N",
            show_default="a free one",
            help="Port of the gateway application, behind nginx.",
        ),
    ] = None,
    run_dir: RunDirOption = RUN_DIR,
    upstream: Annotated[
        list[ListenAddress] | None,
        typer.Option(
            parser=parse_listen_address,
            metavar="HOST:PORT",
            help="The REST address of a further TorchServe that shares the predictions. Can be repeated.",
        ),
    ] = None,
    drain_delay: DrainDelayOption = 0.0,
    grace: GraceOption = 60.0,
    keys: KeyFileOption = None,
    cache: CacheOptions,
    edge: EdgeOptions,
    routes: ModelRoutes,
) -> int:
    """Run nginx and the gateway in front of a running server.

    They serve REST and gRPC with limits and TLS, and the routes of other servers, until Ctrl-C.
    """
    from torchserve_models.gateway.keys.key_file import KeyFile, KeyFileError

    try:
        if cache.cache_size and upstream:
            raise ValueError(
                "--upstream cannot be combined with --cache-size: only one server's versions are known"
            )
        if keys is not None:
            KeyFile(keys).read()
        endpoints = _server_endpoints(run_dir, port_offset)
        rest_port = _offset_port(port, GATEWAY_PORTS[0], port_offset)
        nginx_grpc_port = _offset_port(grpc_port, GATEWAY_PORTS[1], port_offset)
    except (ValueError, KeyFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USAGE
    config = NginxConfig(
        http=str(ListenAddress(host, rest_port)),
        grpc=str(ListenAddress(host, nginx_grpc_port)),
        gateway=str(ListenAddress("127.0.0.1", gateway_port or 0)),
        endpoints=endpoints,
        others=tuple(map(str, upstream or ())),
        internal="127.0.0.1:0",
        **edge.nginx_settings(tuple(routes.summarizers.values()), _body_bytes(endpoints.health)),
    )
    settings = cache.gateway_settings(routes, key_file=keys.resolve() if keys else None)
    return _run_gateway(config, settings, drain_delay, grace)


def _server_endpoints(run_dir: Path, port_offset: int) -> Endpoints:
    """Return the addresses of the server of a run folder, or TorchServe's default ports. Raises ValueError."""
    from torchserve_models.serving.run_config.run_dir import RunDir
    from torchserve_models.serving.run_config.state import RunState

    state = RunState.read(RunDir(run_dir.resolve()).state)
    return state.endpoints if state else Endpoints.at(port_offset=port_offset)


def _offset_port(number: int | None, default: int, offset: int) -> int:
    """Return `number`, or the default plus the offset. Raises ValueError if that is not a port number."""
    port = default + offset if number is None else number
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"{port} is not a port number (1-{MAX_PORT})")
    return port


def _body_bytes(health: str) -> int:
    """Return the limit of request bodies in bytes, from the supervisor or from the memory of this machine."""
    from torchserve_models.gateway.nginx.body_budget import supervised_body_bytes
    from torchserve_models.serving.run_config import config_file
    from torchserve_models.serving.run_config.memory_budget import budget_here

    return supervised_body_bytes(health) or budget_here(config_file.read()).body_bytes


def _run_gateway(config: NginxConfig, settings: GatewaySettings, drain_delay_s: float, grace_s: float) -> int:
    from torchserve_models.gateway.supervision.edge_supervisor import EdgeSupervisor, log
    from torchserve_models.gateway.supervision.stop_request import StopRequest

    stop = StopRequest()
    handle_termination(stop.request)
    try:
        with EdgeSupervisor(
            config, settings, drain_delay_s=drain_delay_s, grace_s=grace_s, stop=stop
        ) as edge:
            _print(f"REST {edge.url}, gRPC {edge.config.grpc}, in front of {config.endpoints.inference}.")
            _print(f"API documentation: {edge.url}/docs. Ctrl-C ends it.")
            edge.watch()
    except KeyboardInterrupt:
        return ExitCode.SUCCESS
    except (NginxError, OSError) as error:
        log(f"error: {error}")
        return ExitCode.FAILURE
    return ExitCode.SUCCESS


def _print(text: str) -> None:
    """Write a line to stdout. Ignore a closed pipe."""
    with contextlib.suppress(OSError):
        os.write(1, f"{text}\n".encode())
