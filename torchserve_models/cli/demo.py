"""The command `demo`, which checks that the server answers and then starts a browser page."""

import signal
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from torchserve_models.cli.options import (
    OptionalRunDir,
    PortOffset,
    ServerHost,
    check_exclusive,
    find_endpoints,
    parse_port,
)
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.client.endpoints import Endpoints, is_loopback
from torchserve_models.client.errors import TorchServeError
from torchserve_models.exit_codes import ExitCode

Page = Literal["gradio", "streamlit"]
PAGE_PORTS: dict[Page, int] = {"gradio": 7860, "streamlit": 8501}

app = create_app()


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `demo`. Raises ValueError if more than one server address is set."""

    page: Annotated[Page, typer.Argument(metavar="PAGE", help="gradio or streamlit.")] = "gradio"
    port: Annotated[
        int | None,
        typer.Option(
            parser=parse_port, metavar="N", show_default="7860, streamlit 8501", help="Port of the page."
        ),
    ] = None
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Listen address of the page.")] = "127.0.0.1"
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling", help="Offer scaling even if other machines can reach the page (gradio only)."
        ),
    ] = False
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="One address: of nginx with --open-management, or http://HOST:8080 of TorchServe.",
        ),
    ] = None
    server: ServerHost = None
    run_dir: OptionalRunDir = None
    port_offset: PortOffset = 0
    inference_port: Annotated[
        int | None,
        typer.Option(parser=parse_port, metavar="N", show_default="8080", help="Inference port."),
    ] = None
    management_port: Annotated[
        int | None,
        typer.Option(parser=parse_port, metavar="N", show_default="8081", help="Management port."),
    ] = None
    metrics_port: Annotated[
        int | None,
        typer.Option(parser=parse_port, metavar="N", show_default="8082", help="Metrics port."),
    ] = None

    def __post_init__(self) -> None:
        check_exclusive({"--url": self.url, "--server": self.server, "--run-dir": self.run_dir})

    @property
    def page_port(self) -> int:
        """The port of the page."""
        return self.port or PAGE_PORTS[self.page]

    def endpoints(self) -> Endpoints:
        """Return the addresses of the server. Raises ValueError for addresses that cannot be used."""
        ports = {
            "inference": self.inference_port,
            "management": self.management_port,
            "metrics": self.metrics_port,
        }
        return find_endpoints(
            self.url,
            self.run_dir,
            self.server,
            self.port_offset,
            {service: port for service, port in ports.items() if port is not None},
        )


@app.command(
    "demo",
    epilog=examples("demo", "demo streamlit --port 8600", "demo --url http://127.0.0.1:8000 --host 0.0.0.0"),
)
@expand_options
def demo_command(*, options: DemoOptions) -> int:
    """Show a running server in the browser. Ctrl-C ends it."""
    from torchserve_models.demo import pages
    from torchserve_models.demo.backend import Backend, error_text

    try:
        endpoints = options.endpoints()
    except ValueError as error:
        print(f"demo: {error}", file=sys.stderr)
        return ExitCode.USAGE
    backend = Backend(endpoints)
    try:
        backend.check()
        max_upload_mib = backend.max_upload_bytes() // pages.MIB
        pages.check_address(options.host, options.page_port)
    except TorchServeError as error:
        print(f"demo: no server answers at {endpoints.management}: {error_text(error)}", file=sys.stderr)
        return ExitCode.FAILURE
    except OSError as error:
        print(
            f"demo: cannot listen on {options.host}:{options.page_port} ({error.strerror}); set another --port",
            file=sys.stderr,
        )
        return ExitCode.FAILURE
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"demo: http://{host}:{options.page_port} shows {endpoints.inference}. Ctrl-C ends it.", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.page == "streamlit":
            return pages.run_streamlit(endpoints, options.host, options.page_port, max_upload_mib)
        pages.run_gradio(
            backend, options.host, options.page_port, options.scaling or is_loopback(options.host)
        )
    except KeyboardInterrupt:
        pass
    return ExitCode.SUCCESS
