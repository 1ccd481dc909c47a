"""The commands `serve`, `status` and `stop`: checks before a run, signals, errors and exit codes."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from torchserve_models.cli import main
from torchserve_models.client import Endpoints
from torchserve_models.serving.archives import preparation
from torchserve_models.serving.commands import run_dir_hold, status, stop_command
from torchserve_models.serving.errors import ConfigError, RunError
from torchserve_models.serving.run_config import config_file, ports, run_plan
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.run_plan import GRACE_S
from torchserve_models.serving.run_config.state import ProcessIdentity, RunState


@pytest.fixture
def packs(monkeypatch):
    """Replace packing; return the list of its calls."""
    calls = []
    monkeypatch.setattr(preparation, "prepare_archives", lambda *arguments: calls.append(arguments))
    return calls


@pytest.fixture(autouse=True)
def signals():
    """Restore the signal handlers after each test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def serve(tmp_path, *arguments):
    return main(["serve", "--run-dir", str(tmp_path / "run"), "--store", str(tmp_path), *arguments])


def phase(tmp_path):
    state = RunState.read(RunDir(tmp_path / "run").state)
    return state and state.phase


def test_taken_port_is_reported_before_packing(tmp_path, packs, capsys):
    default = ports.Ports.from_settings(config_file.read()).inference
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert serve(tmp_path, "--port-offset", str(number - default)) == 1
    assert f"port {number} (inference) is not free" in capsys.readouterr().err
    assert packs == []


def test_invalid_configuration_is_reported_before_packing(tmp_path, packs, monkeypatch, capsys):
    def read():
        raise ConfigError("line 1: nonsense")

    monkeypatch.setattr(config_file, "read", read)
    assert serve(tmp_path) == 2
    assert "nonsense" in capsys.readouterr().err
    assert packs == []


def test_offset_out_of_range_is_rejected(tmp_path, packs, capsys):
    assert serve(tmp_path, "--port-offset", "-8080") == 2
    assert "0 is not a port number" in capsys.readouterr().err


def test_os_error_is_reported_without_traceback(tmp_path, packs, monkeypatch, capsys):
    def check_free(_settings):
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(run_dir_hold, "check_free", check_free)
    assert serve(tmp_path) == 1
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: '/somewhere'\n"


def test_sigterm_during_packing_exits_with_130(tmp_path, monkeypatch):
    cleaned = []

    def prepare(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(run_dir_hold, "check_free", lambda _settings: None)
    monkeypatch.setattr(preparation, "prepare_archives", prepare)
    assert serve(tmp_path) == 130
    assert cleaned == [True]
    assert phase(tmp_path) == "stopped"


def test_second_start_during_packing_is_rejected(tmp_path, monkeypatch, capsys):
    run, observations = RunDir(tmp_path / "run"), []

    def prepare(*_):
        state = RunState.read(run.state)
        assert state is not None
        observations.append((state.supervisor, status.get_status(run).running, serve(tmp_path)))
        raise RunError("cannot be packed")

    monkeypatch.setattr(run_dir_hold, "check_free", lambda _settings: None)
    monkeypatch.setattr(preparation, "prepare_archives", prepare)
    assert serve(tmp_path) == 1
    assert observations == [(ProcessIdentity.of(os.getpid()), True, 1)]
    assert f"already running in {run.path} (process {os.getpid()}, starting)" in capsys.readouterr().err
    assert phase(tmp_path) == "failed"


def test_stop_interrupts_packing(tmp_path):
    packing = (
        "import sys, time\n"
        "from torchserve_models.cli import main\n"
        "from torchserve_models.serving.archives import preparation\n"
        "from torchserve_models.serving.commands import run_dir_hold\n"
        "def prepare(*_): print('packing', flush=True); time.sleep(600)\n"
        "preparation.prepare_archives = prepare; run_dir_hold.check_free = lambda _: None\n"
        "sys.exit(main(['serve', '--run-dir', sys.argv[1], '--store', sys.argv[1]]))"
    )
    run = RunDir(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", packing, str(run.path)], stdout=subprocess.PIPE, cwd=config_file.ROOT
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"packing\n"
        assert stop_command.stop(run).startswith("stopped")
        assert program.wait() == 130
    assert phase(tmp_path) == "stopped"


def test_port_options_take_precedence_over_offset(tmp_path, monkeypatch):

    checked = []
    monkeypatch.setattr(
        run_dir_hold, "check_free", lambda settings: checked.append(ports.endpoints_of(settings))
    )
    monkeypatch.setattr(preparation, "prepare_archives", lambda *_: (_ for _ in ()).throw(RunError("enough")))
    numbers = ("--port", "8300", "--grpc-management-port", "7400", "--health-port", "8500")
    assert serve(tmp_path, "--port-offset", "100", *numbers) == 1
    expected = Endpoints.at(
        inference_port=8300,
        management_port=8181,
        metrics_port=8182,
        grpc_port=7170,
        grpc_management_port=7400,
        health_port=8500,
    )
    assert checked == [expected]


@pytest.mark.parametrize("verb", ["status", "stop"])
def test_offset_must_match_the_server(tmp_path, verb, capsys):
    """`status` and `stop` therefore accept the options with which the server was started."""
    run = RunDir(tmp_path / "run")
    run.make()
    gone = ProcessIdentity(2**22 + 1, "never")
    there = Endpoints.at(port_offset=100)
    RunState("stopped", "stopped on request", gone, None, there, (), str(tmp_path), str(tmp_path)).write(
        run.state
    )
    folder = ["--run-dir", str(run.path)]
    codes = [main([verb, *folder]), main([verb, *folder, "--port-offset", "100"])]
    assert codes[0] == codes[1] != 2
    capsys.readouterr()
    assert main([verb, *folder, "--port-offset", "200"]) == 2
    assert f"the server of {run.path} is at {there.inference}, not at port 8280" in capsys.readouterr().err


def test_serve_uses_grace_and_drain_delay(tmp_path, packs, monkeypatch):
    planned = []

    def planning(*arguments, **options):
        planned.append(options)
        raise RunError("enough")

    monkeypatch.setattr(run_plan, "plan_run", planning)
    assert serve(tmp_path, "--grace", "90", "--drain-delay", "2.5") == 1
    assert serve(tmp_path) == 1
    assert [(options["grace"], options["drain_delay"]) for options in planned] == [(90, 2.5), (GRACE_S, 0)]
    for wrong in ("-1", "nan", "soon"):
        assert serve(tmp_path, "--grace", wrong) == 2
