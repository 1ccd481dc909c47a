"""What nginx does for clients, as options of scripts/gateway and of gateway.render: TLS, limits, addresses."""

import argparse
from pathlib import Path
from typing import Any

from torchserve_models.gateway.nginx import Limits, NginxConfig, Tls

MIB = 2**20


def add_edge_options(parser: argparse.ArgumentParser) -> None:
    limits, front = Limits(), NginxConfig()
    parser.add_argument("--tls", nargs=2, type=Path, metavar=("CERT", "KEY"), help="PEM files, for both")
    parser.add_argument(
        "--open-management", action="store_true", help="/models and /metrics too: who reaches them runs code"
    )
    parser.add_argument("--access-log", action="store_true", help="a line for each request on stdout")
    group = parser.add_argument_group("limits and addresses")
    group.add_argument(
        "--rate", type=_positive, metavar="N", help="requests a second of one address; any number"
    )
    group.add_argument(
        "--burst",
        type=_positive,
        default=front.burst,
        metavar="N",
        help=f"requests above --rate that are taken at once; {front.burst}",
    )
    group.add_argument(
        "--client-requests",
        type=_positive,
        default=limits.client_requests,
        metavar="N",
        help=f"requests in progress of one address, an IPv6 network /64 being one; {limits.client_requests}",
    )
    group.add_argument(
        "--client-uploads",
        type=_positive,
        default=limits.client_uploads,
        metavar="N",
        help=f"uploads of 1 MB or more in progress of one address; {limits.client_uploads}",
    )
    group.add_argument(
        "--all-requests",
        type=_positive,
        default=limits.all_requests,
        metavar="N",
        help=f"requests in progress of all addresses; {limits.all_requests}",
    )
    group.add_argument(
        "--all-uploads",
        type=_positive,
        default=limits.all_uploads,
        metavar="N",
        help=f"uploads of 1 MB or more in progress of all addresses; {limits.all_uploads}",
    )
    group.add_argument(
        "--resend-rate",
        type=_positive,
        default=limits.resends_per_second,
        metavar="N",
        help=f"requests a second that are sent again after a worker died; {limits.resends_per_second}",
    )
    group.add_argument(
        "--connections",
        type=_positive,
        default=limits.connections,
        metavar="N",
        help=f"open connections of nginx; {limits.connections}",
    )
    group.add_argument(
        "--body-memory",
        type=_positive,
        metavar="MIB",
        help="all bodies that TorchServe holds at a time; default: what its memory budget allows",
    )
    group.add_argument(
        "--text-model",
        action="append",
        default=[],
        metavar="NAME",
        help="a further model whose bodies may have 4 MiB instead of 16; may be repeated",
    )
    group.add_argument(
        "--real-ip-from",
        action="append",
        default=[],
        metavar="NETWORK",
        help="balancers there say who the client is, in X-Forwarded-For; may be repeated",
    )
    group.add_argument(
        "--proxy-protocol", action="store_true", help="the balancers speak the PROXY protocol instead"
    )
    group.add_argument(
        "--server-name",
        action="append",
        default=[],
        metavar="HOST",
        help="a host name under which --open-management may be used; may be repeated",
    )
    group.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="pages of this site, such as https://app.example, may ask from a browser; '*' for every site; may be "
        "repeated",
    )
    group.add_argument(
        "--allow-streaming",
        action="store_true",
        help="StreamPredictions over gRPC, which kills a worker whose handler does not stream",
    )


def edge_settings(
    options: argparse.Namespace, summarizers: tuple[str, ...], body_bytes: int
) -> dict[str, Any]:
    """The arguments of gateway.nginx.NginxConfig that these options make.

    `body_bytes`: what TorchServe's memory budget allows, where --body-memory does not say otherwise.
    """
    return {
        "tls": Tls(*options.tls) if options.tls else None,
        "open_management": options.open_management,
        "access_log": "/dev/stdout requests" if options.access_log else "off",
        "rate": options.rate,
        "burst": options.burst,
        "limits": Limits(
            connections=options.connections,
            client_requests=options.client_requests,
            client_uploads=options.client_uploads,
            all_requests=options.all_requests,
            all_uploads=options.all_uploads,
            body_bytes=options.body_memory * MIB if options.body_memory else body_bytes,
            resends_per_second=options.resend_rate,
            resend_burst=2 * options.resend_rate,
        ),
        "text_models": tuple(dict.fromkeys((*summarizers, *options.text_model))),
        "real_ip_from": tuple(options.real_ip_from),
        "proxy_protocol": options.proxy_protocol,
        "server_names": tuple(options.server_name),
        "cors_origins": tuple(options.cors_origin),
        "streaming": options.allow_streaming,
    }


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")
    return int(text)
