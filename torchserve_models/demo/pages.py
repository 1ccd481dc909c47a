"""Start a page for the browser: Gradio's in this process, Streamlit's in a child process."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from torchserve_models.client import Endpoints
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.demo.backend import Backend
from torchserve_models.paths import ROOT

MIB = 2**20


def check_address(host: str, port: int) -> None:
    """Raise OSError if no process can listen on the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((host, port))


def run_gradio(backend: Backend, host: str, port: int, has_scaling: bool) -> None:
    """Serve Gradio's page until Ctrl-C. With `has_scaling`, visitors can change the number of workers."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    # Set before the import of Gradio: disable telemetry, and keep uploads in this folder.
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    try:
        import uvicorn

        from torchserve_models.demo.gradio_app import app

        # Above the limit of the server, so that the page shows the server's error message.
        page = app(backend, folder, has_scaling, f"{2 * MAX_MESSAGE_BYTES // MIB}mb")
        uvicorn.run(page, host=host, port=port, log_level="warning")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_streamlit(endpoints: Endpoints, host: str, port: int, max_upload_mib: int) -> int:
    """Serve Streamlit's page until Ctrl-C and return its exit code.

    `max_upload_mib` is the limit that Streamlit shows and enforces.
    """
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
    # -P and Streamlit exclude the folder of this package from sys.path.
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0
