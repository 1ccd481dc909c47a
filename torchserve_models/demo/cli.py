"""The command: checks that the server answers, then starts the page that was asked for."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torchserve_models.client import Endpoints, TorchServeError
from torchserve_models.client.cli_options import add_port_offset, add_run_dir, find_endpoints, port
from torchserve_models.client.endpoints import is_loopback
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.demo.backend import Backend, said
from torchserve_models.paths import ROOT

PORTS = {"gradio": 7860, "streamlit": 8501}
SERVICES = {"inference": 8080, "management": 8081, "metrics": 8082}
"""What the pages ask, and TorchServe's own ports for it."""
MIB = 2**20


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 ended by Ctrl-C, 1 it could not start, 2 wrong command line."""
    options = parse(arguments)
    ports = {name: getattr(options, f"{name}_port") for name in SERVICES}
    try:
        endpoints = find_endpoints(
            options.url,
            options.run_dir,
            options.server,
            options.port_offset,
            {name: number for name, number in ports.items() if number is not None},
        )
    except ValueError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    backend = Backend(endpoints)
    page_port = options.port or PORTS[options.page]
    try:
        backend.check()
        max_upload_mib = backend.max_upload_bytes() // MIB
        check_free(options.host, page_port)
    except TorchServeError as error:
        print(f"demo: no server to show at {endpoints.management}: {said(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"demo: cannot listen on {options.host}:{page_port} ({error.strerror}); see --port",
            file=sys.stderr,
        )
        return 1
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"demo: http://{host}:{page_port} shows {endpoints.inference}. Ctrl-C ends it.", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    try:
        if options.page == "streamlit":
            return run_streamlit(endpoints, options.host, page_port, max_upload_mib)
        scaling = options.scaling or is_loopback(options.host)
        run_gradio(backend, options.host, page_port, folder, scaling)
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/demo", description="Show a running server in the browser.")
    parser.add_argument("page", nargs="?", choices=PORTS, default="gradio", help="default: gradio")
    parser.add_argument("--port", type=port, metavar="N", help="of the page; default: 7860, streamlit 8501")
    parser.add_argument("--host", default="127.0.0.1", help="where the page listens; default: 127.0.0.1")
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="offer scaling although the page can be reached from other machines (gradio)",
    )
    group = parser.add_argument_group("the server")
    place = group.add_mutually_exclusive_group()
    place.add_argument("--url", help="one address: of nginx with --open-management, or http://HOST:8080")
    place.add_argument("--server", metavar="HOST", help="default: 127.0.0.1")
    add_run_dir(place, None)
    add_port_offset(group)
    for name, number in SERVICES.items():
        group.add_argument(f"--{name}-port", type=port, metavar="N", help=f"default: {number}")
    return parser.parse_args(arguments)


def check_free(host: str, port: int) -> None:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((host, port))


def run_gradio(backend: Backend, host: str, port: int, folder: Path, scaling: bool) -> None:
    # Before Gradio is imported: it asks nobody about versions, and what is sent stays in this folder.
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import uvicorn

    from torchserve_models.demo.gradio_app import app

    # Above the server's own limit, so that the server says what is too large.
    page = app(backend, folder, scaling, f"{2 * MAX_MESSAGE_BYTES // MIB}mb")
    uvicorn.run(page, host=host, port=port, log_level="warning")


def run_streamlit(endpoints: Endpoints, host: str, port: int, max_upload_mib: int) -> int:
    """`max_upload_mib` is the limit that Streamlit shows, and keeps itself."""
    settings = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": max_upload_mib,
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "logger.hideWelcomeMessage": "true",
        "global.developmentMode": "false",
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    script = str(Path(__file__).with_name("streamlit_app.py"))
    addresses = json.dumps(asdict(endpoints))
    command = [sys.executable, "-P", "-m", "streamlit", "run", *flags, script, "--", addresses]
    # -P and Streamlit leave the folder of this package out of the path.
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0
