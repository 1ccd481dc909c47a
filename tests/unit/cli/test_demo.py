"""The command `demo`: checks of options and server before the page starts."""

import json
import socket
import subprocess
import sys

import pytest

from torchserve_models.cli import main, options
from torchserve_models.client import Endpoints
from torchserve_models.demo.pages import run_streamlit


@pytest.fixture(autouse=True)
def default_run_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "RUN_DIR", tmp_path)
    return tmp_path


@pytest.fixture
def port():
    """Return a bound port on which no process listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_missing_server_is_reported_with_start_hint(port, capsys):
    assert main(["demo", "--management-port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"no server answers at http://127.0.0.1:{port}" in error
    assert "scripts/serve" in error
    assert "Traceback" not in error


def test_unknown_page_is_rejected(capsys):
    assert main(["demo", "flask"]) == 2
    assert "gradio" in capsys.readouterr().err


def write_state(folder, port):
    folder.mkdir(exist_ok=True)
    there = Endpoints.at(management_port=port, inference_port=1)
    (folder / "state.json").write_text(json.dumps({"endpoints": vars(there)}))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--run-dir", "{run}"],
        ["--url", "http://127.0.0.1:{port}"],
        ["--port-offset", "{offset}"],
        ["--server", "127.0.0.1", "--management-port", "{port}"],
        [],
    ],
)
def test_location_options_select_the_server(port, capsys, default_run_dir, arguments):
    write_state(default_run_dir / "run", port)
    write_state(default_run_dir, port)
    values = {"run": default_run_dir / "run", "port": port, "offset": port - 8081}
    assert main(["demo", *(argument.format(**values) for argument in arguments)]) == 1
    assert f"no server answers at http://127.0.0.1:{port}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--run-dir", "absent"], "no server has run in absent"),
        (["--url", "server:8000"], "'server:8000' is neither a host nor a URL"),
        (["--url", "http://server:8000", "--port-offset", "1"], "--port-offset is not allowed with --url"),
    ],
)
def test_invalid_server_location_is_rejected(capsys, arguments, reason):
    assert main(["demo", *arguments]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--url", "http://a", "--server", "b"], ["--port", "0"], ["--metrics-port", "x"]]
)
def test_invalid_command_line_is_rejected(arguments):
    assert main(["demo", *arguments]) == 2


def test_streamlit_process_receives_packages_and_server_address(monkeypatch, tmp_path):
    """PYTHONPATH is not set in a container."""
    started = []

    class Process:
        def __init__(self, command, env):
            started.append((command, env))

        def wait(self):
            return 0

    with monkeypatch.context() as patch:
        patch.setattr("torchserve_models.demo.pages.subprocess.Popen", Process)
        patch.delenv("PYTHONPATH", raising=False)
        there = Endpoints.at("::1", port_offset=3)
        assert run_streamlit(there, "127.0.0.1", 8501, 16) == 0
    [(command, environment)] = started
    assert Endpoints(**json.loads(command[-1])) == there
    assert "--server.maxUploadSize=16" in command
    check = [sys.executable, "-P", "-c", "import torchserve_models.client, torchserve_models.demo.catalog"]
    done = subprocess.run(check, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
