"""The command `gateway-config`: nginx.conf for an nginx in another container."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from torchserve_models.cli.gateway_options import EdgeOptions, ModelRoutes
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.client.endpoints import Endpoints
from torchserve_models.exit_codes import ExitCode
from torchserve_models.gateway.nginx.config import NginxConfig, NginxError
from torchserve_models.gateway.settings import GatewaySettings

app = create_app()


@app.command(
    "gateway-config",
    epilog=examples("gateway-config --output nginx.conf --server torchserve --rate 50")
    + "\n\nThe environment variable GATEWAY_KEY is a secret shared with the gateway application.",
)
@expand_options
def gateway_config_command(
    *,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The configuration file to write.")],
    work: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="A writable folder on disk in nginx's container."),
    ] = Path("/var/cache/nginx"),
    server: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help="Host of TorchServe, the supervisor and the gateway application (8090, 8092), as nginx resolves it.",
        ),
    ] = "torchserve",
    resolver: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default="the first of /etc/resolv.conf",
            help="DNS server that nginx asks for the address of --server every 2 s.",
        ),
    ] = None,
    health: Annotated[
        str, typer.Option(metavar="URL", help="URL of the supervisor's probes.")
    ] = GatewaySettings().health,
    require_keys: Annotated[
        bool,
        typer.Option("--require-keys", help="Require API keys; start the gateway application with --keys."),
    ] = False,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Time to wait for the supervisor.")] = 60.0,
    edge: EdgeOptions,
    routes: ModelRoutes,
) -> int:
    """Write nginx.conf for an nginx in another container.

    nginx listens on 8000 for REST and on 7000 for gRPC, and on 8091, which must not be published, for itself,
    Prometheus and health checks.
    """
    from torchserve_models.gateway.nginx import container_config

    try:
        config = NginxConfig(
            http="0.0.0.0:8000",
            grpc="0.0.0.0:7000",
            internal="0.0.0.0:8091",
            gateway=f"{server}:8090",
            gateway_grpc=f"{server}:8092",
            keys=require_keys,
            gateway_key=os.environ.get("GATEWAY_KEY", ""),
            endpoints=Endpoints.at(server),
            image_model=routes.image_model,
            route_models=routes.route_models,
            resolver=resolver or container_config.find_name_server(),
            **edge.nginx_settings(
                tuple(routes.summarizers.values()), container_config.wait_for_body_bytes(health, wait)
            ),
        )
        container_config.write_config(config, work, output)
    except (NginxError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    return ExitCode.SUCCESS
