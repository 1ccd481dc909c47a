"""Options of the gateway's commands: models behind routes, TLS, limits and addresses of nginx."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from torchserve_models.cli.gateway_parsers import (
    MIB,
    NamedModel,
    parse_cache_size,
    parse_named_model,
    parse_route_model,
)
from torchserve_models.cli.options import parse_duration, parse_positive, parse_timeout
from torchserve_models.gateway.nginx.config import Limits, NginxConfig, Tls
from torchserve_models.gateway.settings import (
    CACHE_CHECK_TIMEOUT_S,
    CACHE_TTL_S,
    IMAGE_ROUTES,
    MAX_CACHE_BYTES,
    GatewaySettings,
)

_LIMITS, _CONFIG, _SETTINGS = Limits(), NginxConfig(), GatewaySettings()

DrainDelayOption = Annotated[
    float,
    typer.Option(
        parser=parse_duration,
        metavar="SECONDS",
        help="At shutdown, accept requests for this long after readiness is false.",
    ),
]
GraceOption = Annotated[
    float,
    typer.Option(
        parser=parse_duration,
        metavar="SECONDS",
        help="At shutdown, wait at most this long for requests in progress; a second signal ends the wait.",
    ),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default="no keys",
        help="Require an API key of this file for each request; `keys create` writes it.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelRoutes:
    """Models of the routes that are compatible with other servers."""

    image_model: Annotated[str, typer.Option(metavar="NAME", help=f"Model of {', '.join(IMAGE_ROUTES)}.")] = (
        _SETTINGS.image_model
    )
    route_model: Annotated[
        list[NamedModel] | None,
        typer.Option(
            parser=parse_route_model,
            metavar="ROUTE=NAME",
            help="Another model for one of these routes. Can be repeated.",
        ),
    ] = None
    summarizer: Annotated[
        list[NamedModel] | None,
        typer.Option(
            parser=parse_named_model,
            metavar="KEY=NAME",
            show_default=", ".join(f"{key}={name}" for key, name in _SETTINGS.summarizers.items()),
            help="Model of /predict/text_summarize?model=KEY. Can be repeated.",
        ),
    ] = None

    @property
    def route_models(self) -> dict[str, str]:
        """Models that replace the default model of a route, by route."""
        return dict(self.route_model or [])

    @property
    def summarizers(self) -> dict[str, str]:
        """The summarizers by key."""
        return dict(self.summarizer or _SETTINGS.summarizers)


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """The response cache."""

    cache_size: Annotated[
        int,
        typer.Option(
            parser=parse_cache_size,
            metavar="SIZE",
            show_default="no cache",
            help=f"Memory for cached predictions, such as 64m, up to {MAX_CACHE_BYTES // MIB}m.",
        ),
    ] = 0
    cache_ttl: Annotated[
        float,
        typer.Option(
            parser=parse_timeout, metavar="SECONDS", help="Time for which a cached prediction is used."
        ),
    ] = CACHE_TTL_S
    cache_check_timeout: Annotated[
        float,
        typer.Option(
            parser=parse_timeout,
            metavar="SECONDS",
            help="Time to wait for TorchServe's management API, which the cache asks for the current version.",
        ),
    ] = CACHE_CHECK_TIMEOUT_S

    def gateway_settings(self, routes: ModelRoutes, **others: Any) -> GatewaySettings:
        """Return the settings for these options, the models of `routes`, and `others`."""
        return GatewaySettings(
            image_model=routes.image_model,
            route_models=routes.route_models,
            summarizers=routes.summarizers,
            cache_bytes=self.cache_size,
            cache_ttl_s=self.cache_ttl,
            cache_check_timeout_s=self.cache_check_timeout,
            **others,
        )


def _limit(help_text: str) -> Any:
    return typer.Option(parser=parse_positive, metavar="N", help=help_text)


@dataclass(frozen=True, kw_only=True)
class EdgeOptions:
    """TLS, limits and addresses of nginx."""

    tls: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="CERT KEY", help="PEM files; REST and gRPC are served over TLS only."),
    ] = None
    open_management: Annotated[
        bool,
        typer.Option(
            "--open-management",
            help="Serve /models and /metrics too. Clients that reach /models can run code.",
        ),
    ] = False
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write a line for each request to stdout.")
    ] = False
    rate: Annotated[
        int | None, _limit("Requests per second of one client address; not limited by default.")
    ] = None
    burst: Annotated[int, _limit("Requests above --rate that are accepted at once.")] = _CONFIG.burst
    client_requests: Annotated[
        int, _limit("Requests in progress of one client address; an IPv6 network /64 counts as one.")
    ] = _LIMITS.client_requests
    client_uploads: Annotated[int, _limit("Uploads of 1 MB or more in progress of one client address.")] = (
        _LIMITS.client_uploads
    )
    all_requests: Annotated[int, _limit("Requests in progress of all clients.")] = _LIMITS.all_requests
    all_uploads: Annotated[int, _limit("Uploads of 1 MB or more in progress of all clients.")] = (
        _LIMITS.all_uploads
    )
    key_requests: Annotated[int, _limit("Requests in progress of one API key.")] = _LIMITS.key_requests
    resend_rate: Annotated[
        int, _limit("Requests per second that are sent again after their worker died.")
    ] = _LIMITS.resends_per_second
    connections: Annotated[int, _limit("Open connections of nginx.")] = _LIMITS.connections
    body_memory: Annotated[
        int | None,
        typer.Option(
            parser=parse_positive,
            metavar="MIB",
            show_default="from TorchServe's memory budget",
            help="Memory of all request bodies that TorchServe holds at a time.",
        ),
    ] = None
    text_model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further model whose request bodies may have 4 MiB instead of 16. Can be repeated.",
        ),
    ] = None
    real_ip_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK",
            help="Trust X-Forwarded-For of load balancers in this network. Can be repeated.",
        ),
    ] = None
    proxy_protocol: Annotated[
        bool, typer.Option("--proxy-protocol", help="The load balancers use the PROXY protocol instead.")
    ] = False
    server_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="A host name under which --open-management can be used. Can be repeated."
        ),
    ] = None
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Allow browser requests from pages of this site, such as https://app.example; '*' for every site. "
            "Can be repeated.",
        ),
    ] = None

    def nginx_settings(self, summarizers: tuple[str, ...], body_bytes: int) -> dict[str, Any]:
        """Return the arguments of `NginxConfig` for these options.

        Args:
            summarizers: Models whose request bodies are texts.
            body_bytes: Limit of request bodies by TorchServe's memory budget; --body-memory takes precedence.
        """
        return {
            "tls": Tls(*self.tls) if self.tls else None,
            "open_management": self.open_management,
            "access_log": "/dev/stdout requests" if self.access_log else "off",
            "rate": self.rate,
            "burst": self.burst,
            "limits": Limits(
                connections=self.connections,
                client_requests=self.client_requests,
                client_uploads=self.client_uploads,
                all_requests=self.all_requests,
                all_uploads=self.all_uploads,
                key_requests=self.key_requests,
                body_bytes=self.body_memory * MIB if self.body_memory else body_bytes,
                resends_per_second=self.resend_rate,
                resend_burst=2 * self.resend_rate,
            ),
            "text_models": tuple(dict.fromkeys((*summarizers, *(self.text_model or ())))),
            "real_ip_from": tuple(self.real_ip_from or ()),
            "proxy_protocol": self.proxy_protocol,
            "server_names": tuple(self.server_name or ()),
            "cors_origins": tuple(self.cors_origin or ()),
        }
