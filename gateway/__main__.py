"""python -m gateway: the application alone, for nginx to stand before."""

import argparse
import sys
from collections.abc import Sequence

import uvicorn

from gateway.app import create
from gateway.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8090", metavar="HOST:PORT")
    parser.add_argument("--inference", default=default.inference, metavar="URL")
    parser.add_argument("--management", default=default.management, metavar="URL")
    parser.add_argument("--health", default=default.health, metavar="URL", help="of the supervisor")
    parser.add_argument("--strict", action="store_true", help="ready only with every worker of every version")
    add_models(parser)
    options = parser.parse_args(arguments)
    host, _, port = options.listen.rpartition(":")
    settings = Settings(
        inference=options.inference.rstrip("/"),
        management=options.management.rstrip("/"),
        health=options.health.rstrip("/"),
        strict=options.strict,
        image_model=options.image_model,
        summarizers=dict(options.summarizer or default.summarizers),
    )
    uvicorn.run(
        create(settings),
        host=host.strip("[]"),
        port=int(port),
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    return 0


def add_models(parser: argparse.ArgumentParser) -> None:
    default = Settings()
    parser.add_argument(
        "--image-model", default=default.image_model, metavar="NAME", help="what /predict and /model ask"
    )
    parser.add_argument(
        "--summarizer",
        action="append",
        type=_pair,
        metavar="KEY=NAME",
        help="what /predict/text_summarize?model=KEY asks; may be repeated; default: "
        + ", ".join(f"{key}={name}" for key, name in default.summarizers.items()),
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, name = text.partition("=")
    if not (key and equals and name):
        raise argparse.ArgumentTypeError(f"expected KEY=NAME, not {text!r}")
    return key, name


if __name__ == "__main__":
    sys.exit(main())
