"""The options of scripts/gateway that limit clients and say where they come from."""

import argparse
from typing import Any

from gateway.nginx import Limits
from serving import config
from serving.budget import budget_here

MIB = 2**20


def add_edge_options(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    group = parser.add_argument_group("limits and addresses")
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


def edge_settings(options: argparse.Namespace, summarizers: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of gateway.nginx.Front that these options make."""
    return {
        "limits": Limits(
            connections=options.connections,
            client_requests=options.client_requests,
            client_uploads=options.client_uploads,
            body_bytes=options.body_memory * MIB
            if options.body_memory
            else budget_here(config.read()).body_bytes,
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
