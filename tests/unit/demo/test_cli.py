"""The command says what is wrong before it starts anything."""

import json
import socket
import subprocess
import sys

import pytest

from torchserve_models.client import Endpoints, cli_options
from torchserve_models.demo.cli import main, run_streamlit


@pytest.fixture(autouse=True)
def default_run_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(cli_options, "RUN_DIR", tmp_path)
    return tmp_path


@pytest.fixture
def port():
    """One on which nobody listens, but which is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_without_a_server_the_command_says_what_starts_one(port, capsys):
    assert main(["--management-port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"no server to show at http://127.0.0.1:{port}" in error
    assert "scripts/serve" in error
    assert "Traceback" not in error


def test_an_unknown_page_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["flask"])
    assert caught.value.code == 2
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
def test_the_server_is_found_as_by_the_other_commands(port, capsys, default_run_dir, arguments):
    """Case 23."""
    write_state(default_run_dir / "run", port)
    write_state(default_run_dir, port)
    values = {"run": default_run_dir / "run", "port": port, "offset": port - 8081}
    assert main([argument.format(**values) for argument in arguments]) == 1
    assert f"no server to show at http://127.0.0.1:{port}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--run-dir", "absent"], "no server has run in absent"),
        (["--url", "server:8000"], "'server:8000' is neither a host nor a URL"),
        (["--url", "http://server:8000", "--port-offset", "1"], "--port-offset is not for --url"),
    ],
)
def test_a_wrong_place_is_refused(capsys, arguments, reason):
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--url", "http://a", "--server", "b"], ["--port", "0"], ["--metrics-port", "x"]]
)
def test_the_command_line_is_checked(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_streamlits_process_finds_the_packages_and_the_server(monkeypatch, tmp_path):
    """In a container nothing else sets PYTHONPATH."""
    started = []

    class Process:
        def __init__(self, command, env):
            started.append((command, env))

        def wait(self):
            return 0

    with monkeypatch.context() as patch:
        patch.setattr("torchserve_models.demo.cli.subprocess.Popen", Process)
        patch.delenv("PYTHONPATH", raising=False)
        there = Endpoints.at("::1", port_offset=3)
        assert run_streamlit(there, "127.0.0.1", 8501, 16) == 0
    [(command, environment)] = started
    assert Endpoints(**json.loads(command[-1])) == there
    assert "--server.maxUploadSize=16" in command
    check = [sys.executable, "-P", "-c", "import torchserve_models.client, torchserve_models.demo.catalog"]
    done = subprocess.run(check, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
