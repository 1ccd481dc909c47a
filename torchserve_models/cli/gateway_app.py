"""The command `gateway-app`: the gateway application alone."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from torchserve_models.cli.gateway_options import CacheOptions, KeyFileOption, ModelRoutes
from torchserve_models.cli.gateway_parsers import ListenAddress, parse_listen_address
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.exit_codes import ExitCode
from torchserve_models.gateway.settings import GatewaySettings

app = create_app()
_SETTINGS = GatewaySettings()


@app.command(
    "gateway-app",
    epilog=examples("gateway-app --listen 127.0.0.1:8090 --inference http://127.0.0.1:8080")
    + "\n\nThe environment variable GATEWAY_KEY is a secret shared with nginx for its internal routes.",
)
@expand_options
def gateway_app_command(
    *,
    listen: Annotated[
        ListenAddress, typer.Option(parser=parse_listen_address, metavar="HOST:PORT", help="Listen address.")
    ] = ListenAddress("127.0.0.1", 8090),  # noqa: B008  # a frozen dataclass
    listen_fd: Annotated[
        int | None, typer.Option(metavar="N", help="Accept connections from this inherited socket instead.")
    ] = None,
    grpc_listen: Annotated[
        ListenAddress,
        typer.Option(
            parser=parse_listen_address, metavar="HOST:PORT", help="Address for gRPC health and reflection."
        ),
    ] = ListenAddress("127.0.0.1", 8092),  # noqa: B008
    inference: Annotated[
        str, typer.Option(metavar="URL", help="TorchServe's inference API.")
    ] = _SETTINGS.inference,
    management: Annotated[
        str, typer.Option(metavar="URL", help="TorchServe's management API.")
    ] = _SETTINGS.management,
    upstream: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Inference API of a further TorchServe. Can be repeated."),
    ] = None,
    health: Annotated[
        str, typer.Option(metavar="URL", help="URL of the supervisor's probes.")
    ] = _SETTINGS.health,
    strict: Annotated[
        bool, typer.Option("--strict", help="Ready only with every worker of every version.")
    ] = False,
    state_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File in which `gateway` counts restarts, for the metrics."),
    ] = None,
    uncached: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="nginx's listener without the cache, which only the command gateway configures.",
        ),
    ] = _SETTINGS.uncached,
    keys: KeyFileOption = None,
    cache: CacheOptions,
    routes: ModelRoutes,
) -> int:
    """Run the gateway application alone, behind a separate nginx."""
    import uvicorn

    from torchserve_models.gateway import app as gateway
    from torchserve_models.gateway.allocator import return_large_blocks
    from torchserve_models.gateway.server import uvicorn_config
    from torchserve_models.gateway.shutdown import ShutdownFlag

    if cache.cache_size and not uncached:
        print(
            "error: --cache-size requires --uncached; the command gateway sets both, and configures nginx",
            file=sys.stderr,
        )
        return ExitCode.USAGE
    settings = cache.gateway_settings(
        routes,
        grpc_listen=str(grpc_listen),
        inference=inference.rstrip("/"),
        others=tuple(url.rstrip("/") for url in upstream or ()),
        management=management.rstrip("/"),
        health=health.rstrip("/"),
        strict=strict,
        key=os.environ.get("GATEWAY_KEY", ""),
        state_file=state_file,
        uncached=uncached.rstrip("/"),
        key_file=keys,
    )
    return_large_blocks()
    shutdown = ShutdownFlag()
    shutdown.install_signal_handler()
    server = uvicorn.Server(
        uvicorn_config(gateway.create_app(settings, shutdown=shutdown), listen.host, listen.port)
    )
    inherited = None if listen_fd is None else [socket.socket(fileno=listen_fd)]
    server.run(sockets=inherited)
    return ExitCode.SUCCESS if server.started else ExitCode.FAILURE
